"""The recorded ablation grids, judged by rules that were settled before most of them had run.

    effects = judged("kl")                         # {arm: its effect against the triple loss}
    distinguishable(effects["without-mlm"])        # from 0, after Holm's correction: True
    with_half_width(effects["without-mlm"], 3)     # "-0.025 ± 0.004*"

The paper's four arms have five seeds; each is judged by its own paired differences, and Holm's
correction counts four. The fifteen others have three seeds, are a search, and Holm's correction
counts fifteen. Eleven of them share one estimate of the scatter; four that draw weights or layers
at random, or do not train, keep their own.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from distil_lib.ablation.grid import Grid, read_grid
from distil_lib.ablation.paired_effects import (
    Effect,
    PooledEffect,
    holm,
    paired_differences,
    paired_effects,
    pooled_effects,
    t_interval,
)
from distil_lib.ablation.records import read_records, values_by_seed
from distil_lib.common.paths import PROJECT
from distil_lib.finetune.records import read_record

RESULTS = PROJECT / "data" / "results"
FOUR = ("random-start", "without-ce", "without-cos", "without-mlm")  # the paper's order
OWN_SCATTER = ("no-teacher", "new-head", "layers-random", "not-trained")
JUDGES = ("documentation", "mlm_loss", "accuracy", "kl")
BETTER = {"documentation": 1, "mlm_loss": -1, "accuracy": 1, "kl": -1}  # the better sign
DIGITS = {"documentation": 2, "mlm_loss": 3, "accuracy": 2, "kl": 4}
ARM_NAMES = {
    "triple": "all three losses",
    "without-ce": "no soft targets",
    "without-cos": "no cosine loss",
    "without-mlm": "no true words",
    "random-start": "random start",
    "ce-alone": "soft targets alone",
    "mlm-alone": "true words alone",
    "cos-alone": "cosine loss alone",
    "no-teacher": "no teacher at all",
    "not-trained": "cut, not trained",
    "layers-alternate": "layers 0, 2, 4",
    "layers-first": "layers 0, 1, 2",
    "layers-last": "layers 3, 4, 5",
    "layers-random": "random layers",
    "new-head": "new head",
    "temperature-1": "T = 1",
    "temperature-4": "T = 4",
    "temperature-8": "T = 8",
    "soft-targets-all": "all tokens",
    "equal-weights": "equal weights",
}
AnyEffect = Effect | PooledEffect


@cache
def recorded_grid(name: str = "mini") -> tuple[Grid, list[dict[str, Any]]]:
    """A grid and its records, whichever Python's documentation they were made with.

    A grid whose teacher is not among the files here (`real-student`) has a folder of its own:
    without the teacher's weights nothing says which of a folder's records are the grid's.
    """
    grid, own = read_grid(name), RESULTS / f"ablation-{name}"
    return grid, read_records(own) if own.is_dir() else read_records(RESULTS / "ablation", grid)


@cache
def grid_values(measure: str, name: str = "mini") -> Mapping[str, Mapping[int, float]]:
    """{arm: {seed: value}} of a grid's records; see `values_by_seed`."""
    return values_by_seed(recorded_grid(name)[1], measure)


def searched(name: str = "mini") -> list[str]:
    """The arms beside the reference and the paper's four."""
    grid, _ = recorded_grid(name)
    return [arm for arm in grid.arms if arm not in (grid.reference, *FOUR)]


@cache
def judged(measure: str, name: str = "mini") -> dict[str, AnyEffect]:
    """{arm: its effect on a measure}, by the rules at the top, in the grid's order.

    Args:
        measure: a key of `MEASURES`.
        name: of the grid. `mini-longer` and `real-student` have the paper's four alone.
    """
    grid, _ = recorded_grid(name)
    values = grid_values(measure, name)
    found: dict[str, AnyEffect] = {
        e.arm: e for e in paired_effects(values, grid.reference, arms=FOUR)
    }
    if others := searched(name):
        alike = [arm for arm in others if arm not in OWN_SCATTER]
        # A random start draws its weights: it says nothing about the scatter of the others.
        together = pooled_effects(values, grid.reference, [*FOUR[1:], *alike])
        alone = paired_effects(values, grid.reference, arms=OWN_SCATTER)
        search: list[AnyEffect] = [*alone, *(e for e in together if e.arm in alike)]
        for e, p in zip(search, holm([e.p for e in search]), strict=True):
            found[e.arm] = replace(e, p_holm=p)
    return {arm: found[arm] for arm in grid.arms if arm in found}


def distinguishable(effect: AnyEffect) -> bool:
    """Whether an effect differs from 0 after the correction, at 5%."""
    return effect.p_holm <= 0.05


def verdict(effect: AnyEffect) -> int:
    """The sign of an effect; 0 if it is not distinguishable from 0."""
    return int(np.sign(effect.mean)) if distinguishable(effect) else 0


def with_half_width(effect: AnyEffect, digits: int = 3) -> str:
    """Mean and half of the 95% interval, with a star if it is distinguishable from 0."""
    half = (effect.high - effect.low) / 2
    star = "*" if distinguishable(effect) else ""
    return f"{effect.mean:+.{digits}f} ± {half:.{digits}f}{star}"


def between(measure: str, first: str, second: str) -> tuple[float, ...]:
    """Mean, low and high of first minus second, paired by seed."""
    values = grid_values(measure)
    d = paired_differences(values[first], values[second])
    return (float(d.mean()), *t_interval(d))


def finetuning_steps() -> dict[str, int]:
    """About how many steps each of the grid's fine-tunings took.

    The grid's records have rows and epochs. Steps are those of the default student's recorded
    fine-tuning on the same task, scaled by both; a question has several windows.
    """
    grid, _ = recorded_grid()
    found = {}
    for task, config in grid.tasks.items():
        record = read_record(RESULTS / "student" / f"{task}.json")
        steps = next(iter(record["seeds"].values()))["steps"]
        share = (config.train_rows or record["rows"]["train"]) / record["rows"]["train"]
        an_epoch = steps / record["configuration"]["epochs"] * share
        found[task] = math.ceil(round(an_epoch, 3)) * config.epochs
    return found
