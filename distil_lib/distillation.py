"""One step of distillation: the same corrupted batch through teacher and student, to the losses.

    step = DistillationStep(student, teacher, TripleLoss())
    out = step(micro_batch)                 # out.loss, out.ce, out.mlm, out.cos
    out.loss.backward()

Without a teacher it is a step of masked language modelling: how the teacher itself was pretrained.
"""

from collections.abc import Sequence

import torch
from torch import nn

from distil_lib.batches import MicroBatch
from distil_lib.errors import UserError
from distil_lib.losses import TokenCounts, TripleLoss, TripleLossOutput

SOFT_TARGETS = ("all", "masked")


class DistillationStep:
    """Forward passes and losses of one micro-batch.

    student, teacher: models with `Student`'s interface; the teacher may be None if only L_mlm counts.
    soft_targets: tokens on which the student imitates the teacher's distribution: "all" that are not padding, or only those that
    are hidden ("masked"), which spares both models six sevenths of the vocabulary projection.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module | None, loss: TripleLoss, soft_targets: str = "all"):
        if soft_targets not in SOFT_TARGETS:
            raise UserError(f"There are no soft targets on {soft_targets!r} tokens.", f"Choose one of {', '.join(SOFT_TARGETS)}.")
        if teacher is None and (loss.alpha_ce or loss.alpha_cos):
            raise UserError("Soft targets and hidden states need a teacher.", "Set --alpha_ce 0 --alpha_cos 0, or pass a --teacher.")
        self.student, self.teacher, self.loss, self.soft_targets = student, teacher, loss, soft_targets
        self.needs_teacher = bool(loss.alpha_ce or loss.alpha_cos)
        if teacher is not None:
            teacher.eval().requires_grad_(False)

    def count_tokens(self, batches: Sequence[MicroBatch]) -> TokenCounts:
        """The number of tokens of each loss in these micro-batches: known before any is computed."""
        masked = sum(int((batch.labels != -100).sum()) for batch in batches)
        counted = sum(int(batch.counted.sum()) for batch in batches)
        return TokenCounts(ce=counted if self.soft_targets == "all" else masked, mlm=masked, cos=counted)

    def __call__(self, batch: MicroBatch, counts: TokenCounts | None = None) -> TripleLossOutput:
        """The losses of one micro-batch, as its part of the mean over `counts` tokens (its own by default)."""
        hidden = batch.labels != -100
        # Logits where a loss needs them, and nowhere else.
        positions = batch.counted if self.loss.alpha_ce and self.soft_targets == "all" else hidden
        student = self.student(batch.input_ids, batch.attention_mask, positions)
        teacher = None
        if self.needs_teacher:
            with torch.no_grad():
                teacher = self.teacher(batch.input_ids, batch.attention_mask, positions)
        return self.loss(
            student.logits,
            None if teacher is None else teacher.logits,
            batch.labels[positions],
            student.last_hidden_state,
            None if teacher is None else teacher.last_hidden_state,
            cos_mask=batch.counted,
            counts=counts or self.count_tokens([batch]),
        )
