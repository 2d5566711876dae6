"""Files that are read with care, and text that is UTF-8 on every system."""

import ast
import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from distil_lib.common.files import atomic_folder, locked, read_json, read_yaml, write_result
from distil_lib.common.paths import cache_folder
from distil_lib.errors import UserError
from distil_lib.finetune.records import read_record
from distil_lib.tasks.own_tasks import read_task_declaration

LIBRARY = Path(__file__).parents[2] / "distil_lib"


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"null", "an object"),
        (b"5", "an object"),
        (b"[]", "an object"),
        (b'{"a": ' * 100_000, "no JSON"),
        (b"[" * 1_000_000, "no JSON"),
        (b"\xff\xfe{\x00}\x00", "UTF-8"),
        (b'{"a": "\x89PNG\x00\xff"}', "UTF-8"),
        (b'{"a": 1}' + b" " * 2_000_000, "bytes"),
    ],
)
def test_a_file_that_is_no_json_object_is_refused_in_one_message(content, words, tmp_path):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError) as error:
        read_json(tmp_path / "a.json", limit=1_500_000)
    assert words in str(error.value) and "a.json" in str(error.value) and error.value.remedy
    assert "\n" not in str(error.value)


def test_json_is_read_as_it_was_written(tmp_path):
    record = {"name": "café 文", "values": [1, 2.5, None, True]}
    (tmp_path / "a.json").write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")
    assert read_json(tmp_path / "a.json") == record
    with pytest.raises(UserError, match="cannot be read"):
        read_json(tmp_path / "missing.json")
    with pytest.raises(UserError, match="cannot be read"):
        read_json(tmp_path)


