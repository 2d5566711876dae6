"""The exercises of chapter 9."""

import numpy as np
from transformers import BertConfig, DistilBertConfig

from distil_lib.pages.exercises import Exercise
from distil_lib.timing.sentence_pairs import stsb_lengths
from distil_lib.training.costs import forward_cost


def _in_rounds(reference, other, middle=np.median) -> list[float]:
    ratios = np.array(reference) / np.array(other)
    return [float(middle(ratios)), float(ratios.min()), float(ratios.max())]


def _of_medians(reference, other) -> list[float]:
    return [float(np.median(reference) / np.median(other)), *_in_rounds(reference, other)[1:]]


def _yields(bert: bool = True, peak: float = 2.9 * 2 * 8 * 2) -> list[float]:
    """Of one core's peak: with the pairs' own lengths, and padded to 128."""
    config, lengths = BertConfig() if bert else DistilBertConfig(), stsb_lengths()
    mean = float((lengths["pieces_a"] + lengths["pieces_b"] + 3).mean())
    found = []
    for tokens in (mean, 128):
        cost = forward_cost(config, tokens, head_share=0)
        found.append(tokens * (cost.layers + cost.attention) / 1e9 / (668 / 1500) / peak)
    return found


EXERCISES = {
    "ex-09-1": Exercise(
        answer=[2.5, 60],
        mistakes={
            "Only the 160 ms shrink. The other 40 ms stay.": [4, 75],
            "3 layers are kept, not removed: 160 ms become 40.": [1.25, 20],
            "The factor is right. Less time: compare 80 ms with the 200 ms of before.": [2.5, 150],
        },
        hint="Write down the milliseconds before and after: what stays, and what the layers take.",
    ),
    "ex-09-2": Exercise(
        answer=_in_rounds,
        mistakes={
            "You divided one median by the other. Divide within each round first.": _of_medians,
            "You took the mean of the ratios. One bad round moves it; take the median.": (
                lambda reference, other: _in_rounds(reference, other, np.mean)
            ),
            "How many times as fast: the reference's seconds go above the line.": (
                lambda reference, other: _in_rounds(other, reference)
            ),
        },
        inputs=lambda: [
            ([2.0, 3.0, 6.0], [1.0, 3.0, 2.0]),
            ([2.0, 2.0, 8.0, 2.0, 2.0], [1.0, 1.0, 2.0, 1.25, 1.0]),
        ],
        hint="Try two rounds by hand: [2, 6] and [1, 2] have the ratios 2 and 3.",
    ),
    "ex-09-3": Exercise(
        answer=[2.3 / 1.3, 2.0],
        mistakes={
            "In a fixed order each pass follows the other model's: both pay 0.3 s.": [2.0, 2.0],
            "The second of two calls follows a call of its own model: it pays nothing.": [
                2.3 / 1.3,
                2.3 / 1.3,
            ],
            "The student pays the 0.3 s as well as BERT.": [2.3, 2.0],
        },
        hint="Write down eight passes: who came before, and what does that cost?",
    ),
    "ex-09-4": Exercise(
        answer=_yields,
        mistakes={
            "That is DistilBERT's arithmetic. The 668 seconds are BERT-base's.": (
                lambda: _yields(bert=False)
            ),
            "First the pairs' own lengths, then 128 tokens.": lambda: _yields()[::-1],
            "One core does two instructions in each cycle.": lambda: [2 * s for s in _yields()],
        },
        tolerance=0.02,
        hint="Operations of a pair, divided by 668 / 1500 seconds, divided by one core's 92.8e9.",
    ),
}
