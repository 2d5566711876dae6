"""The exercises of page E."""

import numpy as np
from transformers import BertConfig, DistilBertConfig

from distil_lib.pages.exercises import Exercise
from distil_lib.training.costs import parameters


def _asymmetric(values, steps: int = 255, zero_point: bool = True):
    values = np.asarray(values, dtype=np.float64)
    step = (values.max() - values.min()) / steps
    zero = np.rint(-values.min() / step) if zero_point else 0.0
    return step * (np.clip(np.rint(values / step) + zero, 0, 255) - zero)


def _symmetric(values):
    values = np.asarray(values, dtype=np.float64)
    step = np.abs(values).max() / 127
    return step * np.rint(values / step)


def _words(part_of: str = "distilbert", shrinks: str = "bert") -> list[float]:
    """The words' share of a model, and by what factor BERT-base shrinks to its words."""
    size = {"bert": parameters(BertConfig()), "distilbert": parameters(DistilBertConfig())}
    return [30_522 * 768 / size[part_of], size[shrinks] / (30_522 * 768)]


EXERCISES = {
    "ex-e-1": Exercise(
        answer=[127, -50, 20],
        mistakes={
            "The largest weight becomes 127, the largest signed byte, not 128.": [128, -50, 20],
            "The row has a scale of its own, 0.635 / 127.": [64, -25, 10],
            "A byte keeps the sign of its weight.": [127, 50, 20],
        },
        hint="First the scale, then each weight divided by it, rounded.",
    ),
    "ex-e-2": Exercise(
        answer=_asymmetric,
        mistakes={
            "That is the symmetric scheme. Use the range from min to max, and a zero point.": (
                _symmetric
            ),
            "0 to 255 are 255 steps, not 256.": lambda values: _asymmetric(values, steps=256),
            "Add the zero point before you clip, or all below zero is lost.": (
                lambda values: _asymmetric(values, zero_point=False)
            ),
        },
        inputs=lambda: [(np.linspace(-0.17, 3.0, 8),), (np.array([-2.0, -0.3, 0.1, 0.5]),)],
        tolerance=1e-6,
        hint="Try the array [-1, 0, 1]: its step is 2 / 255 and its zero point 128.",
    ),
    "ex-e-3": Exercise(
        answer=[4.125, 5.0],
        mistakes={
            "Each scale takes 32 bits, shared by the weights of its group.": [4.0, 4.0],
            "That is a scale in 16 bits.": [4.0625, 4.5],
            "A scale takes 32 *bits*: four bytes.": [4 + 4 / 256, 4 + 4 / 32],
        },
        hint="4 bits for the weight itself, and its part of 32 bits.",
    ),
    "ex-e-4": Exercise(
        answer=_words,
        mistakes={
            "The first number is BERT's share; DistilBERT's is asked for.": lambda: _words("bert"),
            "The second number starts from BERT-base, not from DistilBERT.": (
                lambda: _words(shrinks="distilbert")
            ),
        },
        tolerance=0.02,
        hint="The matrix of words has 30,522 x 768 weights. Use `parameters`.",
    ),
    "ex-e-5": Exercise(
        answer=2,
        mistakes={
            "The longest sentence has no padding, so its mask says nothing.": 3,
            "Without a mask the tokens attend to the padding as to words.": 0,
        },
        hint="Compare each sentence in the batch with the same sentence alone.",
    ),
}