def without_encoding(source: str) -> list[int]:
    """Lines that read or write text in whatever encoding the system has."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or any(k.arg == "encoding" for k in node.keywords):
            continue
        function = node.func
        name = getattr(function, "attr", getattr(function, "id", ""))
        owner = getattr(getattr(function, "value", None), "id", "")
        modes = [a.value for a in node.args if isinstance(a, ast.Constant)]
        modes += [getattr(k.value, "value", None) for k in node.keywords if k.arg == "mode"]
        binary = any(isinstance(mode, str) and "b" in mode for mode in modes[:2])
        if isinstance(function, ast.Attribute) and name in ("read_text", "write_text"):
            lines.append(node.lineno)
        if name in ("open", "fdopen") and not binary and owner not in ("os", "tarfile", "zipfile"):
            literal = all(isinstance(a, ast.Constant) for a in node.args) or owner
            if literal or isinstance(function, ast.Name):
                lines.append(node.lineno)
    return lines


@pytest.mark.parametrize(
    "source, found",
    [
        ("path.read_text()", 1),
        ("path.write_text(text)", 1),
        ("path.open()", 1),
        ("path.open('a')", 1),
        ("open(path)", 1),
        ("open(path, 'w')", 1),
        ("open(path, 'rb')", 0),
        ("path.open('rb')", 0),
        ("path.read_text(encoding='utf-8')", 0),
        ("open(path, encoding='utf-8')", 0),
        ("os.open(path, flags)", 0),
    ],
)
def test_the_search_for_text_without_encoding_sees_it(source, found):
    assert len(without_encoding(source)) == found


def test_the_library_reads_and_writes_text_as_utf_8_only():
    """On Windows the default is another one, and in a C locale ASCII."""
    found = {
        str(path.relative_to(LIBRARY)): lines
        for path in LIBRARY.rglob("*.py")
        if (lines := without_encoding(path.read_text(encoding="utf-8")))
    }
    assert found == {}


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_cache_that_cannot_be_made_names_its_variable(name, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("DISTIL_CACHE", str(tmp_path / name))
    with pytest.raises(UserError, match="DISTIL_CACHE") as error:
        cache_folder("blocks")
    assert str(tmp_path / name) in str(error.value)


@pytest.mark.parametrize("number", ["0100", "-010", "+07", "00", "1:30", "1:30.5", "190:20:30"])
def test_numbers_that_yaml_reads_as_others_are_refused(number, tmp_path):
    """Oracle: what a reader takes them for. PyYAML makes 64 of 0100 and 90 of 1:30."""
    file = tmp_path / "a.yaml"
    file.write_text(f"max_steps: {number}\n")
    assert yaml.safe_load(file.read_text())["max_steps"] != number
    with pytest.raises(UserError, match="another number"):
        read_yaml(file)
    file.write_text(f"max_steps: '{number}'\nnested: [0, 0.5, 10, 1.0e-3, 0x1f]\n")
    assert read_yaml(file) == {"max_steps": number, "nested": [0, 0.5, 10, 1e-3, 31]}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("read", [read_json, read_yaml, read_record, read_task_declaration])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_regular_file_is_not_waited_for(read, kind, tmp_path):
    """A pipe that nobody writes into blocks its reader; /dev/zero never ends."""
    file = tmp_path / "a.yaml"
    {"pipe": os.mkfifo, "folder": os.mkdir, "device": lambda f: f.symlink_to("/dev/zero")}[kind](
        file
    )
    with pytest.raises(UserError, match="no regular file"):
        read(file)


# ------------------------------------------------------------------------------------------ locks
def test_one_program_at_a_time(tmp_path):
    with locked(tmp_path / "r.json"):
        with pytest.raises(UserError, match=r"Another run is at work in .*r\.json"):
            locked(tmp_path / "r.json").__enter__()
        with locked(tmp_path / "other.json"):
            pass
    with locked(tmp_path / "r.json"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {".r.json.lock", ".other.json.lock"}


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be deleted there")
def test_who_has_opened_the_lock_of_a_program_that_ends_keeps_all_others_out(tmp_path):
    """Deleted on release, the file would be locked by one program, and a new one by another."""
    import fcntl

    with locked(tmp_path / "r.json"):
        second = os.open(tmp_path / ".r.json.lock", os.O_RDWR)
    fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with pytest.raises(UserError, match="Another run"):
        locked(tmp_path / "r.json").__enter__()
    os.close(second)
    with locked(tmp_path / "r.json"):
        pass


def test_a_program_that_was_killed_is_in_nobodys_way(tmp_path):
    code = "import os, sys; from pathlib import Path; from distil_lib.common.files import locked\n"
    code += "block = locked(Path(sys.argv[1])); block.__enter__(); os.kill(os.getpid(), 9)"
    environment = os.environ | {"PYTHONPATH": str(LIBRARY.parent)}
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "r.json"], env=environment)
    assert done.returncode == -9 and (tmp_path / ".r.json.lock").exists()
    with locked(tmp_path / "r.json"):
        pass


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOLCK])
def test_where_nothing_can_be_locked_nothing_is(number, tmp_path, monkeypatch):
    def refuses(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("distil_lib.common.files.FileLock.acquire", refuses)
    entered = []
    with locked(tmp_path / "r.json"):
        entered.append(1)
    assert entered == [1]


def test_what_the_block_raises_is_left_alone(tmp_path):
    with pytest.raises(OSError, match="mine"), locked(tmp_path / "r.json"):
        raise OSError("mine")


# ---------------------------------------------------------------------------- folders that are lost
def a_file_for_the_folder(folder):
    shutil.rmtree(folder)
    folder.write_text("another file")


def a_file_above(folder):
    shutil.rmtree(folder.parent)
    folder.parent.write_text("another file")


def a_folder_for_the_file(folder):
    (folder / "r.json").mkdir()


@pytest.mark.parametrize(
    "harm", [a_file_for_the_folder, a_file_above, a_folder_for_the_file, shutil.rmtree]
)
@pytest.mark.parametrize("writes", ["a result", "a folder"])
def test_a_place_that_is_lost_while_a_program_works_is_one_message(harm, writes, tmp_path):
    """Of a folder that is only gone a new one is made; nothing is left half written."""
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    told = pytest.raises(UserError, match="could not be saved in ")
    if harm is shutil.rmtree and writes == "a result":
        told = contextlib.nullcontext()
    if harm is a_folder_for_the_file and writes == "a folder":
        told = contextlib.nullcontext()  # an older result, which is replaced
    with told:
        if writes == "a result":
            harm(folder)
            write_result(folder / "r.json", {"a": 1})
        else:
            with atomic_folder(folder / "r.json") as beside:
                (beside / "a").write_text("x")
                harm(folder)
    assert not list(tmp_path.rglob("*.partial"))
    if not isinstance(told, contextlib.nullcontext):
        assert not (folder / "r.json").is_file()


def test_another_file_that_is_missing_is_not_taken_for_the_place(tmp_path):
    for name in ("elsewhere.txt", "a/beside.txt"):
        with pytest.raises(FileNotFoundError), atomic_folder(tmp_path / "a" / "model"):
            (tmp_path / name).read_text()
