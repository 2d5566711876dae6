"""The cache of blocks: whatever happens to it is found and mended with one line."""

import errno
import json
import os
import shutil
import sys
import time

import numpy as np
import pytest
from helpers import write_jsonl

from distil_lib.errors import UserError
from distil_lib.text import blocks as library
from distil_lib.text import cache
from distil_lib.text.blocks import load_blocks


@pytest.fixture(scope="module")
def source(tmp_path_factory, documents):
    return str(write_jsonl(tmp_path_factory.mktemp("source") / "source.jsonl", documents))


@pytest.fixture(scope="module")
def packed(source, tokenizer, tmp_path_factory):
    """A cache with the blocks of the source, which no test may touch, and what was packed."""
    folder = tmp_path_factory.mktemp("cache")
    return folder, load_blocks(source, tokenizer, 16, cache=folder)


@pytest.fixture
def made(packed, tmp_path):
    """(folder, hash): the blocks of the source, in a cache that a test may damage."""
    cache, blocks = packed
    shutil.copytree(cache / "blocks", tmp_path / "blocks", dirs_exist_ok=True)
    return tmp_path / "blocks" / blocks.cache_key, blocks.content_hash


def arrow(folder):
    return next((folder / "train").glob("*.arrow"))


def flip(path, at=0.5):
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 4
    path.write_bytes(data)


