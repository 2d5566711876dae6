"""Two processes against one: the same curve, really two of them, and nobody left waiting."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import (
    apart,
    assert_user_error,
    double_precision,
    free_port,
    newest_weights,
    together,
    without_times,
)

from distil_lib.text.blocks import load_blocks
from distil_lib.training.metrics_file import read_metrics

# Softmax does not see a constant added to all keys, so the gradient of their bias is rounding
# alone, which Adam enlarges.
KEYS_BIAS = "k_lin.bias"


@pytest.fixture(scope="module")
def uneven(corpus, tokenizer):
    """Settings that divide by nothing: 5 sequences a step in micro-batches of 2, and a last step of
    a single one, of which the second process gets none. The number of masked words differs from
    sequence to sequence anyway.
    """
    blocks = len(load_blocks(str(corpus), tokenizer, 16).train)
    return {
        "batch_size": 5,
        "micro_batch_size": 2,
        "max_steps": 0,
        "epochs": (5 * 20 + 1) / blocks,
        "log_every": 1,
        "eval_every": 10,
    }


@pytest.fixture(scope="module")
def alone(small_run, program, uneven, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "run"
    done = program(small_run(folder, **uneven), double_precision())
    assert done.code == 0, done.err
    return folder


def same_metrics(a, b, tolerance):
    rows = [without_times(read_metrics(folder)) for folder in (a, b)]
    assert len(rows[0]) == len(rows[1]) > 20
    for mine, theirs in zip(*rows, strict=True):
        assert mine == pytest.approx(theirs, rel=tolerance, abs=tolerance)


def test_two_processes_give_the_parameters_of_one(alone, small_run, program, uneven, tmp_path):
    """In float64 to 1e-9: means are over all tokens, gradients are summed over the processes."""
    for done in together(program, small_run(tmp_path / "run", **uneven), double_precision()):
        assert done.code == 0, done.err
    assert read_metrics(alone)[-1]["step"] == 21
    assert apart(newest_weights(tmp_path / "run"), newest_weights(alone)) < 1e-9
    same_metrics(tmp_path / "run", alone, 1e-5)  # written from float32 sums


@pytest.mark.parametrize("soft_targets", ["all", "masked", "sample"])
def test_two_processes_by_the_definition_give_the_parameters_of_one_by_chunks(
    soft_targets, small_run, program, uneven, tmp_path
):
    """The fused losses equal the definition; a sequence's sample is the same in any process."""
    settings = uneven | {"soft_targets": soft_targets, "max_steps": 10}
    done = program(small_run(tmp_path / "one", **settings), double_precision())
    assert done.code == 0, done.err
    for done in together(
        program, small_run(tmp_path / "two", **settings, fused=False), double_precision()
    ):
        assert done.code == 0, done.err
    assert apart(newest_weights(tmp_path / "two"), newest_weights(tmp_path / "one")) < 1e-9


class mean_of_means:
    """The bug put in on purpose: each process divides by its own tokens."""

    def __call__(self):
        double_precision()()
        from distil_lib.training.loop import PretrainingRun

        agree = PretrainingRun._gather_token_counts

        def wrong(run, micro_batches):
            counts, *rest = agree(run, micro_batches)
            mine = run.setup.step.count_tokens(micro_batches)
            return type(counts)(*(2 * getattr(mine, k) for k in ("ce", "mlm", "cos"))), *rest

        PretrainingRun._gather_token_counts = wrong


def test_a_mean_of_means_is_told_apart(alone, small_run, program, uneven, tmp_path):
    for done in together(program, small_run(tmp_path / "run", **uneven), mean_of_means()):
        assert done.code == 0, done.err
    assert apart(newest_weights(tmp_path / "run"), newest_weights(alone)) > 1e-4


def test_torchrun_starts_two_that_say_so_and_agree_with_one_in_float32(
    alone, small_run, uneven, tmp_path
):
    """The real launcher, file and precision."""
    script = Path(__file__).parents[2] / "distil_lib" / "pretrain.py"
    launcher = "-m torch.distributed.run --nproc_per_node 2 --master_port".split()
    command = [sys.executable, *launcher, str(free_port()), str(script)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(script.parents[1])}
    done = subprocess.run(
        [*command, *small_run(tmp_path / "run", **uneven)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "2 process(es) on cpu" in done.stdout and done.stdout.count("model in") == 1
    mine, theirs = newest_weights(tmp_path / "run"), newest_weights(alone)
    assert all(w.dtype == torch.float32 for w in mine.values())
    assert apart({k: w.double() for k, w in mine.items()}, theirs, but_for=KEYS_BIAS) < 1e-4
    same_metrics(tmp_path / "run", alone, 1e-3)


def schedule_went_once_a_step(rates, steps=21, warmup=1):
    """Oracle: two straight lines.

    `steps` and their warm-up are numbers of optimizer steps, not of processes' steps.
    """
    expected = [
        0.003 * min(s / warmup, (steps - s) / (steps - warmup)) for s in range(1, steps + 1)
    ]
    assert rates == pytest.approx(expected)


def test_the_schedule_goes_once_a_step_and_not_once_a_process(small_run, program, uneven, tmp_path):
    for done in together(program, small_run(tmp_path / "run", **uneven)):
        assert done.code == 0, done.err
    rates = [r["lr"] for r in read_metrics(tmp_path / "run") if "loss" in r]
    schedule_went_once_a_step(rates)
    with pytest.raises(
        AssertionError
    ):  # the trap: a prepared schedule goes on by the number of processes
        schedule_went_once_a_step([rates[min(2 * i + 1, 20)] for i in range(21)])


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"batch_size": 1, "micro_batch_size": 1}, ["shared by 2 processes"]),
        ({"corpus": "no-such-file.txt"}, ["no-such-file.txt"]),
    ],
)
def test_bad_input_ends_all_processes_and_one_of_them_says_why(
    changes, words, small_run, program, tmp_path
):
    first, second = together(program, small_run(tmp_path / "run", **changes))
    assert_user_error(first, *words)
    assert second.code == 2 and second.err == ""
    assert not (tmp_path / "run").exists()


def test_a_folder_with_another_run_ends_all_processes(small_run, program, tmp_path):
    """Only the main process looks into the folder; the other one must not wait for it for ever."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    first, second = together(program, small_run(tmp_path / "run"))
    assert_user_error(first, "holds no run")
    assert second.code == 2
