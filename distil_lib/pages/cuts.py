"""Every cut of the default teacher, untrained: how far each is from the whole teacher.

    all_cuts()[0, 2, 5]            # held-out KL divergence of layers 0, 2 and 5, in nats
    training_curves()["first", 0]  # and of a strategy's student, every 25 of 300 steps

Six layers can be cut in 63 ways that leave at least one. Their figures are recorded; to record them
again, in a minute, and the trainings that the record lacks, each in four minutes of an idle core:

    DISTIL_RECORD=1 python -c "from distil_lib.pages import cuts; cuts.all_cuts()"
    DISTIL_RECORD=missing python -c "from distil_lib.pages import cuts; cuts.training_curves()"
"""

import itertools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

from distil_lib.ablation.grid import Job, read_grid
from distil_lib.common.paths import data_folder
from distil_lib.evaluation import evaluate_masked_lm, held_out_batches
from distil_lib.initialization import initialize_student
from distil_lib.pages.short_runs import CachedTeacher, recorded_runs
from distil_lib.teacher import load_teacher
from distil_lib.text.blocks import load_blocks
from distil_lib.text.tokenizer import load_tokenizer
from distil_lib.training.loop import PretrainingRun
from distil_lib.training.metrics_file import read_metrics

LAYERS = 6
CUTS = [cut for kept in range(1, LAYERS + 1) for cut in itertools.combinations(range(LAYERS), kept)]

# The arms of the grid "mini" that differ only in the layers that are copied; `random` draws others
# with each seed.
ARMS = {"spread": "triple", "alternate": "layers-alternate", "first": "layers-first"}
ARMS |= {"last": "layers-last", "random": "layers-random"}
CURVES = [*((strategy, 0) for strategy in ARMS), ("random", 1), ("random", 2)]
EVERY, STEPS = 25, 300


def all_cuts(live: Sequence[tuple[int, ...]] = ()) -> dict[tuple[int, ...], float]:
    """The recorded KL divergence to the whole teacher, in nats, of each cut.

    It is measured as in chapter 4, on the same held-out text.

    Args:
        live: cuts that are measured again here, and compared with the record.

    Raises:
        UserError: if one of these is not what was recorded.
    """
    return recorded_runs("cuts", lambda *layers: _measure()(layers), CUTS, live)


@cache
def _measure() -> Callable[[tuple[int, ...]], float]:
    """What measures a cut: text and teacher are loaded once, when they are needed."""
    tokenizer = load_tokenizer(data_folder("tokenizer"))
    teacher = load_teacher(data_folder("teacher"))
    blocks = load_blocks("docs:pandas,scikit-learn", tokenizer, 64)
    held_out = list(held_out_batches(blocks.held_out, tokenizer, size=96, batch_size=32))
    observer = CachedTeacher(teacher)

    def measure(layers: tuple[int, ...]) -> float:
        return evaluate_masked_lm(initialize_student(teacher, layers), held_out, observer)["kl"]

    return measure


def training_curves(live: Sequence[tuple[str, int]] = ()) -> dict[tuple[str, int], list[float]]:
    """How students of the strategies come nearer: {(strategy, seed): held-out KL in nats}.

    Each is the run of its arm in the grid "mini", evaluated before the first step and after every
    `EVERY` steps; the last value is the one that the grid has recorded.

    Args:
        live: runs that are trained again here, and compared with the record.

    Raises:
        UserError: if one of these is not what was recorded.
    """
    return recorded_runs("cut-curves", _train, CURVES, live)


def grid_job(strategy: str, seed: int) -> Job:
    """The job of the grid "mini" that trains a strategy's student."""
    return next(job for job in read_grid("mini").jobs([ARMS[strategy]]) if job.seed == seed)


def _train(strategy: str, seed: int) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        config = grid_job(strategy, seed).pretraining
        run = PretrainingRun(replace(config, output=folder, eval_every=EVERY, threads=1))
        start = run.evaluate()["kl"]
        run.train()
        return [start, *(row["kl"] for row in read_metrics(folder) if "kl" in row)]
