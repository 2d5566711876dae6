"""Exercises of page F: gradients, samples, and what fewer logits save."""

import math

from transformers import BertConfig

from distil_lib.initialization import student_config
from distil_lib.pages.exercises import Exercise
from distil_lib.training.config import load_preset
from distil_lib.training.costs import step_cost


def _scatter_ratio(few: int, many: int, N: int) -> float:
    """How many times as large the standard deviation is with few tokens as with many."""
    return math.sqrt((1 / few - 1 / N) / (1 / many - 1 / N))


def _saving(block_size: int = 128, masked: str = "masked") -> float:
    """How many times cheaper a BERT-base step is with soft targets on masked tokens."""
    bert = BertConfig()
    costs = []
    for soft_targets in ("all", masked):
        paper = load_preset("paper", soft_targets=soft_targets, block_size=block_size)
        costs.append(step_cost(paper, student_config(bert, 6), bert).total)
    return costs[0] / costs[1]


EXERCISES = {
    "ex-f-1": Exercise(
        answer=[0.25, 0.0, -0.25],
        mistakes={
            "The sign: what the student says, minus what it should say.": [-0.25, 0.0, 0.25],
            "This is the gradient for the probabilities, not for the logits.": [-0.5, -1.0, -2.0],
        },
    ),
    "ex-f-2": Exercise(
        answer=_scatter_ratio,
        inputs=lambda: [(3, 13, 64), (2, 8, 16), (1, 5, 1000)],
        mistakes={
            "This is the ratio of the variances: take the root.": (
                lambda few, many, N: _scatter_ratio(few, many, N) ** 2
            ),
            "The sample is drawn without replacement: 1 - n / N is missing.": (
                lambda few, many, N: math.sqrt(many / few)
            ),
            "Turn it round: fewer tokens scatter more.": (
                lambda few, many, N: 1 / _scatter_ratio(few, many, N)
            ),
        },
    ),
    "ex-f-3": Exercise(
        answer=_saving,
        mistakes={
            "These are blocks of 512, the preset's own; set block_size=128.": lambda: _saving(512),
            "Turn it round: all divided by masked.": lambda: 1 / _saving(),
            "These are soft targets on a sample, not on masked tokens.": (
                lambda: _saving(masked="sample")
            ),
        },
    ),
}
