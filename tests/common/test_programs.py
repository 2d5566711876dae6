"""How programs end when they are launched: one message, and the exit code that the shell gets.

Oracles: what `kill`, Ctrl-C and a refusal mean to a shell (143, 130, 2), and the process table.
"""

import gc
import io
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import accelerate.utils.launch
import psutil
import pytest
import torch
from helpers import free_port

from distil_lib import launch
from distil_lib.common.processes import run_program

ROOT = Path(__file__).parents[2]
CPU = ROOT / "distil_lib" / "training" / "accelerate_configs" / "cpu.yaml"
OURS = [sys.executable, "-m", "distil_lib.launch"]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch"]
PROGRAM = """
import os, sys, time
from pathlib import Path
from distil_lib.common.processes import end_with_launcher, run_program, shared_refusal
from distil_lib.errors import UserError

def wait():
    Path(sys.argv[2], os.environ.get("RANK", "0")).write_text(str(os.getpid()))
    time.sleep(100)

def program():
    with shared_refusal():
        if sys.argv[1] == "refuse" + os.environ.get("RANK", "0"):
            raise UserError("This machine lacks a file.", "Copy it there.", setting="teacher")
    if sys.argv[1] == "wait":
        wait()
    if sys.argv[1] == "many":
        for _ in range(100_000):
            print("line", flush=True)
    return "done"

end_with_launcher()
run_program(program)
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("script") / "program.py"
    path.write_text(PROGRAM, encoding="utf-8")
    return str(path)


def start(command, **options) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment["PYTHONUNBUFFERED"] = "1"  # each write of a program is one: lines must stay whole
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # Shells start background jobs with Ctrl-C ignored, and whoever runs these tests may be one.
    reset = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    return subprocess.Popen(command, env=environment, **pipes, **reset, **options)


def several(launcher) -> list[str]:
    return [*launcher, "--config_file", str(CPU), "--main_process_port", str(free_port())]


def one(launcher) -> list[str]:
    return [*launcher, "--cpu", "--num_processes", "1"]


def waiting(process, folder, ranks) -> list[int]:
    """Wait until the programs are at work; their process ids."""
    files, end = [folder / str(rank) for rank in range(ranks)], time.monotonic() + 100
    while not all(file.is_file() and file.read_text() for file in files):
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.1)
    return [int(file.read_text()) for file in files]


@pytest.mark.parametrize(
    "options, refusing, who",
    [(one, 0, ""), (several, 1, f"Process 1 on {socket.gethostname()}: ")],
)
def test_a_refusal_is_one_message_and_code_2_and_names_who_refuses(options, refusing, who, script):
    process = start([*options(OURS), script, f"refuse{refusing}"])
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out) == (2, ""), err
    assert err.splitlines() == [
        f"error: {who}This machine lacks a file.",
        "  what to do: Copy it there. (--teacher)",
    ]


def test_programs_that_are_done_give_0(script):
    process = start([*several(OURS), script, "nothing"])
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert set(out.split()) == {"done"} and "error" not in err


def test_a_result_is_one_write(monkeypatch):
    """Where Python does not buffer, a second write for the line's end lets another rank between."""
    writes = []

    class Output(io.StringIO):
        def write(self, text: str) -> int:
            writes.append(text)
            return len(text)

    monkeypatch.setattr(sys, "stdout", Output())
    run_program(lambda: "done")
    assert [text for text in writes if text] == ["done\n"]


@pytest.mark.parametrize(
    "options, ranks, number, code",
    [(one, 1, signal.SIGINT, 130), (several, 2, signal.SIGTERM, 143)],
)
def test_a_launcher_that_is_stopped_stops_its_programs(
    options, ranks, number, code, script, tmp_path
):
    process = start([*options(OURS), script, "wait", str(tmp_path)])
    pids = waiting(process, tmp_path, ranks)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert err == "stopped.\n"
    assert not any(map(psutil.pid_exists, pids))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no parents that can be asked for")
