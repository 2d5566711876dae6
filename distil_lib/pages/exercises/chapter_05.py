"""Exercises of chapter 5, the triple loss."""

import math

from distil_lib.losses import soft_target_loss
from distil_lib.pages import bug_checks, bugs
from distil_lib.pages.exercises import Exercise, drawn


def _batches() -> list[tuple]:
    """Logits of student and teacher, a mask with padding, and a temperature."""
    counted = bug_checks.hand_example().counted
    return [(*drawn(seed, 2, 2, 4, 7), counted, 1.0 + seed) for seed in (1, 2)]


def _masked_only() -> float:
    x = bug_checks.hand_example()
    return float(soft_target_loss(x.student_logits, x.teacher_logits, x.masked))


EXERCISES = {
    "ex-05-1": Exercise(
        answer=_masked_only,
        mistakes={
            "That is the mean over all six tokens. Only tokens 3 and 5 are masked.": (
                lambda: bug_checks.by_hand()[0]
            ),
            "The factor T² = 4 is missing.": lambda: _masked_only() / 4,
            "That is the sum. Divide by the two masked tokens.": math.log(2),
        },
    ),
    "ex-05-2": Exercise(
        answer=soft_target_loss,
        inputs=_batches,
        mistakes={
            "The teacher's logits stand on both sides.": bugs.both_sides,
            "The softmax runs over the places. The vocabulary is dim=-1.": bugs.over_places,
            "The factor T² is missing.": bugs.no_t_squared,
            "You divide by the vocabulary as well: sum over it.": bugs.reduction_mean,
            "You divide by the sentences, not by the tokens.": bugs.batchmean,
            "Padding counts in your mean.": bugs.with_padding,
            "That is KL(s ‖ t). Exchange the two arguments.": bugs.reversed_kl,
        },
    ),
    "ex-05-3": Exercise(
        answer=5 / 2**2,
        mistakes={
            "Without T² the loss is smaller, not larger.": 20.0,
            "The factor is T², not T.": 2.5,
        },
    ),
}
