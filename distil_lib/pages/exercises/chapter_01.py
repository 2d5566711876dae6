"""Exercises of chapter 1, "Soft targets"."""

import torch
from scipy.stats import entropy
from torch import Tensor

from distil_lib.pages.exercises import Exercise, drawn

TEACHER = (1 / 2, 1 / 4, 1 / 8, 1 / 8)
STUDENT = (1 / 8, 1 / 2, 1 / 4, 1 / 8)


def gradient(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Of the mean KL divergence over N tokens, in the student's logits; all are (N, V)."""
    return (student_logits.softmax(-1) - teacher_logits.softmax(-1)) / len(student_logits)


def labels_needed(s: Tensor, t: Tensor) -> Tensor:
    """After how many labels the noise of their mean gradient is the soft target's squared one."""
    return (1 - t.square().sum()) / (s - t).square().sum()


EXERCISES = {
    "ex-01-1": Exercise(
        answer=lambda: entropy(TEACHER, STUDENT),
        mistakes={
            "That is KL(s || t). The weights are the teacher's probabilities.": (
                lambda: entropy(STUDENT, TEACHER)
            ),
            "That is in bits. Multiply by ln 2.": lambda: entropy(TEACHER, STUDENT, base=2),
            "That is the cross-entropy. Subtract the teacher's entropy.": (
                lambda: entropy(TEACHER, STUDENT) + entropy(TEACHER)
            ),
        },
    ),
    "ex-01-2": Exercise(
        answer=gradient,
        mistakes={
            "The loss is a mean over N tokens: divide by N.": (
                lambda z, teacher: z.softmax(-1) - teacher.softmax(-1)
            ),
            "That is the push, minus the gradient. Turn the sign round.": (
                lambda *logits: -gradient(*logits)
            ),
            "Your softmax runs over the tokens. The vocabulary is the last axis.": (
                lambda z, teacher: (z.softmax(0) - teacher.softmax(0)) / len(z)
            ),
        },
        inputs=lambda: [tuple(drawn(n, 2, n, 5)) for n in (3, 7)],
        tolerance=1e-4,
    ),
    "ex-01-3": Exercise(
        answer=labels_needed,
        mistakes={
            "That is signal over noise. Turn it round.": lambda s, t: 1 / labels_needed(s, t),
            "The noise is a mean of squares: square the length of the gradient, too.": (
                lambda s, t: (1 - t.square().sum()) / (s - t).norm()
            ),
            "Labels are drawn from the teacher: the noise is 1 minus the sum of its t squared.": (
                lambda s, t: (1 - s.square().sum()) / (s - t).square().sum()
            ),
        },
        inputs=lambda: [(torch.tensor(s), torch.tensor(TEACHER)) for s in ((0.25,) * 4, STUDENT)],
    ),
}
