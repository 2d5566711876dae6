"""Between a task and a model: features in, answers out, and the files that benchmarks want.

    features = encode(task, data["validation"], tokenizer, max_length=128)
    split = Split(task, data["validation"], features)
    answers = split.decode(predict(model, features, Collator(task, tokenizer), batch_size=32))
    task.compute(answers, split.references)
    write_predictions(split, answers, "SST-2.tsv")

The task says how its rows are encoded and scored.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from distil_lib.common.files import atomic_write_text
from distil_lib.errors import UserError
from distil_lib.finetune.records import join_numbers
from distil_lib.finetune.trainer import forward
from distil_lib.tasks import squad
from distil_lib.tasks.local_files import NAMED
from distil_lib.tasks.task import Task


def text_length(max_length: int, task: Task, longest: int, model: str) -> int:
    """Tokens of a text: what was asked for, or the default of the task's kind.

    Args:
        max_length: what was asked for; 0 for the default, within what the model can read.
        task: the task.
        longest: what the model can read (`models.positions`).
        model: its name, for the message.
    """
    if max_length > longest:
        raise UserError(
            f"max_length is {max_length}; {model} reads {longest} tokens at most.",
            "Ask for no more than that.",
            setting="max_length",
        )
    least = 3 * max(len(task.text), 1)  # a word of each text, and what stands around it
    if 0 < max_length < least:
        raise UserError(
            f"max_length is {max_length}: nothing of a text is left beside special tokens.",
            f"Ask for {least} tokens at least.",
            setting="max_length",
        )
    default = 512 if task.name == "imdb" else 128
    return max_length or min(384 if task.kind == "question answering" else default, longest)


def encode(
    task: Task, data: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> Dataset:
    """Features of a split.

    Returns:
        The tokenizer's columns, `labels` or positions, `length`; of question answering also the
        `row` of the question and the `offsets` of each window.
    """
    if task.kind == "question answering":
        data = data.add_column("row", list(range(len(data))))
    options = {"tokenizer": tokenizer, "max_length": max_length}
    features = data.map(
        task.encode, batched=True, fn_kwargs=options, remove_columns=data.column_names
    )
    return features.map(
        lambda batch: {"length": [len(ids) for ids in batch["input_ids"]]}, batched=True
    )


class Collator:
    """Features to a batch of tensors, padded to the longest of them."""

    def __init__(self, task: Task, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        questions = task.kind == "question answering"
        self.answers = ("start_positions", "end_positions") if questions else ("labels",)
        self.dtype = torch.float32 if task.kind == "regression" else torch.int64

    def __call__(self, features: Sequence[Mapping]) -> dict[str, Tensor]:
        """The rows as one batch: the model's inputs, padded, and the answers if there are any."""
        texts = [
            {name: row[name] for name in self.tokenizer.model_input_names if name in row}
            for row in features
        ]
        batch = dict(self.tokenizer.pad(texts, return_tensors="pt"))
        return batch | {
            name: torch.tensor([row[name] for row in features], dtype=self.dtype)
            for name in self.answers
            if name in features[0]
        }


def predict(
    model: nn.Module,
    features: Dataset,
    collate: Collator,
    batch_size: int,
    precision: str = "fp32",
) -> dict[str, list[np.ndarray]]:
    """Each feature's outputs in the order of the features.

    Returns:
        `logits` (classes,), or `start_logits` and `end_logits` (L of its batch,).

    Raises:
        UserError: if an output is not a finite number.
    """
    device = next(model.parameters()).device
    model.eval()
    outputs: dict[str, list] = {}
    # Neighbours of a similar length: little padding.
    order = np.argsort(features["length"][:], kind="stable")
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = collate([features[int(row)] for row in rows])
            for name, values in forward(model, {k: v.to(device) for k, v in batch.items()}).items():
                values = values.float().cpu().numpy()
                # An argmax over NaN would be class 0 and count as an answer.
                if not np.isfinite(values).all():
                    raise UserError(
                        f"The model answers {values[~np.isfinite(values)][0]}: its weights have "
                        "diverged.",
                        "Fine-tune it again with a smaller learning rate.",
                        setting="learning_rate",
                    )
                column = outputs.setdefault(name, [None] * len(order))
                for row, value in zip(rows, values, strict=True):
                    column[row] = value
    return outputs


@dataclass
class Split:
    """A split in words and in numbers."""

    task: Task
    rows: Dataset
    features: Dataset

    def decode(
        self, outputs: Mapping[str, Sequence[np.ndarray]], order: Sequence[int] = ()
    ) -> list:
        """(N,) what a model answers: classes, numbers or texts.

        Args:
            outputs: as `predict` returns them.
            order: as `models.label_order` returns it.
        """
        if self.task.kind == "question answering":
            windows = {name: self.features[name][:] for name in ("row", "offsets")}
            return squad.best_answers(
                windows, outputs["start_logits"], outputs["end_logits"], self.rows["context"][:]
            )
        logits = np.stack(list(outputs["logits"]))
        if self.task.kind == "regression":
            return logits[:, 0].tolist()
        return (logits[:, list(order)] if order else logits).argmax(-1).tolist()

    @property
    def references(self) -> list:
        """(N,) the right answers: classes, numbers, or lists of texts."""
        return self.task.references(self.rows)

    def recorded(self, answers: Sequence) -> str:
        """For the record: classes or numbers, or of texts each question's F1 in points."""
        if self.task.kind == "question answering":
            pairs = zip(answers, self.references, strict=True)
            answers = [
                100 * max(squad.answer_f1(answer, reference) for reference in references)
                for answer, references in pairs
            ]
        return join_numbers(answers)


def write_predictions(split: Split, answers: Sequence, file: Path) -> None:
    """A submission: GLUE's `index<TAB>prediction`, or SQuAD's JSON from id to text.

    GLUE wants the names of labels for some tasks. A regression's numbers are cut to the range of
    its labels: 0 to 5 for STS-B.
    """
    task = split.task
    file.parent.mkdir(parents=True, exist_ok=True)
    if task.kind == "question answering":
        by_id = dict(zip(split.rows["id"], answers, strict=True))
        atomic_write_text(file, json.dumps(by_id, indent=1, ensure_ascii=False))
        return
    if task.kind == "regression":
        words = [f"{min(max(number, task.low), task.high):.3f}" for number in answers]
    else:
        words = [task.labels[number] if task.name in NAMED else str(number) for number in answers]
    lines = ["index\tprediction", *(f"{i}\t{word}" for i, word in enumerate(words))]
    atomic_write_text(file, "\n".join(lines) + "\n")
