"""Whole programs whose surroundings change or break: work is kept, and changes are noticed.

Oracles: what is on the disk, exit codes, and the schedule of a run without a time limit.
"""

import dataclasses
import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from helpers import (
    assert_user_error,
    random_documents,
    replace,
    signal_at,
    together,
    write_jsonl,
)
from safetensors.torch import load_file, save_file

from distil_lib.errors import UserError
from distil_lib.text.blocks import Blocks
from distil_lib.training.metrics_file import read_metrics
from distil_lib.training.optimization import LinearByProgress
from distil_lib.training.time_limit import TimeLimit, parse_duration

STEP = "distil_lib.training.loop.PretrainingRun._optimizer_step"


# ------------------------------------------------------------------------------ contents, not paths
@pytest.fixture(scope="module")
def stopped(small_run, program, teacher_folder, tokenizer_folder, tmp_path_factory):
    """A run that was stopped in its third step, with inputs of its own: (folder, arguments)."""
    folder = tmp_path_factory.mktemp("stopped")
    shutil.copytree(teacher_folder, folder / "teacher")
    shutil.copytree(tokenizer_folder, folder / "tokenizer")
    write_jsonl(folder / "corpus.jsonl", random_documents(60))
    done = program(start(small_run, folder), signal_at(STEP, 2, signal.SIGTERM))
    assert done.code == 143, done.err
    return folder


def start(small_run, folder, **changes):
    names = {"teacher": "teacher", "tokenizer": "tokenizer", "corpus": "corpus.jsonl"}
    inputs = {key: folder / name for key, name in names.items()}
    return small_run(folder / "run", **inputs | {"max_steps": 4} | changes)


@pytest.fixture
def copied(stopped, tmp_path):
    """A copy of all of it, in another folder."""
    shutil.copytree(stopped, tmp_path / "all")
    return tmp_path / "all"


def another_teacher(folder):
    path = folder / "teacher" / "model.safetensors"
    weights = load_file(path)
    name = next(n for n in weights if n.endswith("layer.0.output.dense.bias"))
    weights[name][0] += 1e-6
    save_file(weights, path, metadata={"format": "pt"})


def documents_in_another_order(folder):
    lines = (folder / "corpus.jsonl").read_text().splitlines(keepends=True)
    (folder / "corpus.jsonl").write_text("".join([lines[1], lines[0], *lines[2:]]))


def another_word(folder):
    text = (folder / "corpus.jsonl").read_text()
    (folder / "corpus.jsonl").write_text(text.replace("array", "axis"))


CHANGES = [(another_teacher, "The teacher"), (another_word, "The text")]
if hasattr(Blocks, "content_hash"):  # `digest`, its forerunner, is blind to order
    CHANGES.append((documents_in_another_order, "The text"))


@pytest.mark.parametrize("change, word", CHANGES)
def test_other_contents_under_the_same_path_are_noticed(change, word, copied, small_run, program):
    change(copied)
    assert_user_error(
        program([*start(small_run, copied), "--resume"]), word, "not what", "step-00000003"
    )


def test_a_checkpoint_with_more_steps_than_its_run_is_no_finished_run(copied, small_run, program):
    """Altered together with its manifest, which the hashes do not show."""
    folder = copied / "run" / "checkpoints" / "step-00000003"
    state = json.loads((folder / "state.json").read_text()) | {"step": 9}
    (folder / "state.json").write_text(json.dumps(state))
    content = (folder / "state.json").read_bytes()
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["state.json"] = {
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert_user_error(
        program([*start(small_run, copied), "--resume"]), "has 9 steps, and the run 4"
    )
    assert not (copied / "run" / "model").exists()


def test_the_same_contents_under_another_path_are_the_same_and_threads_are_said(
    copied, small_run, program
):
    done = program([*start(small_run, copied, threads=2), "--resume"])
    assert done.code == 0, done.err
    assert "threads (1, now 2)" in done.out and "no longer the same bits" in done.out
    assert "micro-batches" not in done.out


# ------------------------------------------------------------------------------------ broken places
class at_step:
    """Call a function at the beginning of a step."""

    def __init__(self, step, function, *arguments):
        self.step, self.function, self.arguments = step, function, arguments

    def __call__(self):
        from distil_lib.training.loop import PretrainingRun

        original, calls = PretrainingRun._optimizer_step, 0

        def watched(run, *arguments):
            nonlocal calls
            calls += 1
            if calls == self.step:
                self.function(*self.arguments)
            return original(run, *arguments)

        PretrainingRun._optimizer_step = watched


def test_a_folder_that_is_deleted_while_it_is_written_into_is_noticed_at_the_next_save(
    small_run, program, tmp_path
):
    done = program(small_run(tmp_path / "run"), at_step(2, shutil.rmtree, tmp_path / "run"))
    assert_user_error(done, "deleted or moved")
    assert not (tmp_path / "run").exists()


def limit_file_size(size):
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_limit_on_file_sizes_is_one_message_and_the_run_can_be_resumed(
    small_run, program, tmp_path
):
    """As `ulimit -f` sets it. The first checkpoint is there; the second does not fit."""
    done = program(small_run(tmp_path / "run"), at_step(6, limit_file_size, 5000))
    assert_user_error(done, "may not become so large", "--resume")
    done = program([*small_run(tmp_path / "run"), "--resume"])
    assert done.code == 0 and "steps 4 to 12" in done.out


class full_disk:
    """Let a function find the disk full."""

    def __init__(self, where: str):
        self.where = where

    def __call__(self):
        def fails(*_, **__):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "some.file")

        replace(self.where, fails)