@pytest.mark.parametrize("options, ranks", [(one, 1), (several, 2)])
def test_a_killed_launcher_leaves_no_orphan(options, ranks, script, tmp_path):
    process = start([*options(ACCELERATE), script, "wait", str(tmp_path)])
    pids = waiting(process, tmp_path, ranks)
    process.kill()
    process.communicate(timeout=60)
    end = time.monotonic() + 30
    while any(map(psutil.pid_exists, pids)) and time.monotonic() < end:
        time.sleep(0.2)
    assert not any(map(psutil.pid_exists, pids))


@pytest.mark.parametrize(
    "options, words",
    [
        ([*several([]), str(ROOT / "distil_lib" / "pretrain.py"), "--preset", "minni"], "minni"),
        (["--config_file", "/no/such.yaml", "x.py", "y"], "/no/such.yaml"),
        (["--no_such_option", "x.py", "y"], "no_such_option"),
        (["--num_processes", "x", "x.py", "y"], "invalid int value"),
        ([], "training_script"),
        (["--cpu", "--num_processes", "2", "x.py"], "a single process"),
        (["--cpu", "--num_machines", "2", "x.py"], "a single process"),
        (["--config_file", str(CPU), "--cpu", "x.py"], "a single process"),
    ],
)
def test_what_is_wrong_is_refused_before_any_process_starts(options, words, monkeypatch, capsys):
    monkeypatch.setattr(subprocess, "Popen", None)
    monkeypatch.setattr(os, "execvpe", None)
    try:
        with pytest.raises(SystemExit) as stop:
            launch.main(options)
    finally:
        logging.disable(logging.NOTSET)
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and out == ""
    assert err.startswith("error: ") and words in err and len(err.splitlines()) == 2


def test_a_precision_that_the_machine_lacks_is_one_message(monkeypatch, capsys):
    """As Accelerate says it where the packages for fp8 are missing."""

    def lacks(_):
        raise RuntimeError("FP8 is not available on this machine.")

    monkeypatch.setattr("accelerate.utils.launch.prepare_simple_launcher_cmd_env", lacks)
    try:
        with pytest.raises(SystemExit) as stop:
            launch.main(["--mixed_precision", "fp8", "x.py"])
    finally:
        logging.disable(logging.NOTSET)
    assert stop.value.code == 2 and "FP8 is not available" in capsys.readouterr().err


def test_a_single_pretraining_takes_no_second_process(monkeypatch):
    """Oracle: the environment that Accelerate would give to a new process, and its exit code."""
    told, expected, threads = {}, {}, torch.get_num_threads()
    prepare = accelerate.utils.launch.prepare_simple_launcher_cmd_env

    def prepared(options):
        command, environment = prepare(options)
        expected.update(environment)
        return command, environment

    def pretrain(arguments):
        told.update(os.environ, arguments=arguments, quiet=logging.root.manager.disable)
        sys.exit(143)

    monkeypatch.setattr(accelerate.utils.launch, "prepare_simple_launcher_cmd_env", prepared)
    monkeypatch.setattr("distil_lib.pretrain.main", pretrain)
    monkeypatch.setattr(subprocess, "Popen", None)
    monkeypatch.setattr(os, "execvpe", None)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    try:
        with pytest.raises(SystemExit) as stop:
            launch.main([*one([]), str(launch.PRETRAIN), "--preset", "demo"])
    finally:
        gc.unfreeze()
        torch.set_num_threads(threads)
    assert stop.value.code == 143
    assert told.pop("arguments") == ["--preset", "demo"] and told.pop("quiet") == logging.NOTSET
    assert expected and told == expected and gc.isenabled()


def test_a_reader_that_leaves_ends_the_program_silently(script):
    """As `| head -1` does: the shell's own code for it is 141."""
    process = start([sys.executable, script, "many"])
    assert process.stdout.readline() == "line\n"
    process.stdout.close()
    assert process.wait(60) == 141 and process.stderr.read() == ""
    process.stderr.close()
