"""Two processes that are stopped: killed together and resumed to the same bits, or one of them dead
and the other one told.
"""

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import free_port, signal_at, together
from test_resume import STEPS, result

STEP = "distil_lib.training.loop.PretrainingRun._optimizer_step"
MOMENTS = {
    "between two steps": ("distil_lib.training.loop.PretrainingRun._gather_token_counts", 7),
    "with gradients half exchanged": (STEP, 11),
    "while evaluating": ("distil_lib.training.loop.masked_lm_sums", 2),
    "while the stream's position is gathered": (
        "distil_lib.training.resume.stream_state",
        2,
    ),
}
OF_THE_FIRST = {
    "while saving the weights": ("distil_lib.training.checkpoint.save_file", 3),
    "while a checkpoint is flushed to the disk": ("distil_lib.common.files._flush", 9),
    "while the model is written": ("distil_lib.training.final_model.model_card", 1),
}


@pytest.fixture(scope="module")
def whole(small_run, program, tmp_path_factory):
    """Two processes that were never stopped: (how to start them elsewhere, their result)."""
    settings = STEPS | {
        "batch_size": 7,
        "micro_batch_size": 2,
    }  # shares of 4 and 3, in two micro-batches each
    folder = tmp_path_factory.mktemp("whole") / "run"
    for done in together(program, small_run(folder, **settings)):
        assert done.code == 0, done.err
    return lambda output: small_run(output, **settings), result(folder)


def resumed(program, arguments, folder):
    for done in together(program, [*arguments(folder), "--resume"]):
        assert done.code == 0, done.err
    return result(folder)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("moment", [*MOMENTS, *OF_THE_FIRST])
def test_one_is_killed_the_other_one_says_so_and_both_resume_to_the_same_bits(
    moment, rank, whole, program, tmp_path
):
    if rank and moment in OF_THE_FIRST:
        pytest.skip("the first process saves")
    arguments, expected = whole
    kill = signal_at(*(MOMENTS | OF_THE_FIRST)[moment], signal.SIGKILL)
    # Within a minute, or `together` raises TimeoutError.
    ended = together(
        program,
        arguments(tmp_path / "run"),
        *((kill, None) if rank == 0 else (None, kill)),
        timeout=60,
    )
    assert ended[rank].code == -signal.SIGKILL
    other = ended[1 - rank]
    if (
        moment != "while the model is written"
    ):  # all exchanges are over then, and the other process is done
        assert (
            other.code == 1
            and "lost another process" in other.err
            and "--resume" in other.err
            and "Traceback" not in other.err
        )
    assert resumed(program, arguments, tmp_path / "run") == expected


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_both_are_killed_again_and_again_at_random_steps(seed, whole, program, tmp_path):
    arguments, expected = whole
    chance, resume = random.Random(seed), []
    for _ in range(2):
        kill = signal_at(STEP, chance.randint(1, 6), signal.SIGKILL)
        assert {
            done.code for done in together(program, [*arguments(tmp_path / "run"), *resume], kill)
        } == {-signal.SIGKILL}
        resume = ["--resume"]
    assert resumed(program, arguments, tmp_path / "run") == expected


def test_asked_to_stop_both_save_once_and_go_on_identically(whole, program, tmp_path):
    """Only the second one gets the signal; the stop is agreed on."""
    arguments, expected = whole
    for done in together(
        program, arguments(tmp_path / "run"), None, signal_at(STEP, 9, signal.SIGTERM)
    ):
        assert done.code == 143, done.err
    assert (
        max((tmp_path / "run" / "checkpoints").iterdir()).name == "step-00000010"
    )  # steps count from 1: agreed on in the next one
    assert resumed(program, arguments, tmp_path / "run") == expected


def test_another_number_of_processes_goes_on_with_the_same_curve_and_says_what_changes(
    whole, program, tmp_path
):
    arguments, expected = whole
    kill = signal_at(STEP, 9, signal.SIGKILL)
    together(program, arguments(tmp_path / "run"), kill)
    done = program([*arguments(tmp_path / "run"), "--resume"])
    assert done.code == 0, done.err
    assert (
        "processes (2, now 1)" in done.out
        and "no longer the same bits" in done.out
        and "1 process(es) on cpu" in done.out
    )
    assert result(tmp_path / "run")[0] != expected[0]  # dropout is drawn by process


def test_the_launcher_ends_all_when_one_dies(small_run, tmp_path):
    """The real command: a rank is killed from outside; the launcher ends within a minute with an
    exit code that is not 0.
    """
    root = Path(__file__).parents[2]
    script = root / "distil_lib" / "pretrain.py"
    launcher = "-m torch.distributed.run --nproc_per_node 2 --master_port".split()
    command = [sys.executable, *launcher, str(free_port()), str(script)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    with (tmp_path / "log").open("w") as log:
        arguments = small_run(tmp_path / "run", max_steps=100_000, save_every=5)
        launcher = subprocess.Popen([*command, *arguments], stdout=log, stderr=log, env=environment)
        deadline = time.monotonic() + 120
        while (
            not list((tmp_path / "run" / "checkpoints").glob("step-*"))  # the oldest go again
            and time.monotonic() < deadline
        ):
            time.sleep(0.2)
        children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
        victim = next(
            int(pid)
            for pid in children
            if b"LOCAL_RANK=1" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        )
        os.kill(victim, signal.SIGKILL)
        start = time.monotonic()
        assert launcher.wait(60) != 0
    assert time.monotonic() - start < 60
    assert re.search(rf"pid: {victim}\)|Signal 9", (tmp_path / "log").read_text())
