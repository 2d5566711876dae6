"""Exercises of chapter 4, layer-skipping initialization."""

from torch import Tensor

from distil_lib.initialization import select_layers
from distil_lib.pages.exercises import Exercise, drawn


def student_positions(positions: Tensor, types: Tensor, skipped: int) -> Tensor:
    """The student's position vectors: type 0 folded in, the first `skipped` rows left out."""
    return (positions + types[0])[skipped:]


EXERCISES = {
    "ex-04-1": Exercise(
        answer=lambda: select_layers(12, 4, "spread"),
        mistakes={
            "You cut the decimals off. Round to the nearest layer: 11/3 is 3.67.": [0, 3, 7, 11],
            "That is `alternate`: it never reaches the last layer. `spread` does.": (
                lambda: select_layers(12, 4, "alternate")
            ),
            "You counted from 1. Layers are counted from 0.": [1, 5, 8, 12],
        },
    ),
    "ex-04-2": Exercise(
        answer=student_positions,
        # A BERT's tables, and a RoBERTa's, which skips two rows.
        inputs=lambda: [(drawn(0, 6, 4), drawn(1, 2, 4), skipped) for skipped in (0, 2)],
        mistakes={
            "The vector of type 0 is missing: the student has no table that adds it later.": (
                lambda positions, types, skipped: positions[skipped:]
            ),
            "Leave out the first rows, not the last: RoBERTa counts its positions from 2 on.": (
                lambda positions, types, skipped: (positions + types[0])[: len(positions) - skipped]
            ),
            "Add type 0 alone: no token of a single text has another type.": (
                lambda positions, types, skipped: (positions + types.sum(0))[skipped:]
            ),
        },
    ),
    # The folded solution of the page measures it, and hands in what it has found.
    "ex-04-3": Exercise(
        answer=1,
        mistakes={
            "Three strategies keep layer 0, but none of the three best cuts does.": 0,
            "Layer 5 is in all of the three worst cuts. Sort from the lowest KL upwards.": 5,
        },
    ),
}
