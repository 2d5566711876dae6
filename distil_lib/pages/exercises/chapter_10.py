"""Exercises of chapter 10: steps, hours, and what a log says about a teacher."""

import math
from typing import Any

from distil_lib.common.paths import data_folder
from distil_lib.pages.exercises import Exercise
from distil_lib.training.metrics_file import read_metrics


def steps_in(hours: float, speed: float, batch: int, block: int) -> int:
    """Whole steps that fit into a time, at a speed in tokens per second."""
    return int(hours * 3600 * speed / (batch * block))


def recorded(name: str) -> list[dict[str, Any]]:
    """The log of a recorded run of `data/results/real_teacher`."""
    return read_metrics(data_folder("results", "real_teacher", f"{name}-metrics.jsonl"))


def overtaken(figure: str = "kl", strict: bool = True) -> int:
    """The first evaluation of the real student that is better than the last one without a teacher.

    Args:
        figure: what is compared, "kl" or "accuracy".
        strict: whether the other run is taken at its end, or else at the same step.
    """
    taught, alone = (
        [row for row in recorded(name) if figure in row] for name in ("student", "without-teacher")
    )
    sign = -1 if figure == "accuracy" else 1
    for row, other in zip(taught, alone, strict=True):
        reference = alone[-1] if strict else other
        if sign * row[figure] < sign * reference[figure]:
            return int(row["step"])
    return 0


EXERCISES = {
    "ex-10-1": Exercise(
        answer=math.ceil(3 * (3_100_000 // 62) / 32),
        tolerance=1e-5,
        mistakes={
            "Each block gives 2 of its 64 places to [CLS] and [SEP].": math.ceil(
                3 * (3_100_000 // 64) / 32
            ),
            "This is one pass. Three are asked for.": math.ceil(3_100_000 // 62 / 32),
            "These are blocks. A step reads 32 of them.": 150_000,
            "A last step that is not full counts too: round up.": 4687,
        },
    ),
    "ex-10-2": Exercise(
        answer=steps_in,
        inputs=lambda: [(1.0, 5_800.0, 64, 64), (0.5, 2_300.0, 32, 128), (8.0, 85_000.0, 64, 512)],
        mistakes={
            "An hour has 3,600 seconds, not 60.": lambda hours, *run: steps_in(hours / 60, *run),
            "The speed counts tokens: a block has several.": lambda hours, speed, batch, block: int(
                hours * 3600 * speed / batch
            ),
            "These are tokens. Divide them by the tokens of a step.": (
                lambda hours, speed, batch, block: int(hours * 3600 * speed)
            ),
        },
    ),
    "ex-10-3": Exercise(
        answer=overtaken,
        tolerance=1e-5,
        mistakes={
            "Compare with the end of the other run, not with the same step of it.": lambda: (
                overtaken(strict=False)
            ),
            "This is about accuracy. KL is asked for.": lambda: overtaken("accuracy"),
        },
        hint="Not yet. Take the lines that have `kl`, and the last of the run without a teacher.",
    ),
}
