"""Twelve bugs of the triple loss that run and whose curve falls.

    for bug in BUGS:
        print(bug.name, bug.wrong, bug.symptom)

A bug replaces one part of `LossCode`; `RIGHT` has the library's own functions. `bug_checks` has
the checks that catch them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distil_lib.losses import IGNORED, cosine_loss, mlm_loss, soft_target_loss
from distil_lib.student import StudentOutput


@dataclass(frozen=True)
class Text:
    """Sentences, each (B, L): true ids, ids with blanks, with other blanks, and two masks."""

    words: Tensor
    corrupted: Tensor
    again: Tensor
    masked: Tensor
    counted: Tensor


@dataclass(frozen=True)
class Answers:
    """What both models say about a text, and the words and masks of the text."""

    student_logits: Tensor  # (B, L, V)
    teacher_logits: Tensor
    student_hidden: Tensor  # (B, L, H)
    teacher_hidden: Tensor
    words: Tensor  # (B, L)
    masked: Tensor
    counted: Tensor


# ------------------------------------------------------------------ what is right
def labels_of_masked(words: Tensor, masked: Tensor, counted: Tensor) -> Tensor:
    """The true word at masked tokens, -100 elsewhere."""
    return torch.where(masked, words, IGNORED)


def ask_teacher(teacher: nn.Module, text: Text) -> StudentOutput:
    """In evaluation mode, with the same blanks as the student."""
    with torch.no_grad():
        return teacher.eval()(text.corrupted, text.counted)


def share_of_tokens(tokens: Sequence[int]) -> list[float]:
    """The weight of each micro-batch's mean: its share of all tokens."""
    return [n / sum(tokens) for n in tokens]


@dataclass(frozen=True)
class LossCode:
    """The five pieces of code in which the bugs are."""

    ce: Callable[..., Tensor] = soft_target_loss
    cos: Callable[..., Tensor] = cosine_loss
    labels: Callable[..., Tensor] = labels_of_masked
    ask: Callable[..., StudentOutput] = ask_teacher
    weights: Callable[[Sequence[int]], list[float]] = share_of_tokens

    def answers(self, student: nn.Module, teacher: nn.Module, text: Text) -> Answers:
        """Both models on a text."""
        out, reference = student(text.corrupted, text.counted), self.ask(teacher, text)
        states = (out.last_hidden_state, reference.last_hidden_state)
        masks = (text.words, text.masked, text.counted)
        return Answers(out.logits, reference.logits, *states, *masks)

    def losses(self, parts: Sequence[Answers]) -> tuple[Tensor, Tensor, Tensor]:
        """(L_ce, L_mlm, L_cos) of a batch in micro-batches."""
        total: Any = [0.0, 0.0, 0.0]
        tokens = [int(a.counted.sum()) for a in parts]
        masked = [int(a.masked.sum()) for a in parts]
        shares = zip(parts, self.weights(tokens), self.weights(masked), strict=True)
        for a, all_tokens, of_masked in shares:
            labels = self.labels(a.words, a.masked, a.counted)
            total[0] += all_tokens * self.ce(a.student_logits, a.teacher_logits, a.counted)
            total[1] += of_masked * mlm_loss(a.student_logits, labels)
            total[2] += all_tokens * self.cos(a.student_hidden, a.teacher_hidden, a.counted)
        return tuple(total)

    def loss(self, parts: Sequence[Answers]) -> Tensor:
        """The triple loss, weighted 5, 2 and 1."""
        ce, mlm, cos = self.losses(parts)
        return 5 * ce + 2 * mlm + cos


RIGHT = LossCode()


# -------------------------------------------------------------------- what is wrong
def both_sides(student: Tensor, teacher: Tensor, mask: Tensor, temperature: float = 2.0) -> Tensor:
    """The teacher on both sides."""
    return soft_target_loss(teacher, teacher, mask, temperature) + 0 * student.sum()


def over_places(student: Tensor, teacher: Tensor, mask: Tensor, temperature: float = 2.0) -> Tensor:
    """A softmax over axis 1 of (B, L, V), the places."""
    log_s = F.log_softmax(student / temperature, dim=1)
    log_t = F.log_softmax(teacher / temperature, dim=1)
    per_token = F.kl_div(log_s, log_t, reduction="none", log_target=True).sum(-1)
    return temperature**2 * per_token[mask].mean()


def no_t_squared(
    student: Tensor, teacher: Tensor, mask: Tensor, temperature: float = 2.0
) -> Tensor:
    """T^2 forgotten."""
    return soft_target_loss(student, teacher, mask, temperature) / temperature**2


