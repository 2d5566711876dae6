"""Exercises of page A: how many tokens are masked, and how rows are padded."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from distil_lib.pages.exercises import Exercise


def _epochs_needed(p: float, M: int, first: int = 0) -> float:
    """Mean number of epochs until each of M tokens was chosen."""
    epochs = np.arange(first, 100_000)
    return float((1 - (1 - (1 - p) ** epochs) ** M).sum())


def _padding(lengths: Sequence[int], batch: int, sort: bool = True) -> float:
    rows = sorted(lengths) if sort else list(lengths)
    groups = [rows[n : n + batch] for n in range(0, len(rows), batch)]
    return 1 - sum(rows) / sum(len(group) * max(group) for group in groups)


def _whole_words(pieces: Sequence[str], draws: Sequence[float], p: float) -> list[bool]:
    """A piece is masked with the first piece of its word."""
    masked: list[bool] = []
    for piece, draw in zip(pieces, draws, strict=True):
        masked.append(masked[-1] if piece.startswith("##") and masked else draw < p)
    return masked


def _any_piece(pieces: Sequence[str], draws: Sequence[float], p: float) -> list[bool]:
    """Every piece of a word in which one draw is low."""
    starts = [n for n, piece in enumerate(pieces) if n == 0 or not piece.startswith("##")]
    masked: list[bool] = []
    for start, end in zip(starts, [*starts[1:], len(pieces)], strict=True):
        masked += [min(draws[start:end]) < p] * (end - start)
    return masked


SENTENCES = [
    (["the", "memo", "##ization", "helps"], [0.9, 0.1, 0.8, 0.5], 0.15),
    (["mis", "##class", "##ified", "memo", "##s", "."], [0.5, 0.01, 0.3, 0.1, 0.7, 0.02], 0.2),
]

EXERCISES = {
    "ex-a-1": Exercise(
        answer=0.4,
        mistakes={
            "This is the probability of 12.": 0.6,
            "This is the mean number. How often must it be 13 for that?": 12.4,
            "12.4 is not rounded to the nearest number: U decides.": 0.0,
        },
    ),
    "ex-a-2": Exercise(
        answer=_epochs_needed,
        inputs=lambda: [(0.15, 62), (0.2, 62), (0.5, 2)],
        mistakes={
            "This is the time for a single token. The slowest of M decides.": lambda p, M: 1 / p,
            "Begin the sum with 0 epochs: all are missing then, so its probability is 1.": (
                lambda p, M: _epochs_needed(p, M, first=1)
            ),
            "This is M times the time of one token, but all wait at once.": lambda p, M: M / p,
        },
    ),
    "ex-a-3": Exercise(
        answer=_padding,
        inputs=lambda: [([5, 20, 6, 19], 2), ([30, 3, 4, 4, 9, 28, 5], 3)],
        mistakes={
            "Sort the rows before you cut them into batches.": partial(_padding, sort=False),
            "Each batch is padded to its own longest row, not to the longest of all.": (
                lambda lengths, batch: _padding(lengths, len(lengths))
            ),
            "Divide by all places, padding included.": lambda *rows: 1 / (1 / _padding(*rows) - 1),
        },
    ),
    "ex-a-4": Exercise(
        answer=_whole_words,
        inputs=lambda: SENTENCES,
        mistakes={
            "Each piece was drawn alone: a later piece follows the first of its word.": (
                lambda pieces, draws, p: [draw < p for draw in draws]
            ),
            "Only the draw of the first piece counts, not the lowest of the word.": _any_piece,
        },
    ),
}
