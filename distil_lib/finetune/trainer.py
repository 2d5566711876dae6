"""The loss of fine-tuning, with or without a second teacher that has learned the same task.

    trainer = TaskTrainer(task, teacher=teacher, alpha=0.5, temperature=2.0, model=model, args=..., train_dataset=...)

Section 3 of Sanh et al. (2019), "second step of distillation": a BERT fine-tuned on SQuAD teaches the student while the student is
fine-tuned itself (Table 2, the row with two D). The released code weighs the true answers and the teacher's by .5 each, at T = 2, over
the start's and the end's logits. Here any task may have such a teacher.
"""

import inspect
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel, Trainer
from transformers.utils import ModelOutput

from distil_lib.losses import soft_target_loss
from distil_lib.tasks.registry import Task

NOWHERE = -1e9  # a logit that no softmax sees; -inf would make 0 * (inf - inf) of a divergence


def task_loss(
    task: Task,
    outputs: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor],
    teacher: Mapping[str, Tensor] | None = None,
    alpha: float = 0.5,
    temperature: float = 2.0,
) -> Tensor:
    """(1 - alpha) * the loss to the labels + alpha * the loss to the teacher, a scalar; without a teacher the first alone.

    outputs, teacher: `logits` (B, classes), or (B, 1) for a regression; `start_logits` and `end_logits` (B, L) for question answering.
    inputs: `labels` (B,), or `start_positions`, `end_positions` (B,) and `attention_mask` (B, L).

    To labels: cross-entropy, or squared error of a regression. To the teacher: T^2 * KL of the softened distributions
    (`losses.soft_target_loss`), or squared error. Question answering takes the mean over start and end. Padding is no place where an
    answer could be, and gets no share of either distribution: so a loss does not depend on which other windows are in the batch.
    """
    if task.kind == "regression":
        numbers = outputs["logits"].float().squeeze(-1)
        hard = F.mse_loss(numbers, inputs["labels"].float())
        soft = (
            None if teacher is None else F.mse_loss(numbers, teacher["logits"].float().squeeze(-1))
        )
    elif task.kind == "classification":
        hard = F.cross_entropy(outputs["logits"].float(), inputs["labels"])
        soft = (
            None
            if teacher is None
            else soft_target_loss(outputs["logits"], teacher["logits"], temperature=temperature)
        )
    else:
        padding = inputs["attention_mask"] == 0
        ends = [
            (outputs[f"{end}_logits"].float().masked_fill(padding, NOWHERE), end)
            for end in ("start", "end")
        ]
        hard = (
            sum(F.cross_entropy(logits, inputs[f"{end}_stream_state"]) for logits, end in ends) / 2
        )
        soft = None
        if teacher is not None:
            told = {
                end: teacher[f"{end}_logits"].float().masked_fill(padding, NOWHERE)
                for _, end in ends
            }
            soft = (
                sum(
                    soft_target_loss(logits, told[end], temperature=temperature)
                    for logits, end in ends
                )
                / 2
            )
    return hard if soft is None else (1 - alpha) * hard + alpha * soft


def forward(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> ModelOutput:
    """The model's outputs for those of the inputs that it takes, without labels: a DistilBERT, for instance, takes no token types."""
    taken = inspect.signature(type(model).forward).parameters
    answers = ("labels", "start_positions", "end_positions")
    return model(
        **{name: tensor for name, tensor in inputs.items() if name in taken and name not in answers}
    )


class TaskTrainer(Trainer):
    """`transformers.Trainer` with `task_loss`, and a teacher or none.

    teacher: a model with the task's head; it only answers: in evaluation mode, without gradients. order: which of the teacher's outputs is
    the task's class 0, 1, ...
    """

    def __init__(
        self,
        task: Task,
        *args,
        teacher: PreTrainedModel | None = None,
        order: Sequence[int] = (),
        alpha: float = 0.5,
        temperature: float = 2.0,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        self.task, self.order, self.alpha, self.temperature = task, list(order), alpha, temperature
        self.teacher = (
            None if teacher is None else teacher.to(self.args.device).eval().requires_grad_(False)
        )
        self.model_accepts_loss_kwargs = (
            False  # the loss is a mean over the batch, for the Trainer to divide if it accumulates
        )

    def compute_loss(
        self,
        model: PreTrainedModel,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: object = None,
    ) -> Tensor | tuple[Tensor, ModelOutput]:
        """`task_loss` of a batch; with `return_outputs` the model's outputs beside it."""
        outputs, answers = forward(model, inputs), None
        if self.teacher is not None:
            with torch.no_grad():
                answers = dict(forward(self.teacher, inputs))
            if self.order:
                answers["logits"] = answers["logits"][:, self.order]
        loss = task_loss(self.task, outputs, inputs, answers, self.alpha, self.temperature)
        return (loss, outputs) if return_outputs else loss
