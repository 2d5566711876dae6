"""One step of distillation: the same corrupted batch through teacher and student, to the losses.

    step = DistillationStep(student, teacher, TripleLoss())
    out = step(micro_batch)                 # out.loss, out.ce, out.mlm, out.cos
    out.loss.backward()

Without a teacher it is a step of masked language modelling: how the teacher itself was pretrained.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distil_lib.errors import UserError
from distil_lib.fused_losses import Projection, fused_vocabulary_losses, sort_tokens
from distil_lib.losses import IGNORED, TokenCounts, TripleLoss, TripleLossOutput, cosine_loss
from distil_lib.masking import MicroBatch
from distil_lib.student import states_at

SOFT_TARGETS = ("all", "masked", "sample")


class DistillationStep:
    """Forward passes and losses of one micro-batch (Sanh et al. 2019, sections 2 and 3).

    Args:
        student: A model with `Student`'s interface.
        teacher: The same; None if only L_mlm counts. One without `head` (that looks its answers
            up, say) is called with ids, mask and positions, and gives all logits at once.
        loss: The weights and the temperature; it makes the sums over tokens into the loss.
        soft_targets: The tokens on which the student imitates the teacher's distribution: "all"
            that are not padding; the "masked" ones, which spares both models six sevenths of the
            projection; or a random "sample", which spares as much and estimates all without bias.
        fused: Whether the vocabulary's losses are those of `fused_losses`; or a function like it.

    Raises:
        UserError: If soft_targets is unknown, or a teacher is needed and missing.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
        loss: TripleLoss,
        soft_targets: str = "all",
        fused: bool | Callable = True,
    ):
        if soft_targets not in SOFT_TARGETS:
            problem = f"There are no soft targets on {soft_targets!r} tokens."
            remedy = f"Choose one of {', '.join(SOFT_TARGETS)}."
            raise UserError(problem, remedy, setting="soft_targets")
        self.needs_teacher = bool(loss.alpha_ce or loss.alpha_cos)
        if teacher is None and self.needs_teacher:
            problem, remedy = "L_ce and L_cos need a teacher.", "Give one, or set both alphas to 0."
            raise UserError(problem, remedy, ("teacher", "alpha_ce", "alpha_cos"))
        self.student, self.teacher, self.loss = student, teacher, loss
        self.soft_targets, self.fused = soft_targets, fused
        self.vocabulary_losses: Any = fused_vocabulary_losses if fused is True else fused
        if teacher is not None:
            teacher.eval().requires_grad_(False)

    def soft_mask(self, batch: MicroBatch) -> Tensor:
        """The tokens that have soft targets, (B, L) bool."""
        if self.soft_targets == "all":
            return batch.loss_mask
        if self.soft_targets == "masked":
            return batch.labels != IGNORED
        if batch.sampled is None:
            raise ValueError("No tokens were drawn for soft targets: give DynamicMasking a sample.")
        return batch.sampled & batch.loss_mask

    def count_tokens(self, batches: Sequence[MicroBatch]) -> TokenCounts:
        """The number of tokens of each loss in these micro-batches, known before it is computed."""
        total = [0, 0, 0]
        for batch in batches:
            masks = (self.soft_mask(batch), batch.labels != IGNORED, batch.loss_mask)
            total = [n + int(mask.sum()) for n, mask in zip(total, masks, strict=True)]
        return TokenCounts(*total)

    def __call__(self, batch: MicroBatch, counts: TokenCounts | None = None) -> TripleLossOutput:
        """The losses of one micro-batch, as its part of the mean over `counts` tokens.

        Args:
            batch: (B, L) tokens, best on the CPU: then nothing in the step waits for a GPU.
            counts: The numbers of tokens of the whole batch; those of this part by default.
        """
        loss, counts = self.loss, counts or self.count_tokens([batch])
        soft = self.soft_mask(batch) & bool(loss.alpha_ce)
        masked = (batch.labels != IGNORED) & bool(loss.alpha_mlm)
        # Logits are computed where a loss needs them and nowhere else, at N of the B L places.
        places, soft_tokens, labelled = sort_tokens(soft, masked)
        counted = batch.loss_mask.flatten().nonzero().flatten()
        # What is known goes to the device in one copy, which is not waited for.
        known = [places, batch.labels.flatten()[places], counted]
        device, together = next(self.student.parameters()).device, torch.cat(known)
        if device.type == "cuda" and not together.is_cuda:
            together = together.pin_memory()
        places, labels, counted = together.to(device, non_blocking=True).split([*map(len, known)])
        batch = batch.to(device)
        inputs = (batch.input_ids, batch.attention_mask)
        if not self.fused:
            teacher_logits, teacher_hidden = self._ask_teacher(*inputs, places)
            student = self.student(*inputs, places)
            hidden = (student.last_hidden_state, teacher_hidden)
            masks = (torch.arange(len(places), device=device) < soft_tokens, batch.loss_mask)
            return loss(student.logits, teacher_logits, labels, *hidden, *masks, counts)

        # The teacher's logits are wanted at its own tokens alone, and chunk by chunk.
        lazy = {"project": Projection} if hasattr(self.teacher, "head") else {}
        teacher_logits, teacher_hidden = self._ask_teacher(*inputs, places[:soft_tokens], **lazy)
        true_ids = labels[len(labels) - labelled :]
        targets = (teacher_logits, true_ids, loss.temperature, *loss.weights(counts))
        student = self.student(
            *inputs, places, project=lambda h, W, b: self.vocabulary_losses(h, W, b, *targets)
        )
        weighted, ce, mlm = student.logits
        cos = torch.zeros_like(ce)
        if loss.alpha_cos:
            where = counted if len(counted) < batch.loss_mask.numel() else None
            pair = [states_at(x, where) for x in (student.last_hidden_state, teacher_hidden)]
            cos = cosine_loss(pair[0], pair[1], reduction="sum")
        return loss.combine(ce, mlm, cos, counts, weighted)

    def _ask_teacher(self, *inputs: Any, **options: Any) -> tuple[Any, Any]:
        """(logits, last hidden states) without a graph; nothing where no loss needs them."""
        if self.teacher is None or not self.needs_teacher:
            return None, None
        with torch.no_grad():
            answer = self.teacher(*inputs, **options)
        return answer.logits, answer.last_hidden_state
