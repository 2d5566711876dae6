"""Exercises of chapter 8, on ablations."""

import numpy as np
from scipy import stats

from distil_lib.ablation.paired_effects import paired_differences, t_interval
from distil_lib.pages.exercises import Exercise
from distil_lib.pages.grid_results import distinguishable, grid_values, judged, searched

REFERENCE = {0: 50.0, 1: 52.0, 2: 51.0}
OTHER = {0: 49.4, 1: 51.0, 2: 50.6}


def half_width() -> float:
    """Of the paired 95% interval."""
    low, high = t_interval(paired_differences(OTHER, REFERENCE))
    return (high - low) / 2


def _not_paired() -> float:
    """As if it were not known which seed is which."""
    test = stats.ttest_ind([*OTHER.values()], [*REFERENCE.values()])
    return float(np.ptp(test.confidence_interval()) / 2)


def paired_effect(values: dict[int, float], reference: dict[int, float]) -> tuple[float, ...]:
    """Mean, low and high of the paired differences."""
    d = paired_differences(values, reference)
    return (float(d.mean()), *t_interval(d))


def _normal(values: dict[int, float], reference: dict[int, float]) -> tuple[float, ...]:
    """1.96 in place of Student's t."""
    d = paired_differences(values, reference)
    return (d.mean(), *stats.norm.interval(0.95, d.mean(), stats.sem(d)))


def nearer(sign: int = -1, surely: bool = True) -> set[str]:
    """The searched arms that end nearer to the teacher than the triple loss."""
    found = {arm: judged("kl")[arm] for arm in searched()}
    found = {arm: e for arm, e in found.items() if distinguishable(e) or not surely}
    return {arm for arm, e in found.items() if sign * e.mean > 0}


EXERCISES = {
    "ex-08-1": Exercise(
        answer=half_width,
        mistakes={
            "This ignores which seed is which. Subtract seed by seed first.": _not_paired,
            "Divide the squares by n - 1, which is 2 here.": lambda: half_width() * (2 / 3) ** 0.5,
        },
        tolerance=5e-3,
        hint="Not yet. Take the three differences, their standard deviation, and 4.303 / sqrt(3).",
    ),
    "ex-08-2": Exercise(
        answer=paired_effect,
        inputs=lambda: [
            (grid_values("kl")["without-mlm"], grid_values("kl")["triple"]),
            ({2: 1.0, 0: 3.0, 1: 2.5}, {0: 2.0, 1: 2.2, 2: 1.4, 3: 9.0}),
        ],
        mistakes={
            "You paired by place. Pair the values that have the same seed.": lambda *arms: (
                paired_effect(*(dict(enumerate(arm.values())) for arm in arms))
            ),
            "With so few seeds 1.96 is too small. Take Student's t with n - 1 degrees.": _normal,
        },
    ),
    "ex-08-3": Exercise(
        answer=nearer,
        mistakes={
            "Two of these are not distinguishable from the triple loss.": (
                lambda: nearer(surely=False)
            ),
            "These are further from the teacher: a smaller KL is better.": lambda: nearer(sign=1),
            "The paper's four arms are not asked for.": lambda: nearer() | {"without-mlm"},
        },
    ),
}
