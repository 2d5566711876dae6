"""Exercises of chapter 4, layer-skipping initialization."""

from typing import Any

import torch
from torch import Tensor

from distil_lib.initialization import select_layers
from distil_lib.pages.exercises import Exercise


def student_positions(positions: Tensor, types: Tensor, skipped: int) -> Tensor:
    """The student's position vectors: type 0 folded in, the first `skipped` rows left out."""
    return (positions + types[0])[skipped:]


def _teachers() -> list[tuple[Any, ...]]:
    """A BERT's tables, and a RoBERTa's, which skips two rows."""
    generator = torch.Generator().manual_seed(0)
    positions, types = (torch.randn(n, 4, generator=generator) for n in (6, 2))
    return [(positions, types, 0), (positions, types, 2)]


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
        inputs=_teachers,
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
