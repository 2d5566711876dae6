"""Exercises of page G: a step of an LSTM, its parameters, and texts at once."""

import math

from scipy.special import expit  # the sigmoid

from distil_lib.pages.exercises import Exercise

# After the first word.
CELL = expit(1) * math.tanh(1)
STATE = expit(1) * math.tanh(CELL)


def _second_state(cell: float, state: float) -> float:
    gate = expit(state)
    return gate * math.tanh(gate * cell + gate * math.tanh(state))


def _parameters(inputs: int, cells: int, projection: int) -> int:
    return 4 * cells * (inputs + projection + 2) + projection * cells


EXERCISES = {
    "ex-g-1": Exercise(
        answer=_second_state(CELL, STATE),
        tolerance=4e-3,
        mistakes={
            "You started from c = 0: the cell is carried along.": _second_state(0.0, STATE),
            "You started from h = 0: the state goes into all gates.": _second_state(CELL, 0.0),
            "That is the state after the first word.": STATE,
        },
    ),
    "ex-g-2": Exercise(
        answer=_parameters,
        inputs=lambda: [(512, 4096, 512), (16, 8, 4)],
        tolerance=1e-9,
        mistakes={
            "PyTorch's LSTM has two biases for each of its four blocks.": (
                lambda inputs, cells, size: _parameters(inputs, cells, size) - 4 * cells
            ),
            "The projection is a matrix too.": (
                lambda inputs, cells, size: _parameters(inputs, cells, size) - size * cells
            ),
            "With a projection the state that goes round has the projection's size.": (
                lambda inputs, cells, size: 4 * cells * (inputs + cells + 2) + size * cells
            ),
        },
    ),
    "ex-g-3": Exercise(
        answer=15,
        tolerance=1e-6,
        mistakes={
            "Round up: with 14 it is still a little below BERT's.": 14,
            "That is the ratio of bytes. Compare operations per byte.": 29,
            "You compared the operations alone.": 2,
        },
    ),
}
