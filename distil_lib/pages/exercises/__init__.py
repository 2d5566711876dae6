"""Exercises that check the reader's own attempt.

    check("ex-02-1", my_function)      # right, or the hint that this kind of mistake deserves
    check("ex-02-2", 3.2)

`chapter_02.py` holds the exercises of chapter 2, `page_a.py` those of page A: a dictionary
`EXERCISES` from labels to `Exercise`.
"""

import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from distil_lib.errors import UserError


@dataclass(frozen=True)
class Exercise:
    """What is right, and the mistakes that are known.

    Attributes:
        answer: the right value (a number, a text, an array, a list) or a function that has it; with
            `inputs`, the right function itself.
        mistakes: for each known mistake a hint, and the value or function that it gives.
        inputs: the arguments of each call on which the reader's function is compared; None where
            the reader hands in a value.
        tolerance: relative, and absolute near 0.
        hint: where no known mistake is recognized.
    """

    answer: Any
    mistakes: Mapping[str, Any] = field(default_factory=dict)
    inputs: Callable[[], Sequence[tuple[Any, ...]]] | None = None
    tolerance: float = 1e-3
    hint: str = "Not yet. Read the task again, and try a case that you can do by hand."


def drawn(seed: int, *shape: int) -> torch.Tensor:
    """Numbers of a normal distribution, the same each time."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def find_exercise(label: str) -> Exercise:
    """The exercise with this label.

    Raises:
        UserError: if there is none.
    """
    page = re.fullmatch(r"ex-([a-z]|\d\d)-\d+", label)
    module = page and f"{'chapter' if page[1].isdigit() else 'page'}_{page[1]}"
    exercises: Mapping[str, Exercise] = {}
    if module in [found.name for found in pkgutil.iter_modules(__path__)]:
        exercises = importlib.import_module(f"{__name__}.{module}").EXERCISES
    if label not in exercises:
        known = f" This page has {', '.join(exercises)}." if exercises else ""
        raise UserError(f"There is no exercise {label!r}.", f"Copy its label from the page.{known}")
    return exercises[label]


def check(label: str, attempt: Any) -> str:
    """Compare an attempt with what is right.

    Args:
        label: of the exercise, such as "ex-02-1".
        attempt: a number, a text, a tensor, or a function, as the exercise asks.

    Returns:
        "Right.", or a hint.

    Raises:
        UserError: if there is no such exercise.
    """
    return judge(find_exercise(label), attempt)


def judge(exercise: Exercise, attempt: Any) -> str:
    """The same for an exercise that is at hand: "Right.", or a hint."""
    try:
        given = _outcomes(exercise, attempt)
    except Exception as error:  # of the reader's own function: her mistake is shown, not raised
        return f"Not yet. Your function stopped: {type(error).__name__}: {error}"
    if _alike(given, _outcomes(exercise, exercise.answer), exercise.tolerance):
        return "Right."
    for hint, mistake in exercise.mistakes.items():
        if _alike(given, _outcomes(exercise, mistake), exercise.tolerance):
            return f"Not yet. {hint}"
    return exercise.hint


def _outcomes(exercise: Exercise, thing: Any) -> list[Any]:
    """What a value, or a function on each of the inputs, comes to."""
    if exercise.inputs is not None:
        if not callable(thing):
            raise TypeError("hand in a function, without calling it")
        return [thing(*arguments) for arguments in exercise.inputs()]
    return [thing() if callable(thing) else thing]


def _alike(given: Any, right: Any, tolerance: float) -> bool:
    """Whether two outcomes are the same: numbers to the tolerance, texts but for case and space."""
    if isinstance(right, str) or isinstance(given, str):
        return str(given).lower().split() == str(right).lower().split()
    if isinstance(right, set):
        return isinstance(given, set | frozenset | list | tuple) and set(given) == right
    if isinstance(right, list | tuple):
        return (
            hasattr(given, "__len__")
            and len(given) == len(right)
            and all(_alike(a, b, tolerance) for a, b in zip(given, right, strict=True))
        )
    try:
        numbers = [np.asarray(_detached(value), dtype=np.float64) for value in (given, right)]
    except (TypeError, ValueError):
        return bool(given == right)
    return numbers[0].shape == numbers[1].shape and bool(
        np.allclose(numbers[0], numbers[1], rtol=tolerance, atol=tolerance)
    )


def _detached(value: Any) -> Any:
    return value.detach().cpu().numpy() if hasattr(value, "detach") else value
