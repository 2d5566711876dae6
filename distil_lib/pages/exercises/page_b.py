"""Exercises of page B: spans, the metric's blind spots, a teacher without doubt."""

import math
import re

from distil_lib.pages.exercises import Exercise
from distil_lib.tasks import squad

WINDOW, LONGEST = 384, 30
ANSWERS = ("-1", "0.5", "[]", "int or None", "shape (n-1,)", "pre-trained", "1.", "the", "3")


def _blind(reference: str) -> bool:
    return bool(re.search(r"-\d|\d\.\d", reference)) or not squad.normalize(reference)


def _pull(temperature: float) -> float:
    """T (1 - s) of the true place, of a student with the logits 4, 0, 0."""
    true = math.exp(4 / temperature)
    return temperature * (1 - true / (true + 2))


EXERCISES = {
    "ex-b-1": Exercise(
        answer=sum(min(LONGEST, WINDOW - first) for first in range(WINDOW)),
        tolerance=1e-6,
        mistakes={
            "Near the end of the window there is no room for 30 tokens.": WINDOW * LONGEST,
            "An answer of that length is possible everywhere only without the limit of 30.": (
                WINDOW * (WINDOW + 1) // 2
            ),
            "The last place begins one span, not none.": sum(
                min(LONGEST, WINDOW - 1 - first) for first in range(WINDOW)
            ),
        },
    ),
    "ex-b-2": Exercise(
        answer=_blind,
        inputs=lambda: [(answer,) for answer in ANSWERS],
        mistakes={
            "You found those of which nothing is left; look at numbers too.": (
                lambda reference: not squad.normalize(reference)
            ),
            "A hyphen between words and a full stop change no number.": (
                lambda answer: "-" in answer or "." in answer or not squad.normalize(answer)
            ),
        },
    ),
    "ex-b-3": Exercise(
        answer=_pull(2) / _pull(1),
        tolerance=0.02,
        mistakes={
            "You left out the factor T of the gradient.": _pull(2) / 2 / _pull(1),
            "That is with T squared: the gradient of T² KL has a factor T only.": (
                2 * _pull(2) / _pull(1)
            ),
            "You divided the other way round.": _pull(1) / _pull(2),
        },
    ),
}
