"""One step of distillation: the same corrupted batch through teacher and student, to the losses.

    step = DistillationStep(student, teacher, TripleLoss())
    out = step(micro_batch)                 # out.loss, out.ce, out.mlm, out.cos
    out.loss.backward()

Without a teacher it is a step of masked language modelling: how the teacher itself was pretrained.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from distil_lib.errors import UserError
from distil_lib.fused_losses import Projection, fused_vocabulary_losses
from distil_lib.losses import IGNORED, TokenCounts, TripleLoss, TripleLossOutput, cosine_loss
from distil_lib.masking import MicroBatch
from distil_lib.student import StudentOutput

SOFT_TARGETS = ("all", "masked", "sample")


class DistillationStep:
    """Forward passes and losses of one micro-batch.

    student, teacher: models with `Student`'s interface; the teacher may be None if only L_mlm counts. A teacher without `head`, one
    that looks its answers up for example, is asked for logits, and as no other would it computes all of them at once.
    soft_targets: tokens on which the student imitates the teacher's distribution: "all" that are not padding; only those that are
    hidden ("masked"), which spares both models six sevenths of the vocabulary projection; or the batch's random "sample", which
    spares as much and whose mean is an unbiased estimate of that over all.
    fused: compute the losses over the vocabulary a chunk of tokens at a time (`fused.py`); or else by their definition, `loss` itself.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
        loss: TripleLoss,
        soft_targets: str = "all",
        fused: bool = True,
    ):
        if soft_targets not in SOFT_TARGETS:
            raise UserError(
                f"There are no soft targets on {soft_targets!r} tokens.",
                f"Choose one of {', '.join(SOFT_TARGETS)}.",
            )
        if teacher is None and (loss.alpha_ce or loss.alpha_cos):
            raise UserError(
                "Soft targets and hidden states need a teacher.",
                "Set --alpha_ce 0 --alpha_cos 0, or pass a --teacher.",
            )
        self.student, self.teacher, self.loss, self.soft_targets, self.fused = (
            student,
            teacher,
            loss,
            soft_targets,
            fused,
        )
        self.needs_teacher = bool(loss.alpha_ce or loss.alpha_cos)
        if teacher is not None:
            teacher.eval().requires_grad_(False)

    def soft_mask(self, batch: MicroBatch) -> Tensor:
        """The tokens that have soft targets, (B, L) bool."""
        if self.soft_targets == "all":
            return batch.loss_mask
        if self.soft_targets == "masked":
            return batch.labels != IGNORED
        if batch.sampled is None:
            raise ValueError(
                "No tokens were drawn for soft targets: pass `sample` to DynamicMasking."
            )
        return batch.sampled & batch.loss_mask

    def count_tokens(self, batches: Sequence[MicroBatch]) -> TokenCounts:
        """The number of tokens of each loss in these micro-batches: known before any is computed."""
        masks = [
            (self.soft_mask(batch), batch.labels != IGNORED, batch.loss_mask) for batch in batches
        ]
        return TokenCounts(
            *(sum(int(mask.sum()) for mask in each) for each in zip(*masks, strict=True))
        )

    def __call__(self, batch: MicroBatch, counts: TokenCounts | None = None) -> TripleLossOutput:
        """The losses of one micro-batch, as its part of the mean over `counts` tokens (its own by default)."""
        counts = counts or self.count_tokens([batch])
        nowhere = torch.zeros_like(batch.loss_mask)
        soft = self.soft_mask(batch) if self.loss.alpha_ce else nowhere
        hidden = batch.labels != IGNORED if self.loss.alpha_mlm else nowhere
        # The vocabulary is looked at where a loss needs it, and nowhere else.
        return (self._fused if self.fused else self._defined)(batch, soft, soft | hidden, counts)

    def _ask_teacher(self, batch: MicroBatch, positions: Tensor, **options) -> StudentOutput:
        if not self.needs_teacher:
            return StudentOutput(None, None)
        with torch.no_grad():
            return self.teacher(batch.input_ids, batch.attention_mask, positions, **options)

    def _defined(
        self, batch: MicroBatch, soft: Tensor, positions: Tensor, counts: TokenCounts
    ) -> TripleLossOutput:
        teacher = self._ask_teacher(batch, positions)
        student = self.student(batch.input_ids, batch.attention_mask, positions)
        return self.loss(
            student.logits,
            teacher.logits,
            batch.labels[positions],
            student.last_hidden_state,
            teacher.last_hidden_state,
            ce_mask=soft[positions],
            cos_mask=batch.loss_mask,
            counts=counts,
        )

    def _fused(
        self, batch: MicroBatch, soft: Tensor, positions: Tensor, counts: TokenCounts
    ) -> TripleLossOutput:
        loss = self.loss
        teacher = self._ask_teacher(
            batch, soft, **({"project": Projection} if hasattr(self.teacher, "head") else {})
        )
        n_ce, n_mlm, n_cos = max(counts.ce, 1), max(counts.mlm, 1), max(counts.cos, 1)

        def project(states: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return fused_vocabulary_losses(
                states,
                weight,
                bias,
                teacher.logits,
                batch.labels[positions],
                soft[positions],
                loss.temperature,
                loss.alpha_ce / n_ce,
                loss.alpha_mlm / n_mlm,
            )

        student = self.student(batch.input_ids, batch.attention_mask, positions, project=project)
        total, ce, mlm = student.logits
        cos = torch.zeros_like(ce)
        if loss.alpha_cos:
            cos = (
                cosine_loss(
                    student.last_hidden_state, teacher.last_hidden_state, batch.loss_mask, "sum"
                )
                / n_cos
            )
        return TripleLossOutput(total + loss.alpha_cos * cos, ce / n_ce, mlm / n_mlm, cos.detach())
