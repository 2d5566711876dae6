"""Between a task and a model: features in, answers out, and the files that benchmarks want.

features = encode(task, data["validation"], tokenizer, max_length=128)
split = Split(task, data["validation"], features)
answers = split.answer(predict(model, features, Collator(task, tokenizer), batch_size=32))
task.compute(answers, split.truth)
write_predictions(split, answers, "SST-2.tsv")
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from distil_lib.finetune.results import pack
from distil_lib.finetune.trainer import forward
from distil_lib.tasks import squad
from distil_lib.tasks.registry import Task


def encode(
    task: Task, data: Dataset, tokenizer: PreTrainedTokenizerFast, max_length: int
) -> Dataset:
    """Features: the tokenizer's columns, `labels` or positions, `length`; of question answering also `id` and `offsets` of each window."""
    options = {"tokenizer": tokenizer, "max_length": max_length}
    features = data.map(
        task.encode, batched=True, fn_kwargs=options, remove_columns=data.column_names
    )
    return features.map(
        lambda batch: {"length": [len(ids) for ids in batch["input_ids"]]}, batched=True
    )


class Collator:
    """Features to a batch of tensors, padded to the longest of them."""

    def __init__(self, task: Task, tokenizer: PreTrainedTokenizerFast):
        self.tokenizer = tokenizer
        self.answers = (
            ("start_positions", "end_positions")
            if task.kind == "question answering"
            else ("labels",)
        )
        self.dtype = torch.float32 if task.kind == "regression" else torch.int64

    def __call__(self, features: Sequence[Mapping]) -> dict[str, Tensor]:
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
    model: PreTrainedModel,
    features: Dataset,
    collate: Collator,
    batch_size: int,
    precision: str = "fp32",
) -> dict[str, list[np.ndarray]]:
    """Each feature's outputs in the order of the features: `logits` (classes,), or `start_logits` and `end_logits` (L of its batch,)."""
    device = next(model.parameters()).device
    model.eval()
    outputs: dict[str, list] = {}
    order = np.argsort(
        features["length"][:], kind="stable"
    )  # neighbours of a length: little padding
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = collate([features[int(row)] for row in rows])
            for name, values in forward(model, {k: v.to(device) for k, v in batch.items()}).items():
                column = outputs.setdefault(name, [None] * len(order))
                for row, value in zip(rows, values.float().cpu().numpy(), strict=True):
                    column[row] = value
    return outputs


@dataclass
class Split:
    """A split in words and in numbers."""

    task: Task
    rows: Dataset
    features: Dataset

    def answer(
        self, outputs: Mapping[str, Sequence[np.ndarray]], order: Sequence[int] = ()
    ) -> list:
        """(N,) what a model says: classes, numbers or texts. order: as of `task_models.label_order`."""
        if self.task.kind == "question answering":
            contexts = dict(zip(self.rows["id"], self.rows["context"], strict=True))
            spans = {name: self.features[name][:] for name in ("id", "offsets")}
            best = squad.best_answers(
                spans, outputs["start_logits"], outputs["end_logits"], contexts
            )
            return [best[name] for name in self.rows["id"]]
        logits = np.stack(outputs["logits"])
        if self.task.kind == "regression":
            return logits[:, 0].tolist()
        return (logits[:, list(order)] if order else logits).argmax(-1).tolist()

    @property
    def truth(self) -> list:
        return (
            [answers["text"] for answers in self.rows["answers"]]
            if self.task.kind == "question answering"
            else self.rows["label"][:]
        )

    def packed(self, answers: Sequence) -> str:
        """For the record: classes or numbers, or of texts each question's F1 in points."""
        if self.task.kind == "question answering":
            pairs = zip(answers, self.truth, strict=True)
            answers = [
                100 * max(squad.answer_f1(answer, reference) for reference in references)
                for answer, references in pairs
            ]
        return pack(answers)


NAMED = ("mnli", "qnli", "rte")  # GLUE wants numbers of all others, of WNLI too


def write_predictions(split: Split, answers: Sequence, file: Path) -> None:
    """A submission: GLUE's `index<TAB>prediction`, with the names of labels where GLUE wants them; SQuAD's JSON from id to text.

    A regression's numbers are cut to the range of its labels: 0 to 5 for STS-B.
    """
    task = split.task
    file.parent.mkdir(parents=True, exist_ok=True)
    if task.kind == "question answering":
        file.write_text(
            json.dumps(
                dict(zip(split.rows["id"], answers, strict=True)), indent=1, ensure_ascii=False
            ),
            encoding="utf-8",
        )
        return
    if task.kind == "regression":
        words = [f"{min(max(number, task.low), task.high):.3f}" for number in answers]
    else:
        words = [task.labels[number] if task.name in NAMED else str(number) for number in answers]
    file.write_text(
        "".join(["index\tprediction\n", *(f"{i}\t{word}\n" for i, word in enumerate(words))]),
        encoding="utf-8",
    )
