"""Problem set 3: how its answers are compared, and the mistakes that are known."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from problem import Problem


def _counts(predictions: Any, labels: Any) -> list[float]:
    p, y = np.asarray(predictions).astype(bool), np.asarray(labels).astype(bool)
    return [float(x.sum()) for x in (p & y, ~p & ~y, p & ~y, ~p & y)]


def _f1(predictions: Any, labels: Any) -> float:
    tp, _, fp, fn = _counts(predictions, labels)
    return 2 * tp / (2 * tp + fp + fn)


def _no_root(predictions: Any, labels: Any) -> float:
    tp, tn, fp, fn = _counts(predictions, labels)
    below = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return (tp * tn - fp * fn) / below if below else 0.0


def _bootstrap() -> list[tuple[Any, ...]]:
    chance = np.random.default_rng(1)
    teacher = (chance.random(80) < 0.8).astype(int)
    student = np.where(chance.random(80) < 0.9, teacher, 1 - teacher)
    return [(student, teacher, chance.integers(0, 80, (500, 80)))]


def _percentiles(kept: np.ndarray) -> np.ndarray:
    return np.percentile(kept, [2.5, 97.5])


def _holm_without_order(p_values: Sequence[float]) -> list[float]:
    return [min(1, p * (len(p_values) - i)) for i, p in enumerate(sorted(p_values))]


def _holm_without_maximum(p_values: Sequence[float]) -> list[float]:
    ranks = np.argsort(np.argsort(p_values))
    return [min(1, p * (len(p_values) - r)) for p, r in zip(p_values, ranks, strict=True)]


PROBLEMS = {
    "3.1": Problem(
        ("right_distilbert", "right_bert", "one_answer"),
        {
            "One answer moves RTE by that much. The mean of nine moves by a ninth of it.": [
                166,
                192,
                100 / 277,
            ],
            "Points are percent: multiply by 100.": [166, 192, 1 / 277 / 9],
            "Round to the nearest whole number of answers.": [165, 191, 100 / 277 / 9],
        },
    ),
    "3.2": Problem(
        ("p_four", "seeds"),
        {
            "All four positive would be as unusual: double it.": [1 / 16, 5],
            "Five seeds reach 0.0625 only.": [1 / 8, 5],
        },
    ),
    "3.3": Problem(
        ("a", "b", "three_layers", "limit"),
        {
            "Three layers take a + 3 b, not 3 b.": [152, 43, 668 / 129, 668 / 152],
            "You have the seconds. Asked is how many times as fast.": [152, 43, 281, 152],
        },
    ),
    "3.4": Problem(
        ("matthews",),
        {
            "The denominator is a square root.": _no_root,
            "This is F1.": _f1,
        },
        lambda: [
            (np.array([1, 1, 0, 1, 0, 0, 1, 0]), np.array([1, 0, 0, 1, 1, 0, 1, 0])),
            (np.array([0, 0, 0, 1, 0]), np.array([0, 1, 0, 1, 1])),
            (np.zeros(3, dtype=int), np.array([0, 1, 0])),
        ],
    ),
    "3.5": Problem(
        ("retention",),
        {
            "This is the difference. Kept is a quotient, in percent.": lambda s, t, draws: (
                _percentiles(100 * (s[draws].mean(1) - t[draws].mean(1)))
            ),
            "The teacher's accuracy is taken on the drawn examples, too: draw in pairs.": (
                lambda s, t, draws: _percentiles(100 * s[draws].mean(1) / t.mean())
            ),
            "In percent, please.": lambda s, t, draws: _percentiles(
                s[draws].mean(1) / t[draws].mean(1)
            ),
        },
        _bootstrap,
    ),
    "3.6": Problem(
        ("holm",),
        {
            "This is Bonferroni: only the smallest p-value is multiplied by m.": lambda p: [
                min(1, x * len(p)) for x in p
            ],
            "Return them in the order of the input.": _holm_without_order,
            "No adjusted value may be smaller than the one before it.": _holm_without_maximum,
        },
        lambda: [([0.03, 0.011, 0.02, 0.6],), ([0.04, 0.001, 0.038],)],
    ),
    "3.7": Problem(
        ("found",),
        {
            "You took all five seeds instead of three of them.": [[[1] * 3, [1, 1, 0], [1, 0, 0]]],
            "Rows are measures, columns are arms: yours are exchanged.": lambda right: [
                [list(column) for column in zip(*right[0], strict=True)]
            ],
        },
    ),
    "3.8": Problem(
        ("hours_six", "hours_three", "teacher_share"),
        {
            "At 30% of the peak, not at all of it.": lambda right: [
                *(0.3 * hours for hours in right[:2]),
                right[2],
            ],
            "The share is of the whole step: student and teacher.": lambda right: [
                *right[:2],
                right[2] / (1 - right[2]),
            ],
        },
    ),
}