@pytest.mark.parametrize(
    "where, begun",
    [
        ("distil_lib.training.setup.load_blocks", False),
        ("distil_lib.training.run_folder.PretrainConfig.save", False),
        ("distil_lib.training.resume.save_checkpoint", True),
    ],
)
def test_a_full_disk_advises_to_resume_what_can_be_resumed(
    where, begun, small_run, program, tmp_path
):
    """Oracle: the settings of a run, without which there is none to resume."""
    done = program(small_run(tmp_path / "run"), full_disk(where))
    assert_user_error(done, "with --resume" if begun else "the same command again")
    assert ("--resume" in done.err) == begun == (tmp_path / "run" / "config.yaml").exists()


class broken_drawing:
    def __call__(self):
        def fails(run):
            raise RuntimeError("no font")

        replace("distil_lib.training.final_model.plot_curves", fails)


def test_a_picture_that_fails_loses_no_model(small_run, program, tmp_path):
    done = program(small_run(tmp_path / "run", max_steps=2), broken_drawing())
    assert done.code == 0 and "curves.png could not be drawn (no font)" in done.err
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


class held_out_is_nan:
    def __call__(self):
        replace("distil_lib.training.loop.to_figures", lambda *_: {"mlm_loss": float("nan")})


def test_held_out_figures_that_are_not_finite_stop_the_run(small_run, program, tmp_path):
    done = program(small_run(tmp_path / "run", eval_every=3), held_out_is_nan())
    assert_user_error(done, "held-out", "step 3")
    assert not (tmp_path / "run" / "model").exists()
    assert "nan" not in (tmp_path / "run" / "metrics.jsonl").read_text().lower()


# ----------------------------------------------------------------------- signals to a process group
class own_group_signalled:
    """A group of its own, as a batch system makes one, that gets a signal in a step."""

    def __init__(self, number, step=2):
        self.number, self.step = number, step

    def __call__(self):
        os.setpgid(0, 0)
        at_step(self.step, os.killpg, 0, self.number)()


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_the_whole_group_saves_and_stops_with_data_loader_workers(
    number, code, small_run, program, tmp_path
):
    arguments = small_run(tmp_path / "run", dataloader_num_workers=2)
    done = program(arguments, own_group_signalled(number))
    assert done.code == code and "Traceback" not in done.err, done.err
    assert f"stopped by {signal.Signals(number).name} and saved at step" in done.out
    assert list((tmp_path / "run" / "checkpoints").iterdir())


STARTS_WORKERS = """
import multiprocessing, os, signal, sys, time
import psutil
from torch.utils.data import DataLoader
from distil_lib.training.processes import start_workers

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, lambda *_: print("asked to stop"))
    loader = DataLoader(range(10), batch_size=None, num_workers=1, prefetch_factor=1)
    batches = start_workers(loader)
    next(batches)
    started = psutil.Process().children(recursive=True)
    os.killpg(0, signal.SIGTERM)
    gone, alive = psutil.wait_procs(started, timeout=0.5)
    print(len(gone), "gone", bool(alive), sum(batches))
"""


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_a_signal_to_the_group_ends_nothing_that_a_data_loader_has_started(method, tmp_path):
    """Oracle: the processes that are alive afterwards; the forkserver is Python 3.14's default."""
    (tmp_path / "starts_workers.py").write_text(STARTS_WORKERS)
    command = [sys.executable, tmp_path / "starts_workers.py", method]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.stdout.splitlines() == ["asked to stop", "0 gone True 45"], done.stderr


