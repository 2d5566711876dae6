"""The exercises of page D."""

import math
from collections.abc import Callable

from distil_lib.pages.exercises import Exercise


def _bf16(x: float, digits: int = 8, whole: Callable[[float], int] = round) -> float:
    """The nearest of the numbers with eight binary digits."""
    fraction, exponent = math.frexp(x)
    return math.ldexp(whole(fraction * 2**digits), exponent - digits)


def _best_batch(latency: dict[int, float], bound: float) -> int:
    return max((n for n in latency if latency[n] <= bound), key=lambda n: n / latency[n])


EXERCISES = {
    "ex-d-1": Exercise(
        answer=[26 / 36, 36 / 26],  # of 12 parts, the last layer keeps key and value
        mistakes={
            "The last layer does not vanish: every token still gives a key and a value.": [
                24 / 36,
                36 / 24,
            ],
            "That is DistilBERT, with six layers.": [62 / 72, 72 / 62],
            "Key *and* value stay: two of the twelve parts.": [25 / 36, 36 / 25],
        },
        hint="A layer has 12 parts, 3 layers have 36. How many of them are left?",
    ),
    "ex-d-2": Exercise(
        answer=_bf16,
        mistakes={
            "You cut the digits off. Round to the nearest number.": lambda x: _bf16(
                x, 8, math.trunc
            ),
            "That is half precision, with eleven binary digits. bfloat16 has eight.": (
                lambda x: _bf16(x, 11)
            ),
        },
        inputs=lambda: [(math.pi,), (-0.1,), (1.006,), (300.9,), (0.02,)],
        tolerance=1e-6,
        hint="Find the power of two below |x|. The unit of the eighth digit is 2^7 times smaller.",
    ),
    "ex-d-3": Exercise(
        answer=_best_batch,
        mistakes={
            "You took the largest batch that is allowed. It need not give most texts a second.": (
                lambda latency, bound: max(n for n in latency if latency[n] <= bound)
            ),
            "You forgot the bound.": lambda latency, bound: _best_batch(latency, math.inf),
        },
        inputs=lambda: [
            ({1: 6.0, 2: 7.0, 4: 13.0, 8: 30.0, 16: 45.0}, 32.0),
            ({1: 2.0, 2: 3.0, 4: 9.0}, 9.0),
        ],
        hint="Texts a second are the batch divided by its latency. Compare the allowed batches.",
    ),
}