def rewrite(path, change):
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def huge_id(folder):
    """An id of two thousand million, written as if it had been there from the start."""
    path = arrow(folder)
    data = path.read_bytes()
    place = data.index(np.array([2], "<i4").tobytes() * 1, len(data) // 2)
    path.write_bytes(data[:place] + np.array([2_000_000_000], "<i4").tobytes() + data[place + 4 :])


def as_a_file(folder):
    shutil.rmtree(folder)
    folder.write_text("a file")


DAMAGES = {
    "arrow truncated": lambda f: os.truncate(arrow(f), arrow(f).stat().st_size // 2),
    "arrow empty": lambda f: arrow(f).write_bytes(b""),
    "arrow missing": lambda f: arrow(f).unlink(),
    "arrow, one bit": lambda f: flip(arrow(f)),
    "arrow, a bit of its head": lambda f: flip(arrow(f), 0.01),
    "an id beyond the vocabulary": huge_id,
    "held out missing": lambda f: shutil.rmtree(f / "held_out"),
    "counts missing": lambda f: (f / "counts.npy").unlink(),
    "counts of another size": lambda f: np.save(f / "counts.npy", np.zeros(3, np.int64)),
    "counts pickled": lambda f: np.save(f / "counts.npy", np.array([{}]), allow_pickle=True),
    "state missing": lambda f: (f / "train" / "state.json").unlink(),
    "state damaged": lambda f: (f / "train" / "state.json").write_text("{"),
    "info damaged": lambda f: (f / "train" / "dataset_info.json").write_text("[]"),
    "manifest missing": lambda f: (f / "manifest.json").unlink(),
    "manifest binary": lambda f: (f / "manifest.json").write_bytes(b"\xff\x00"),
    "manifest a list": lambda f: (f / "manifest.json").write_text("[]"),
    "manifest null": lambda f: (f / "manifest.json").write_text("null"),
    "manifest deep": lambda f: (f / "manifest.json").write_text("[" * 100_000),
    "manifest of numbers": lambda f: rewrite(f / "manifest.json", lambda m: m | {"files": 5}),
    "manifest of names": lambda f: rewrite(f / "manifest.json", lambda m: m | {"files": {"a": 5}}),
    "manifest without hash": lambda f: rewrite(
        f / "manifest.json", lambda m: {k: v for k, v in m.items() if k != "content_hash"}
    ),
    "empty": lambda f: (shutil.rmtree(f), f.mkdir()),
    "a file": as_a_file,
    "a dangling link": lambda f: (shutil.rmtree(f), f.symlink_to("nowhere")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_blocks_are_made_again_with_one_line(
    damage, made, source, tokenizer, tmp_path, capsys
):
    """Oracle: the blocks of before."""
    folder, content = made
    capsys.readouterr()
    DAMAGES[damage](folder)
    for expected_lines in (1, 0):
        again = load_blocks(source, tokenizer, 16, cache=tmp_path)
        assert (
            again.content_hash
            == content
            == library.hash_blocks({"train": again.train, "held_out": again.held_out})
        )
        said = [line for line in capsys.readouterr().err.splitlines() if "damaged" in line]
        assert len(said) == expected_lines


def test_large_blocks_are_hashed_only_where_a_file_was_touched(made, tokenizer, monkeypatch):
    folder, _ = made
    monkeypatch.setattr(cache, "ALWAYS_HASHED", 0)
    hashed = []
    monkeypatch.setattr(cache, "_sha256", lambda path: hashed.append(path))
    assert cache.damage(folder) is None and not hashed
    arrow(folder).touch()
    assert "has changed" in cache.damage(folder) and hashed == [arrow(folder)]


def test_all_files_are_flushed_before_they_get_their_name(source, tokenizer, tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(cache, "_flush", lambda path: flushed.append(path.name))
    load_blocks(source, tokenizer, 16, cache=tmp_path)
    assert {"counts.npy", "manifest.json", arrow(next((tmp_path / "blocks").iterdir())).name} <= {
        *flushed
    }
    assert flushed[-1] == "blocks"


def test_nothing_but_blocks_stays_behind(source, tokenizer, tmp_path):
    """No copy of the text, and none of the tokens."""
    made = load_blocks(source, tokenizer, 16, cache=tmp_path)
    assert [path.name for path in (tmp_path / "blocks").iterdir()] == [made.cache_key]
    size = sum(f.stat().st_size for f in (tmp_path / "blocks").rglob("*") if f.is_file())
    blocks = len(made.train) + len(made.held_out)
    assert size < 16 * 4 * blocks * 1.1 + 40_000


@pytest.mark.parametrize("what", ["a file", "below a file"])
def test_a_cache_that_cannot_be_written_is_named(what, source, tokenizer, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    place = tmp_path / "file" if what == "a file" else tmp_path / "file" / "below"
    monkeypatch.setenv("DISTIL_CACHE", str(place))
    with pytest.raises(UserError) as error:
        load_blocks(source, tokenizer, 16)
    assert "file" in error.value.problem and "DISTIL_CACHE" in error.value.remedy
    with pytest.raises(UserError, match="file"):  # named by a program in Python
        load_blocks(source, tokenizer, 16, cache=str(place))


# ----------------------------------------------------------------------------------- command line
def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["cache", *arguments])
    cache.main()


def test_the_cache_is_listed_and_emptied(made, source, tmp_path, monkeypatch, capsys):
    folder, _ = made
    monkeypatch.setenv("DISTIL_CACHE", str(tmp_path))
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    run(monkeypatch)
    assert source in capsys.readouterr().out and folder.is_dir()
    run(monkeypatch, "--older_than", "1")
    assert folder.is_dir()
    os.utime(folder, (time.time() - 90_000,) * 2)
    run(monkeypatch, "--older_than", "1")
    assert not folder.exists() and foreign.is_dir()
    assert "deleted" in capsys.readouterr().out


def test_all_is_deleted_but_what_is_being_written(made, tmp_path, monkeypatch):
    monkeypatch.setenv("DISTIL_CACHE", str(tmp_path))
    for name in (".making-old", ".making-new"):
        (tmp_path / "blocks" / name).mkdir()
    os.utime(tmp_path / "blocks" / ".making-old", (time.time() - 90_000,) * 2)
    run(monkeypatch, "--empty")
    assert [path.name for path in (tmp_path / "blocks").iterdir()] == [".making-new"]


@pytest.mark.parametrize("days", ["-1", "nan", "inf", "soon"])
def test_an_age_that_is_none_is_refused(days, monkeypatch, capsys):
    with pytest.raises(SystemExit) as end:
        run(monkeypatch, "--older_than", days)
    assert end.value.code == 2 and "error: " in capsys.readouterr().err


def test_blocks_that_are_used_are_young(made, source, tokenizer, tmp_path):
    folder, _ = made
    os.utime(folder, (1, 1))
    load_blocks(source, tokenizer, 16, cache=tmp_path)
    assert time.time() - folder.stat().st_mtime < 60


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT])
def test_a_disk_that_takes_no_blocks_is_named_with_the_cache(
    number, source, tokenizer, tmp_path, monkeypatch
):
    """The reader has to know which disk; nothing half written is left, and the next run works."""

    def full(*_):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch, pytest.raises(UserError) as error:
        patch.setattr(cache, "write", full)
        load_blocks(source, tokenizer, 16, cache=tmp_path / "cache")
    assert f"blocks could not be saved in {tmp_path / 'cache'}" in str(error.value)
    assert list((tmp_path / "cache" / "blocks").iterdir()) == []
    assert len(load_blocks(source, tokenizer, 16, cache=tmp_path / "cache").train)
