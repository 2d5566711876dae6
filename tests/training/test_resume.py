"""Stopped and resumed runs against one that was never stopped: the same weights to the bit, and the
same metrics.
"""

import os
import random
import signal

import pytest
from helpers import signal_at, without_times

from distil_lib.training.metrics_file import read_metrics

STEPS = {"max_steps": 14, "save_every": 4, "eval_every": 6, "log_every": 3, "dropout": 0.2}

ADAMW = pytest.mark.parametrize(
    "whole", ["adamw"], indirect=True
)  # where the optimizer is of no matter


def result(folder) -> tuple:
    """Weights, optimizer and metrics of a run that has ended."""
    newest = max((folder / "checkpoints").glob("step-*"))
    files = [folder / "model" / "model.safetensors", *sorted(newest.glob("*.safetensors"))]
    return [(f.name, f.read_bytes()) for f in files], without_times(read_metrics(folder))


@pytest.fixture(scope="module", params=["adamw", "muon"])
def whole(request, small_run, program, tmp_path_factory):
    """The run that was never stopped, with dropout, so that random states matter: (how to start it
    elsewhere, its result).
    """
    settings = STEPS | {"optimizer": request.param}
    folder = tmp_path_factory.mktemp("whole") / "run"
    done = program(small_run(folder, **settings))
    assert done.code == 0, done.err
    return lambda output: small_run(output, **settings), result(folder)


@ADAMW
def test_the_same_run_twice_gives_the_same_bits(whole, program, tmp_path):
    """Else the tests below could not tell anything. And another seed gives others."""
    arguments, expected = whole
    assert program(arguments(tmp_path / "again")).code == 0
    assert result(tmp_path / "again") == expected
    assert program([*arguments(tmp_path / "other"), "--seed", "1"]).code == 0
    assert result(tmp_path / "other")[0] != expected[0]


MOMENTS = {
    "before the first checkpoint": ("distil_lib.training.loop.PretrainingRun._optimizer_step", 2),
    "between two steps": ("distil_lib.training.loop.PretrainingRun._optimizer_step", 11),
    "while evaluating": ("distil_lib.training.loop.masked_lm_sums", 2),
    "while writing a line": ("distil_lib.training.metrics_file.MetricsFile.write", 4),
    "while saving the weights": ("distil_lib.training.checkpoint.save_file", 3),
    "while saving the optimizer": ("distil_lib.training.checkpoint.save_file", 4),
    "while a checkpoint is flushed to the disk": ("distil_lib.common.files._flush", 9),
    "while old checkpoints are deleted": ("distil_lib.training.checkpoint.list_checkpoints", 3),
    "while the last figures are drawn": ("distil_lib.training.final_model.plot_curves", 1),
    "while the model is written": ("distil_lib.training.final_model.model_card", 1),
}


@pytest.mark.parametrize("moment", MOMENTS)
@ADAMW
def test_killed_and_resumed(moment, whole, program, tmp_path):
    arguments, expected = whole
    where, call = MOMENTS[moment]
    killed = program(arguments(tmp_path / "run"), signal_at(where, call, signal.SIGKILL))
    assert killed.code == -signal.SIGKILL, (killed.code, killed.err)
    drawn = moment == "while the last figures are drawn"  # the model is written before
    assert (tmp_path / "run" / "model").exists() == drawn
    resumed = program([*arguments(tmp_path / "run"), "--resume"])
    assert resumed.code == 0, resumed.err
    assert result(tmp_path / "run") == expected


@pytest.mark.parametrize("seed", [0, 1])
def test_killed_again_and_again_at_random_steps(seed, whole, program, tmp_path):
    """Three kills, each 1 to 6 steps after a start."""
    arguments, expected = whole
    chance, resume = random.Random(seed), []
    for _ in range(3):
        kill = signal_at(
            "distil_lib.training.loop.PretrainingRun._optimizer_step",
            chance.randint(1, 6),
            signal.SIGKILL,
        )
        assert program([*arguments(tmp_path / "run"), *resume], kill).code == -signal.SIGKILL
        resume = ["--resume"]
    assert program([*arguments(tmp_path / "run"), "--resume"]).code == 0
    assert result(tmp_path / "run") == expected


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_asked_to_stop_it_saves_at_once_and_goes_on_identically(
    number, code, whole, program, tmp_path
):
    """Asked in the 10th step, which is none of those at which it would have saved or logged."""
    arguments, expected = whole
    stopped = program(
        arguments(tmp_path / "run"),
        signal_at("distil_lib.training.loop.PretrainingRun._optimizer_step", 9, number),
    )
    assert stopped.code == code, stopped.err
    assert (
        number.name in stopped.out and "--resume" in stopped.out and "Traceback" not in stopped.err
    )
    assert (
        max((tmp_path / "run" / "checkpoints").iterdir()).name == "step-00000010"
        and "step 10" in stopped.out
    )
    assert program([*arguments(tmp_path / "run"), "--resume"]).code == 0
    assert result(tmp_path / "run") == expected


@ADAMW
def test_a_damaged_checkpoint_is_named_and_the_one_before_serves(whole, program, tmp_path):
    arguments, expected = whole
    kill = signal_at("distil_lib.training.loop.PretrainingRun._optimizer_step", 10, signal.SIGKILL)
    assert program(arguments(tmp_path / "run"), kill).code == -signal.SIGKILL
    damaged = tmp_path / "run" / "checkpoints" / "step-00000008"
    os.truncate(damaged / "model.safetensors", 100)
    resumed = program([*arguments(tmp_path / "run"), "--resume"])
    assert resumed.code == 0 and str(damaged) in resumed.err
    assert "steps 4 to 14" in resumed.out
    assert result(tmp_path / "run") == expected


@ADAMW
def test_a_finished_run_can_be_resumed_and_stays_what_it_is(whole, program, tmp_path):
    arguments, expected = whole
    for resume in ([], ["--resume"]):
        done = program([*arguments(tmp_path / "run"), *resume])
        assert done.code == 0, done.err
        assert result(tmp_path / "run") == expected


@ADAMW
def test_what_may_change_on_resume_does_not_change_the_weights(whole, program, tmp_path):
    arguments, expected = whole
    kill = signal_at("distil_lib.training.loop.PretrainingRun._optimizer_step", 10, signal.SIGKILL)
    assert program(arguments(tmp_path / "run"), kill).code == -signal.SIGKILL
    others = "--save_total_limit 5 --save_every 3 --log_every 5 --dataloader_num_workers 1".split()
    resumed = program([*arguments(tmp_path / "run"), "--resume", *others])
    assert resumed.code == 0, resumed.err
    assert result(tmp_path / "run")[0] == expected[0]