def test_a_signal_to_the_groups_of_two_processes_with_workers(small_run, program, tmp_path):
    arguments = small_run(tmp_path / "run", dataloader_num_workers=1)
    for done in together(program, arguments, own_group_signalled(signal.SIGTERM)):
        assert done.code == 143 and "Traceback" not in done.err, done.err


# --------------------------------------------------------------------------- errors are everybody's
class refusal_on_rank:
    """One machine lacks the teacher."""

    def __init__(self, rank):
        self.rank = rank

    def __call__(self):
        from distil_lib.training import setup

        load = setup.load_run_teacher

        def missing(*arguments):
            if os.environ["RANK"] == str(self.rank):
                raise UserError("There is no teacher here.", "Copy it.")
            return load(*arguments)

        setup.load_run_teacher = missing


def test_what_one_process_refuses_all_refuse_and_the_first_says_so(small_run, program, tmp_path):
    """Within a minute, where the other one waited for two days."""
    first, second = together(program, small_run(tmp_path / "run"), refusal_on_rank(1), timeout=60)
    assert_user_error(first, "Process 1 on", "no teacher here")
    assert second.code == 2
    assert not (tmp_path / "run").exists()


class other_settings:
    """The command of the second machine is another one."""

    def __init__(self, **changes):
        self.changes = changes

    def __call__(self):
        from distil_lib import pretrain

        run = pretrain.PretrainingRun
        changes = self.changes if os.environ["RANK"] == "1" else {}
        pretrain.PretrainingRun = lambda config, *rest: run(
            dataclasses.replace(config, **changes), *rest
        )


def test_machines_with_other_settings_are_refused(small_run, program, tmp_path):
    """They would train with two learning rates, and one has a step more than the other."""
    different = other_settings(learning_rate=0.5)
    first, second = together(program, small_run(tmp_path / "run"), different, timeout=60)
    assert_user_error(first, "learning_rate is 0.003 for process 0 and 0.5 for process 1")
    assert second.code == 2 and not (tmp_path / "run").exists()


def test_machines_may_have_threads_and_folders_of_their_own(small_run, program, tmp_path):
    own = other_settings(threads=2, output=str(tmp_path / "other"))
    for done in together(program, small_run(tmp_path / "run", max_steps=2), own):
        assert done.code == 0, done.err
    assert (tmp_path / "run" / "model").is_dir() and not (tmp_path / "other").exists()


# --------------------------------------------------------------------------------------- time limit
def test_a_run_ends_within_its_time_limit_with_its_schedule_and_a_model(
    small_run, program, tmp_path
):
    begin = time.monotonic()
    settings = {"max_steps": 10**6, "time_limit": "8s", "log_every": 1}
    rarely = {"eval_every": 10**6, "save_every": 10**6}
    arguments = small_run(tmp_path / "run", **settings, **rarely)
    done = program(arguments)
    assert done.code == 0, done.err
    assert time.monotonic() - begin < 30  # starting the process is not the run's own time
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
    rates = [row["lr"] for row in read_metrics(tmp_path / "run") if "loss" in row]
    top = max(rates)
    assert top > 0.0025 and rates[-1] < 0.1 * top  # up to its peak of 0.003, and down again
    again = program([*arguments, "--resume"])  # has ended, and stays what it is
    assert again.code == 0 and len(read_metrics(tmp_path / "run")) == len(rates) + 1


def test_the_rate_by_progress_is_that_by_steps():
    """Oracle: the two straight lines, at every step of 100."""
    schedule = LinearByProgress(0.1)
    for step in range(1, 101):
        schedule.progress = step / 100
        expected = step / 10 if step < 10 else (100 - step) / 90
        assert schedule(step) == pytest.approx(expected)


def test_time_is_shared_between_training_and_what_follows(monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    limit = TimeLimit(100.0, started=90.0)
    assert limit.share() == 0.0
    now = 140.0
    assert limit.share() == pytest.approx(40 / 80)  # 90 are left, and 10 of them kept
    limit.measured("save", 9.0), limit.measured("evaluate", 5.0)
    assert limit.share() == pytest.approx(40 / (90 - 28 - 2))
    now = 185.0
    assert limit.share() == 1.0


@pytest.mark.parametrize("text, seconds", [("90s", 90), ("8m", 480), ("1h30m", 5400), ("2h", 7200)])
def test_lengths_of_time(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "8", "m", "-8m", "8.5m", "0s", "8 m", "٨m", "9" * 5000 + "s"])
def test_what_is_no_length_of_time(text):
    with pytest.raises(UserError, match="no length of time"):
        parse_duration(text)
