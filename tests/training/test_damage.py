"""Damaged, foreign and busy run folders: resumed with a word, or refused in one message.

Oracles: the file of a run that was never damaged, and the rule that nothing foreign is deleted.
"""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest
from test_checkpoint import Training
from test_run_folder import config, content, opened  # noqa: F401

from distil_lib.errors import UserError
from distil_lib.training.checkpoint import find_corruption, latest_valid_checkpoint
from distil_lib.training.metrics_file import MetricsFile, read_metrics
from distil_lib.training.run_folder import open_run, saving

ROWS = [{"step": i, "loss": 1 / (i + 3)} for i in range(6)]


# ----------------------------------------------------------------------------------------- metrics
@pytest.fixture
def metrics(tmp_path):
    """(a file of four lines, their length when the checkpoint was saved)."""
    file = MetricsFile(tmp_path / "metrics.jsonl")
    for row in ROWS[:4]:
        file.write(row)
    return tmp_path / "metrics.jsonl", file.sync()


def cut_in_a_line(path):
    os.truncate(path, path.stat().st_size - 5)


def cut_between_lines(path):
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))


def zeros_at_the_end(path):  # as a file system leaves behind after a power cut
    size = path.stat().st_size
    os.truncate(path, size - 30)
    os.truncate(path, size)


def binary_in_the_middle(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] = 0xFF
    path.write_bytes(data)


def a_list_for_a_row(path):
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], "[" * (len(lines[1]) - 1) + "\n", *lines[2:]]))


@pytest.mark.parametrize(
    "harm, left",
    [
        (os.remove, []),
        (lambda path: path.write_bytes(b""), []),
        (cut_in_a_line, [0, 1, 2]),
        (cut_between_lines, [0, 1, 2]),
        (zeros_at_the_end, [0, 1, 2]),
        (binary_in_the_middle, [0, 1, 3]),
        (a_list_for_a_row, [0, 2, 3]),
    ],
)
def test_a_damaged_metrics_file_is_repaired_with_a_word(harm, left, metrics, tmp_path, capsys):
    """Every complete line stays, and what the resumed run writes follows them."""
    path, length = metrics
    harm(path)
    resumed = MetricsFile(path, length)
    for row in ROWS[4:]:
        resumed.write(row)
    rows = read_metrics(tmp_path)
    if harm is not binary_in_the_middle:
        assert rows == [ROWS[i] for i in left] + ROWS[4:]
    assert rows[-2:] == ROWS[4:] and all(row in ROWS for row in rows)
    assert str(path) in capsys.readouterr().err


def test_a_whole_metrics_file_is_left_alone_without_a_word(metrics, tmp_path, capsys):
    MetricsFile(*metrics)
    assert read_metrics(tmp_path) == ROWS[:4] and capsys.readouterr().err == ""


def test_a_folder_for_a_metrics_file_is_refused(tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        MetricsFile(tmp_path / "metrics.jsonl", 10)


def test_the_lines_are_on_the_disk_before_the_checkpoint_that_counts_on_them(metrics, monkeypatch):
    """The order of the system's calls is the oracle."""
    path, _ = metrics
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    MetricsFile(path, path.stat().st_size).sync()
    assert synced == [path.stat().st_ino]


# --------------------------------------------------------------------------------------- manifests
MANIFESTS = {
    "a list": "[]",
    "null": "null",
    "a number": "5",
    "a name alone": '{"model.safetensors": 5}',
    "null for a file": '{"model.safetensors": null}',
    "no sizes": '{"model.safetensors": {}, "optimizer.safetensors": {}, "state.json": {}}',
    "a long name": json.dumps({"x" * 5000: {"bytes": 1, "sha256": ""}}),
    "a path upwards": '{"../../secret": {"bytes": 1, "sha256": ""}}',
    "one file less": '{"model.safetensors": {"bytes": 1, "sha256": ""}}',
    "too deep": "[" * 100_000,
    "binary": b"\x00\xff\xfe",
    "nothing": "",
}


@pytest.mark.parametrize("kind", MANIFESTS)
def test_a_foreign_manifest_is_damage_and_the_checkpoint_before_serves(kind, tmp_path, capsys):
    training = Training("adamw").train(1)
    before, newest = training.save(tmp_path), training.train(1).save(tmp_path)
    text = MANIFESTS[kind]
    (newest / "manifest.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert "manifest" in find_corruption(newest)
    assert latest_valid_checkpoint(tmp_path) == before and str(newest) in capsys.readouterr().err


# -------------------------------------------------------------------------------------- the folder
SETTINGS = {
    "nothing": b"",
    "a number": b"5",
    "a list": b"[1, 2]",
    "binary": b"\x00\x01\xff",
    "latin-1": "corpus: \xe4\n".encode("latin-1"),
    "tabs": b"corpus:\n\t- a\n",
    "a tag": b"!!python/object/apply:os.system ['touch executed']",
    "too deep": b"[" * 5000,
    "another program's": b"theme: dark\n",
}


@pytest.mark.parametrize("option", ["resume", "overwrite", None])
@pytest.mark.parametrize("kind", SETTINGS)
def test_settings_of_no_run_are_refused_and_nothing_is_touched(
    kind,
    option,
    config,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_bytes(SETTINGS[kind])
    before = content(tmp_path)
    with pytest.raises(UserError, match=r"config\.yaml"):
        opened(config(**({option: True} if option else {})))
    assert content(tmp_path) == before


@pytest.mark.parametrize(
    "name",
    ["chapters/thesis.tex", "notes.txt", "model/thesis.tex", "model/a/b", "checkpoints/old/a"],
)
def test_overwrite_deletes_nothing_that_no_run_has_written(name, config, tmp_path):  # noqa: F811
    opened(config())
    (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "run" / name).write_text("years of work")
    before = content(tmp_path)
    with pytest.raises(UserError, match=name.split("/")[-2] if "/" in name else name):
        opened(config(overwrite=True))
    assert content(tmp_path) == before


def test_overwrite_deletes_all_that_a_run_has_written(config, tmp_path):  # noqa: F811
    opened(config())
    for name in ("checkpoints/step-00000002/state.json", "model/config.json", "curves.png"):
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_text("old")
    opened(config(overwrite=True))
    assert [p.name for p in content(tmp_path / "run")] == ["config.yaml"]


# -------------------------------------------------------------------------------------------- lock
def test_a_second_run_in_a_folder_is_told_who_holds_it(config, tmp_path):  # noqa: F811
    """Also one that would overwrite it; and the folder is free when the first run has ended."""
    _, lock = open_run(config())
    for option in ({"resume": True}, {"overwrite": True}):
        with pytest.raises(UserError) as error:
            open_run(config(**option))
        said = str(error.value)
        assert f"process {os.getpid()} on {socket.gethostname()}, since 20" in said
    lock.release()
    assert opened(config(resume=True)) is None


def test_a_killed_run_leaves_no_lock(config, tmp_path):  # noqa: F811
    """The kernel releases it: here of a process that is killed while it holds it."""
    opened(config())
    code = (
        "import sys, time; from pathlib import Path; from distil_lib.training.run_folder import"
        " lock_run; lock = lock_run(Path(sys.argv[1])); print('locked', flush=True);"
        " time.sleep(600)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "run"], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "locked\n"
    with pytest.raises(UserError, match=f"process {holder.pid} on"):
        opened(config(resume=True))
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert opened(config(resume=True)) is None


def test_a_folder_that_cannot_be_written_is_one_message(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="could not be written"), saving(tmp_path / "file"):
        (tmp_path / "file" / "below").mkdir()
