"""The loss of fine-tuning, with or without a second teacher that has learned the same task.

    trainer = TaskTrainer(task, teacher=teacher, alpha=0.5, temperature=2.0, model=model, args=...)

Section 3 of Sanh et al. (2019), "second step of distillation": a BERT fine-tuned on SQuAD teaches
the student while the student is fine-tuned itself (Table 2, the row with two D). The released code
weighs the true answers and the teacher's by .5 each, at T = 2, over the start's and the end's
logits. Here any task may have such a teacher.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer
from transformers.utils import ModelOutput

from distil_lib.errors import UserError
from distil_lib.losses import soft_target_loss
from distil_lib.tasks.task import Task

# A logit that no softmax sees; -inf would make 0 * (inf - inf) of a divergence.
NOWHERE = -1e9


def task_loss(
    task: Task,
    outputs: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor],
    teacher: Mapping[str, Tensor] | None = None,
    alpha: float = 0.5,
    temperature: float = 2.0,
) -> Tensor:
    """(1 - alpha) * the loss to the labels + alpha * the loss to the teacher, a scalar.

    To labels: cross-entropy, or squared error of a regression. To the teacher: T^2 * KL of the
    softened distributions (`losses.soft_target_loss`), or squared error. Question answering takes
    the mean over start and end. Padding cannot be an answer and gets no share of either
    distribution: so a loss does not depend on which other windows are in the batch.

    Args:
        task: the task.
        outputs: `logits` (B, classes), or (B, 1) for a regression; `start_logits` and `end_logits`
            (B, L) for question answering.
        inputs: `labels` (B,), or `start_positions`, `end_positions` (B,) and `attention_mask`.
        teacher: the teacher's outputs, or None.
        alpha: the weight of the teacher.
        temperature: of the soft targets.
    """
    soft: Tensor | None = None
    if task.kind == "question answering":
        hard, soft = _span_losses(outputs, inputs, teacher, temperature)
    elif task.kind == "regression":
        numbers = outputs["logits"].float().squeeze(-1)
        hard = F.mse_loss(numbers, inputs["labels"].float())
        if teacher is not None:
            soft = F.mse_loss(numbers, teacher["logits"].float().squeeze(-1))
    else:
        hard = F.cross_entropy(outputs["logits"].float(), inputs["labels"])
        if teacher is not None:
            soft = soft_target_loss(outputs["logits"], teacher["logits"], temperature=temperature)
    return hard if soft is None else (1 - alpha) * hard + alpha * soft


def _span_losses(
    outputs: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor],
    teacher: Mapping[str, Tensor] | None,
    temperature: float,
) -> tuple[Tensor, Tensor | None]:
    """The losses of question answering to labels and to a teacher: means over start and end."""
    padding = inputs["attention_mask"] == 0
    hard, soft = [], []
    for end in ("start", "end"):
        logits = outputs[f"{end}_logits"].float().masked_fill(padding, NOWHERE)
        hard.append(F.cross_entropy(logits, inputs[f"{end}_positions"]))
        if teacher is not None:
            told = teacher[f"{end}_logits"].float().masked_fill(padding, NOWHERE)
            soft.append(soft_target_loss(logits, told, temperature=temperature))
    return (hard[0] + hard[1]) / 2, (soft[0] + soft[1]) / 2 if soft else None


def forward(model: nn.Module, inputs: Mapping[str, Tensor]) -> ModelOutput:
    """The model's outputs for those of the inputs that it takes, without labels.

    A DistilBERT, for instance, takes no token types.
    """
    taken = inspect.signature(type(model).forward).parameters
    answers = ("labels", "start_positions", "end_positions")
    return model(
        **{name: tensor for name, tensor in inputs.items() if name in taken and name not in answers}
    )


class TaskTrainer(Trainer):
    """`transformers.Trainer` with `task_loss`, which stops at a loss that is not a number.

    Args:
        task: the task.
        teacher: a model with the task's head, or None; it is in evaluation mode, without gradients.
        order: which of the teacher's outputs is the task's class 0, 1, ...
        alpha: the weight of the teacher.
        temperature: of the soft targets.
    """

    def __init__(
        self,
        task: Task,
        teacher: PreTrainedModel | None = None,
        order: Sequence[int] = (),
        alpha: float = 0.5,
        temperature: float = 2.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.task, self.order, self.alpha, self.temperature = task, list(order), alpha, temperature
        self.teacher = None
        if teacher is not None:
            teacher.to(self.args.device)  # type: ignore[arg-type]  # hidden by its decorator
            self.teacher = teacher.eval().requires_grad_(False)
        # The loss is a mean over the batch, for the Trainer to divide if it accumulates.
        self.model_accepts_loss_kwargs = False

    def compute_loss(  # type: ignore[override]
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, ModelOutput]:
        """`task_loss` of a batch; with `return_outputs` the model's outputs beside it.

        Raises:
            UserError: if the loss is not finite. The Trainer would leave such steps out of its
                mean loss, and go on.
        """
        outputs, answers = forward(model, inputs), None
        if self.teacher is not None:
            with torch.no_grad():
                answers = dict(forward(self.teacher, inputs))
            if self.order:
                answers["logits"] = answers["logits"][:, self.order]
        loss = task_loss(self.task, outputs, inputs, answers, self.alpha, self.temperature)
        if not torch.isfinite(loss):
            raise UserError(
                f"The loss of step {self.state.global_step + 1} is {loss.item()}: the training of "
                f"{self.task.name} has diverged.",
                "Choose a smaller learning rate.",
                setting="learning_rate",
            )
        return (loss, outputs) if return_outputs else loss
