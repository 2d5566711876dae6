"""Exercises of chapter 7: metrics, the paired bootstrap, how many examples a point takes."""

import math
from typing import Any

import numpy as np

from distil_lib.pages.exercises import Exercise
from distil_lib.pages.luck import right_answers

POINTS = 100
ROOT = math.sqrt((6 + 2) * (6 + 1) * (1 + 2) * (1 + 1))


def _difference(student: Any, teacher: Any, labels: Any, drawn: Any) -> float:
    ahead = (student == labels).astype(float) - (teacher == labels)
    return float(POINTS * (ahead * drawn).sum() / drawn.sum())


def _draws() -> list[tuple[np.ndarray, ...]]:
    rows = ([1, 0, 1, 1, 0, 1], [1, 1, 0, 0, 0, 1], [1, 0, 1, 0, 0, 0], [2, 0, 1, 0, 3, 0])
    other = ([0, 1, 1], [1, 1, 0], [0, 1, 0], [0, 3, 1])
    return [tuple(map(np.array, rows)), tuple(map(np.array, other))]


def _needed(paired: bool = True) -> float:
    """As many examples as doc-package would need, by teacher and student of seed 0."""
    right = np.stack([right_answers(who, "doc-package")[0] for who in ("teacher", "student")])
    p = right.mean(1)
    variance = (right[0] != right[1]).mean() if paired else (p * (1 - p)).sum()
    return float(1.96**2 * variance / 0.01**2)


EXERCISES = {
    "ex-07-1": Exercise(
        answer=POINTS * 4 / ROOT,
        mistakes={
            "That is the accuracy: seven of ten answers are right.": 70,
            "That is F1, which does not count true negatives.": POINTS * 12 / 15,
            "You left out the root below the fraction.": POINTS * 4 / ROOT**2,
            "Right as a correlation; give it in points out of 100.": 4 / ROOT,
        },
    ),
    "ex-07-2": Exercise(
        answer=_difference,
        inputs=_draws,
        mistakes={
            "Each example counts once in your function: weigh it by `drawn`.": (
                lambda student, teacher, y, drawn: _difference(student, teacher, y, np.ones(len(y)))
            ),
            "You have the teacher minus the student.": lambda *arrays: -_difference(*arrays),
            "Right as a share; give it in points out of 100.": (
                lambda *arrays: _difference(*arrays) / POINTS
            ),
        },
    ),
    "ex-07-3": Exercise(
        answer=_needed,
        tolerance=0.01,
        mistakes={
            "That is for two independent samples. In pairs, only examples on which one model is "
            "right and the other wrong count.": lambda: _needed(paired=False),
            "That is one standard error of a point. An interval of 95% has 1.96 to either side.": (
                lambda: _needed() / 1.96**2
            ),
            "You forgot to square one point: the standard error is a root.": (
                lambda: _needed() / 1.96 * 0.01
            ),
        },
    ),
}
