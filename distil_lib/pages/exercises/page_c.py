"""Exercises of page C, on statistics."""

import itertools

import numpy as np

from distil_lib.ablation.paired_effects import holm, sign_flip_test, t_test
from distil_lib.pages.exercises import Exercise
from distil_lib.pages.grid_results import FOUR, grid_values

P_VALUES = [0.01, 0.04, 0.03, 0.20]


def _beyond(differences: list[float]) -> np.ndarray:
    """How much further than ours, on our side of 0, the sum with each choice of signs is."""
    signs = np.array(list(itertools.product((1, -1), repeat=len(differences))))
    ours = sum(differences)
    return signs @ differences * np.sign(ours) - abs(ours)


def pairing_gain(arm: str) -> float:
    """Correlation over the seeds of an arm's held-out loss with the reference's."""
    loss = grid_values("mlm_loss")
    x, y = ([loss[name][seed] for seed in range(5)] for name in (arm, "triple"))
    return float(np.corrcoef(x, y)[0, 1])


EXERCISES = {
    "ex-c-1": Exercise(
        answer=lambda: holm(P_VALUES),
        mistakes={
            "These are Bonferroni's: four times each. Holm's factors fall: 4, 3, 2, 1.": lambda: [
                min(1, 4 * p) for p in P_VALUES
            ],
            "None may be smaller than the one before, in rising order.": [0.04, 0.08, 0.09, 0.20],
        },
    ),
    "ex-c-2": Exercise(
        answer=sign_flip_test,
        inputs=lambda: [([-0.8, -1.2, -1.0],), ([1.0, 2.0, 3.0, -0.5],), ([0.1, 0.4, -0.2],)],
        mistakes={
            "Count both sides: a sum as far below 0 counts too.": (
                lambda differences: np.mean(_beyond(differences) > -1e-9)
            ),
            "Count those that are as far out as well: yours is one of them.": (
                lambda differences: 2 * np.mean(_beyond(differences) > 1e-9)
            ),
            "That is the t-test, which assumes a normal distribution.": t_test,
        },
    ),
    "ex-c-3": Exercise(
        answer=1 - 0.95**11,
        mistakes={
            "The chances do not add: two measures may be fooled at once.": 0.55,
            "That is the chance that none of them is fooled.": 0.95**11,
        },
    ),
    "ex-c-4": Exercise(
        answer=lambda: max(FOUR, key=pairing_gain),
        mistakes={
            "Without soft targets a student goes its own way: low correlation.": "without-ce",
            "A random start shares less with the reference.": "random-start",
            "Close. One other arm follows the reference almost exactly.": "without-mlm",
        },
    ),
}
