"""Exercises of chapter 0, "Start here"."""

from torch import Tensor

from distil_lib.pages.exercises import Exercise, drawn
from distil_lib.pages.paper_numbers import table

# Parameters, as the page prints them: of the teacher, of three layers, of the token types.
TEACHER, HALF, TYPES = 7_042_304, 3 * 789_760, 2 * 256


def agreement(student_logits: Tensor, teacher_logits: Tensor) -> float:
    """The share of tokens at which both have the same first guess; logits (N, V)."""
    return (student_logits.argmax(-1) == teacher_logits.argmax(-1)).float().mean().item()


def without_wnli(mnli: float = 84.7) -> float:
    """DistilBERT's share of BERT's mean over GLUE without WNLI, with this score of BERT on MNLI."""
    scores = table(1).drop(columns=["Score", "WNLI"])
    scores.loc["BERT-base", "MNLI"] = mnli
    means = scores.mean(axis=1)
    return float(means["DistilBERT"] / means["BERT-base"])


EXERCISES = {
    "ex-00-1": Exercise(
        answer=TEACHER - HALF - TYPES,
        mistakes={
            "Half of the layers is not half of the parameters: embeddings and head stay.": (
                TEACHER // 2
            ),
            "Nearly: the student has no token types, two vectors of width 256.": TEACHER - HALF,
            "Three layers go, and three stay. You took out all six.": TEACHER - 2 * HALF - TYPES,
        },
        tolerance=1e-9,
    ),
    "ex-00-2": Exercise(
        answer=agreement,
        mistakes={
            "You compare the largest logits. Compare the places where they stand (argmax).": (
                lambda student, teacher: (student.amax(-1) == teacher.amax(-1)).float().mean()
            ),
            "You look for the largest over the tokens. The vocabulary is the last axis.": (
                lambda student, teacher: agreement(student.T, teacher.T)
            ),
        },
        # Three times logits (8, 5) of a teacher, and of a student that is a little off.
        inputs=lambda: [(t + off, t) for t, off in drawn(0, 3, 2, 8, 5)],
    ),
    "ex-00-3": Exercise(
        answer=without_wnli,
        mistakes={
            "WNLI is still in your means.": lambda: (
                table(1).loc["DistilBERT", "Score"] / table(1).loc["BERT-base", "Score"]
            ),
            "The nine scores that are printed for BERT do not have the mean 79.5: the page on the "
            "audit says which is a slip. Take 84.7 for it.": lambda: without_wnli(mnli=86.7),
            "Turn it round: DistilBERT's mean divided by BERT's.": lambda: 1 / without_wnli(),
        },
        hint="Not yet. Drop two columns of table(1), Score and WNLI; then take means over tasks.",
    ),
}
