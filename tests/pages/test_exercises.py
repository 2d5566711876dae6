"""Exercises: what is right is called right, and each known mistake gets its own hint.

Oracle: the exercises themselves. The right answer of each is accepted, each of its mistakes is
answered by its own hint and by no other, and the folded solutions of the pages pass.
"""

import importlib
import pkgutil

import numpy as np
import pytest
import torch

from distil_lib.errors import UserError
from distil_lib.pages import exercises
from distil_lib.pages.exercises import Exercise, check, find_exercise

ALL = {
    label: exercise
    for module in pkgutil.iter_modules(exercises.__path__)
    for label, exercise in importlib.import_module(
        f"{exercises.__name__}.{module.name}"
    ).EXERCISES.items()
}


@pytest.mark.parametrize("label", ALL)
def test_the_right_answer_is_right_and_each_mistake_has_its_hint(label):
    exercise = find_exercise(label)
    assert check(label, exercise.answer) == "Right."
    assert len(exercise.mistakes) >= 2
    for hint, mistake in exercise.mistakes.items():
        assert check(label, mistake) == f"Not yet. {hint}"


def made(monkeypatch, **settings) -> str:
    monkeypatch.setattr(exercises, "find_exercise", lambda label: Exercise(**settings))
    return "any"


@pytest.mark.parametrize(
    ("right", "also_right", "wrong"),
    [
        (0.25, torch.tensor(0.25001), 0.26),
        (3, 3.0, 4),
        ("batchmean", " BatchMean ", "mean"),
        ([1.0, 2.0], np.array([1.0, 2.0]), [1.0, 2.0, 3.0]),
        ({1, 2}, [2, 1], [1]),
        (np.ones((2, 3)), torch.ones(2, 3), np.ones((3, 2))),
    ],
)
def test_values(monkeypatch, right, also_right, wrong):
    label = made(monkeypatch, answer=right)
    assert check(label, right) == check(label, also_right) == "Right."
    assert check(label, wrong).startswith("Not yet.")
    assert check(label, float("nan")).startswith("Not yet.")


def test_a_function_is_compared_on_all_inputs(monkeypatch):
    label = made(
        monkeypatch,
        answer=lambda x: x * x,
        inputs=lambda: [(2.0,), (3.0,)],
        mistakes={"You doubled.": lambda x: 2 * x},
    )
    assert check(label, lambda x: x**2) == "Right."
    assert check(label, lambda x: x + x) == "Not yet. You doubled."
    assert check(label, 4.0) == (
        "Not yet. Your function stopped: TypeError: hand in a function, without calling it"
    )
    assert "ZeroDivisionError" in check(label, lambda x: x / 0)


def test_an_unknown_label_is_refused():
    for label in ("ex-99-1", "ex-02", "nonsense", "ex-z-1", "ex-02-99"):
        with pytest.raises(UserError, match="There is no exercise"):
            check(label, 1)
