"""Exercises of chapter 6: means over processes, and what an exchange of gradients costs."""

from collections.abc import Sequence

from transformers import BertConfig

from distil_lib.initialization import student_config
from distil_lib.pages.exercises import Exercise
from distil_lib.text.batches import split_into_micro_batches
from distil_lib.training.config import load_preset
from distil_lib.training.costs import parameters, run_cost

Losses = Sequence[Sequence[float]]


def _hand_on(losses: Losses) -> list[float]:
    """What each process backpropagates, so that the average is the mean over all tokens."""
    tokens = sum(len(each) for each in losses)
    return [len(losses) * sum(each) / tokens for each in losses]


def _terabytes(exchanges_a_step: float = 0.0, sent: float = 2 * 7 / 8) -> float:
    """What each of 8 processes sends in the run of the preset `paper`."""
    bert, paper = BertConfig(), load_preset("paper")
    student = student_config(bert, 6)
    steps = run_cost(paper, student, bert, int(3.3e9 * 1.3)).steps
    micro_batches = split_into_micro_batches(paper.batch_size, paper.micro_batch_size, 0, 8)
    exchanges = steps * (exchanges_a_step or len(micro_batches))
    return exchanges * sent * 4 * parameters(student) / 1e12


EXERCISES = {
    "ex-06-1": Exercise(
        answer=2.5,
        mistakes={
            "This is the mean of the two means. Each token must weigh the same.": 3.0,
            "This is the sum. Divide it by the number of masked tokens.": 20.0,
            "Divide by the number of tokens, 8, not by the number of processes.": 10.0,
        },
    ),
    "ex-06-2": Exercise(
        answer=_hand_on,
        inputs=lambda: [([[3.0], [1.0, 1.0, 1.0]],), ([[1.0, 2.0], [5.0], [0.5, 0.5, 4.0]],)],
        mistakes={
            "These are means of each process. Divide by the tokens of all processes.": (
                lambda losses: [sum(each) / len(each) for each in losses]
            ),
            "Nearly. The average over processes divides once more by their number.": (
                lambda losses: [value / len(losses) for value in _hand_on(losses)]
            ),
            "These are sums. They have to be divided by the tokens of all processes.": (
                lambda losses: [sum(each) for each in losses]
            ),
        },
    ),
    "ex-06-3": Exercise(
        answer=_terabytes,
        tolerance=0.01,
        mistakes={
            "This is one exchange a step, as with no_sync. Count the micro-batches.": lambda: (
                _terabytes(1)
            ),
            "Each process sends 2 (R - 1) / R times the gradient, not once.": lambda: _terabytes(
                sent=1
            ),
            "There are 8 processes: each has an eighth of the step's micro-batches.": lambda: (
                _terabytes(800)
            ),
            "Each of the numbers has 4 bytes.": lambda: _terabytes(sent=2 * 7 / 8 / 4),
        },
    ),
}
