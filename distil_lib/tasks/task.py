"""What a downstream task is: its data, columns, labels and metric.

    task = Task("ag_news", "classification", ("text",), "accuracy", folder="data/ag_news")
    train = data["train"].map(task.encode, batched=True, fn_kwargs={"tokenizer": tokenizer})
    task.compute(logits, labels)[task.metric]         # in points out of 100

Texts come as `text_a` and `text_b` (the second only where a task has two texts) with `label`;
questions as `question`, `context`, `answers`, `id`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from distil_lib.errors import UserError
from distil_lib.tasks import squad
from distil_lib.tasks.metrics import METRICS

Answers = Sequence | np.ndarray
OF_TWO_CLASSES = ("F1", "accuracy and F1", "matthews")
KINDS = MappingProxyType(
    {
        "classification": ("accuracy", "macro F1", *OF_TWO_CLASSES),
        "regression": ("pearson", "spearman", "Pearson and Spearman"),
        "question answering": ("f1",),
    }
)


@dataclass(frozen=True)
class Task:
    """A downstream task.

    Attributes:
        name: what results are called.
        kind: "classification", "regression" or "question answering".
        text: the one or two text columns of the source.
        metric: the figure that is reported, a key of `metrics.METRICS`.
        source: where data and metric are defined.
        repository: a dataset on the Hub.
        config: its configuration.
        folder: the folder of local files; with neither it nor a repository, the task is one of
            those made from the installed documentation.
        label: the label column of the source.
        labels: the names of the classes in the order of their ids; () to take them from the
            training split.
        low: the smallest label of a regression.
        high: the largest label of a regression.
        splits: those that may be there.
        evaluation: the splits that are reported, the first of them in tables.
    """

    name: str
    kind: str
    text: tuple[str, ...]
    metric: str
    source: str = ""
    repository: str = ""
    config: str = ""
    folder: str = ""
    label: str = "label"
    labels: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 5.0
    splits: tuple[str, ...] = ("train", "validation", "test")
    evaluation: tuple[str, ...] = ("validation",)

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.metric not in KINDS[self.kind]:
            metrics = " ".join(f"{kind}: {', '.join(of_it)}." for kind, of_it in KINDS.items())
            raise UserError(
                f"The task {self.name} is a {self.kind!r} with the metric {self.metric!r}.",
                f"Choose from {metrics}",
            )
        if not 1 <= len(self.text) <= 2 or not set(self.evaluation) <= set(self.splits):
            raise UserError(
                f"The task {self.name} has {len(self.text)} text columns and the splits "
                f"{', '.join(self.splits)}, and reports {', '.join(self.evaluation)}.",
                "Name one or two columns, and report splits that it has.",
            )
        if len(self.labels) > 2 and self.metric in OF_TWO_CLASSES:
            raise UserError(
                f"{self.metric} is for two classes, and {self.name} has {len(self.labels)}.",
                "Choose accuracy or macro F1.",
            )

    @property
    def num_labels(self) -> int:
        """Outputs of the model's head: one per class, one number, or a start and an end."""
        if self.kind == "classification":
            return len(self.labels)
        return 1 if self.kind == "regression" else 2

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the source must have."""
        if self.kind == "question answering":
            return squad.COLUMNS
        return (*self.text, self.label)

    def references(self, rows: Mapping[str, Any]) -> list:
        """The right answers of a split, as `compute` wants them."""
        if self.kind == "question answering":
            return [answers["text"] for answers in rows["answers"]]
        return rows["label"][:]

    def compute(self, predictions: Answers, labels: Answers) -> dict[str, float]:
        """The metric's figures in points, the reported one first.

        Args:
            predictions: logits (N, classes) or classes (N,); numbers (N,) or (N, 1); or N texts.
            labels: (N,), or N lists of texts.

        Raises:
            UserError: if a prediction is not a finite number.
        """
        if self.kind == "question answering":
            return METRICS[self.metric](predictions, labels)
        answers, truth = np.asarray(predictions), np.asarray(labels)
        # Neither an argmax nor a correlation must turn not-a-number into a result.
        if not np.isfinite(answers).all():
            raise UserError(
                f"{(~np.isfinite(answers)).sum()} of the predictions for {self.name} are not "
                "finite numbers.",
                "The model's weights have diverged: fine-tune it again with a smaller learning "
                "rate.",
                setting="learning_rate",
            )
        if self.kind == "classification" and answers.ndim == 2:
            answers = answers.argmax(-1)
        return METRICS[self.metric](answers.reshape(len(truth)), truth)

    def encode(
        self, batch: Mapping[str, list], tokenizer: PreTrainedTokenizerBase, max_length: int = 128
    ) -> dict[str, list]:
        """Token ids and `labels` of a batch, not padded; windows for question answering.

        Args:
            batch: the columns of the task; of question answering as for `squad.encode`.
            tokenizer: the model's.
            max_length: what is longer is cut at its end, of a pair the longer text first.
        """
        if self.kind == "question answering":
            return squad.encode(batch, tokenizer, max_length)
        texts = [batch["text_a"]] + ([batch["text_b"]] if len(self.text) == 2 else [])
        encoded = tokenizer(*texts, truncation="longest_first", max_length=max_length)
        return {**encoded, "labels": batch["label"]}