def reduction_mean(
    student: Tensor, teacher: Tensor, mask: Tensor, temperature: float = 2.0
) -> Tensor:
    """A mean over tokens and vocabulary."""
    log_s = F.log_softmax(student[mask] / temperature, dim=-1)
    log_t = F.log_softmax(teacher[mask] / temperature, dim=-1)
    terms = F.kl_div(log_s, log_t, reduction="none", log_target=True)
    return temperature**2 * terms.mean()  # over tokens *and* vocabulary


def batchmean(student: Tensor, teacher: Tensor, mask: Tensor, temperature: float = 2.0) -> Tensor:
    """A sum divided by the number of sentences."""
    log_s = F.log_softmax(student * mask[..., None] / temperature, dim=-1)
    log_t = F.log_softmax(teacher * mask[..., None] / temperature, dim=-1)
    return temperature**2 * F.kl_div(log_s, log_t, reduction="batchmean", log_target=True)


def with_padding(
    student: Tensor, teacher: Tensor, mask: Tensor, temperature: float = 2.0
) -> Tensor:
    """The mask forgotten."""
    return soft_target_loss(student, teacher, None, temperature)


def reversed_kl(student: Tensor, teacher: Tensor, mask: Tensor, temperature: float = 2.0) -> Tensor:
    """Student and teacher exchanged."""
    return soft_target_loss(teacher, student, mask, temperature)


def in_train_mode(teacher: nn.Module, text: Text) -> StudentOutput:
    """Dropout disturbs the teacher."""
    with torch.no_grad():
        out = teacher.train()(text.corrupted, text.counted)
    teacher.eval()
    return out


def other_blanks(teacher: nn.Module, text: Text) -> StudentOutput:
    """The teacher sees other blanks."""
    with torch.no_grad():
        return teacher.eval()(text.again, text.counted)


def labels_everywhere(words: Tensor, masked: Tensor, counted: Tensor) -> Tensor:
    """No -100 at visible tokens."""
    return torch.where(counted, words, IGNORED)


def mean_of_means(tokens: Sequence[int]) -> list[float]:
    """Each micro-batch weighs the same."""
    return [1 / len(tokens)] * len(tokens)


def cosine_over_places(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """The default axis 1 of (B, L, H), the places."""
    return (1 - F.cosine_similarity(student, teacher, dim=1)).mean()


@dataclass(frozen=True)
class Bug:
    """A name, what is wrong, what a practitioner sees, and the code with the bug in it."""

    name: str
    wrong: str
    symptom: str
    code: LossCode


BUGS = (
    Bug("teacher on both sides", "`soft_target_loss(teacher, teacher)`",
        "L_ce is 0 from the first step; the sum looks healthy", replace(RIGHT, ce=both_sides)),
    Bug("softmax over dim=1", "`log_softmax(logits, dim=1)` of (B, L, V)",
        "a large L_ce, which falls", replace(RIGHT, ce=over_places)),
    Bug("T² forgotten", "the factor `temperature**2` is missing",
        "nothing; L_ce weighs a quarter at T = 2", replace(RIGHT, ce=no_t_squared)),
    Bug("reduction='mean'", "a mean over tokens and vocabulary",
        "a tiny L_ce", replace(RIGHT, ce=reduction_mean)),
    Bug("'batchmean' on (B, L, V)", "the sum is divided by B, not by tokens",
        "a large L_ce, beside which the others count little", replace(RIGHT, ce=batchmean)),
    Bug("padding in the mean", "the mask of L_ce is forgotten",
        "the loss depends on how texts are batched", replace(RIGHT, ce=with_padding)),
    Bug("teacher in train mode", "`teacher.train()`: dropout changes its answers",
        "L_ce stops at a floor", replace(RIGHT, ask=in_train_mode)),
    Bug("different corruption", "the teacher sees other blanks than the student",
        "L_ce stops at a floor", replace(RIGHT, ask=other_blanks)),
    Bug("labels without -100", "`labels = input_ids.clone()`",
        "L_mlm too low, accuracy too good", replace(RIGHT, labels=labels_everywhere)),
    Bug("mean of means", "each micro-batch's mean weighs the same",
        "the gradient depends on how the batch is cut", replace(RIGHT, weights=mean_of_means)),
    Bug("cosine over dim=1", "`F.cosine_similarity(student, teacher)` of (B, L, H)",
        "an L_cos of ordinary size", replace(RIGHT, cos=cosine_over_places)),
    Bug("reversed KL", "`soft_target_loss(teacher, student)`",
        "nothing; the student prefers to be sure", replace(RIGHT, ce=reversed_kl)),
)  # fmt: skip
