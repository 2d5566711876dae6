"""Short distillations of a page: recorded once, and one of them run again with the page.

    losses = recorded_runs("temperature", distil, jobs=[(1, 0), (2, 0)], live=[(2, 0)])
    losses[2, 0]    # what `distil(2, 0)` returned when it was recorded

A page shows many students that were trained for some twenty steps. To train all of them whenever
the page is executed takes minutes and shows nothing new. So their figures are in
`data/results/short_runs`, and the page trains the students in `live` again: it stops if one of them
is not what the record says. `DISTIL_RECORD=1 make execute CHAPTER=...` trains all of them and
writes the record; `DISTIL_RECORD=missing` trains only those that the record lacks.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distil_lib.common.files import read_json, write_result
from distil_lib.common.hardware import describe_machine
from distil_lib.common.paths import PROJECT
from distil_lib.distillation import DistillationStep
from distil_lib.errors import UserError
from distil_lib.losses import TripleLoss
from distil_lib.masking import MicroBatch
from distil_lib.student import StudentOutput
from distil_lib.training.optimization import build_optimizers, linear_schedule

FOLDER = PROJECT / "data" / "results" / "short_runs"


class CachedTeacher(nn.Module):
    """A teacher that computes each answer once: students that read the same batches share them."""

    def __init__(self, teacher: nn.Module):
        super().__init__()
        self.teacher = teacher
        self.answers: dict[tuple[bytes | None, ...], StudentOutput] = {}

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> StudentOutput:
        """What the teacher answers; it is asked once about each batch and its positions."""
        question = tuple(None if x is None else x.numpy().tobytes() for x in (input_ids, positions))
        if question not in self.answers:
            self.answers[question] = self.teacher(input_ids, attention_mask, positions)
        return self.answers[question]


def short_distillation(
    student: nn.Module,
    teacher: nn.Module,
    loss: TripleLoss,
    batches: Iterable[MicroBatch],
    learning_rate: float = 1e-3,
    warmup_steps: int = 3,
    max_grad_norm: float = float("inf"),
    bf16: bool = False,
    decay: bool = True,
    after_step: Callable[[int], Any] | None = None,
) -> list[float]:
    """One optimizer step of AdamW a batch, on masked tokens; `student` is trained in place.

    Args:
        student: a model with `Student`'s interface.
        teacher: another one.
        loss: which losses, and their weights.
        batches: one a step.
        learning_rate: its height, from which it falls linearly to 0.
        warmup_steps: steps in which it rises to that.
        max_grad_norm: gradients are clipped to this norm.
        bf16: compute products in bf16.
        decay: False keeps the learning rate at its height in all steps, without a warm-up.
        after_step: is called with the number of steps that have been taken.

    Returns:
        L_ce of each step before it was taken, in nats.
    """
    batches = list(batches)
    step = DistillationStep(student.train(), teacher, loss, soft_targets="masked")
    (optimizer,) = build_optimizers(student, learning_rate=learning_rate)
    schedule = linear_schedule(optimizer, warmup_steps, len(batches)) if decay else None
    losses: list[float] = []
    for batch in batches:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            out = step(batch)
        out.loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), max_grad_norm)
        optimizer.step()
        if schedule:
            schedule.step()
        optimizer.zero_grad()
        losses.append(out.ce.item())
        if after_step:
            after_step(len(losses))
    student.eval()
    return losses


def recorded_runs(
    name: str,
    run: Callable[..., Any],
    jobs: Sequence[tuple],
    live: Sequence[tuple],
    tolerance: float = 0.03,
) -> dict[tuple, Any]:
    """The results of `run(*job)` for each job, from the record.

    Those in `live` are computed again and compared.

    Args:
        name: of the record, a file of `data/results/short_runs`.
        run: gives numbers, or lists or dictionaries of numbers.
        jobs: the arguments of each run.
        live: which of them to run again here.
        tolerance: by how much a number may differ from the record: other processors round
            otherwise.

    Returns:
        {job: result}, all of them as recorded.

    Raises:
        UserError: if there is no record of a job, or one that was run again gives other numbers.
    """
    path = FOLDER / f"{name}.json"
    if mode := os.environ.get("DISTIL_RECORD"):
        rows = _read(path) if mode == "missing" else {}
        for job in jobs:
            if tuple(job) not in rows:  # written after each, so that a stop loses one run at most
                rows[tuple(job)] = run(*job)
                runs = [[list(job), result] for job, result in rows.items()]
                write_result(path, {"runs": runs, "machine": describe_machine()})
    found = _read(path)
    if missing := [job for job in jobs if tuple(job) not in found]:
        problem = f"has no run {missing[0]}" if found else "does not exist"
        raise UserError(f"{path} {problem}.", "Record it: DISTIL_RECORD=1 make execute CHAPTER=...")
    for job in live:
        now, then = (np.array(_numbers(x)) for x in (run(*job), found[tuple(job)]))
        # Written so that NaN fails.
        if not (now.shape == then.shape and (np.abs(now - then) <= tolerance).all()):
            raise UserError(
                f"The run {job} gives {now.round(3)} here; {path.name} has {then.round(3)}."
            )
    return {tuple(job): found[tuple(job)] for job in jobs}


def _read(path: Path) -> dict[tuple, Any]:
    """The runs of a record; {} where there is none."""
    runs = read_json(path)["runs"] if path.is_file() else []
    return {tuple(job): result for job, result in runs}


def _numbers(result: Any) -> list[float]:
    """All numbers of a result, in its order."""
    if isinstance(result, dict):
        result = list(result.values())
    return [x for each in result for x in _numbers(each)] if isinstance(result, list) else [result]
