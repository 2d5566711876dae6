"""What a downstream task is: its data, columns, labels and metric, declared in a few lines, and loaded in uniform columns.

    task, data = load_task("sst2")                         # from the Hub; load_task("mnli", data_dir="glue/") from local files
    task, data = load_task("doc-qa")                       # from the installed documentation, without a network
    train = data["train"].map(task.encode, batched=True, fn_kwargs={"tokenizer": tokenizer, "max_length": 128}, ...)
    task.compute(logits, labels)[task.main_metric]         # in points out of 100

Texts come as `text_a` and `text_b` (None where a task has one text) with `label`; questions as `question`, `context`, `answers`, `id`.
GLUE, IMDb and SQuAD 1.1 are the paper's (Sanh et al. 2019, Tables 1 and 2); the tasks "doc-..." are `documentation_tasks`.
"""

import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import datasets
import numpy as np
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, DatasetDict, Value
from transformers import PreTrainedTokenizerBase

from distil_lib.common.hub import CLIENT_ERROR
from distil_lib.errors import UserError
from distil_lib.tasks import documentation as documentation_tasks
from distil_lib.tasks import squad
from distil_lib.tasks.local_files import read_task_files
from distil_lib.tasks.metrics import METRICS

QUESTION_ANSWERING = ("id", "question", "context", "answers")


@dataclass(frozen=True)
class Task:
    """A downstream task.

    kind: "classification", "regression" or "question answering". text: the source's one or two text columns. labels: the classes'
    names in the order of their ids. low, high: the range of a regression's labels. metric: a key of `task_metrics.METRICS`.
    evaluation: the splits that are reported, the first of them in tables. source: where data and metric are defined.
    repository, config: on the Hub; "" for what is made from the installed documentation.
    """

    name: str
    kind: str
    text: tuple[str, ...]
    metric: str
    source: str
    repository: str = ""
    config: str = ""
    label: str = "label"
    labels: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 5.0
    splits: tuple[str, ...] = ("train", "validation", "test")
    evaluation: tuple[str, ...] = ("validation",)

    @property
    def main_metric(self) -> str:
        """The figure of `compute` that is reported."""
        return self.metric

    @property
    def num_labels(self) -> int:
        """Outputs of the model's head: a class each, one number, or a start and an end."""
        return {"classification": len(self.labels), "regression": 1, "question answering": 2}[
            self.kind
        ]

    def compute(self, predictions: Sequence, labels: Sequence) -> dict[str, float]:
        """The metric's figures in points, `main_metric` the first of them.

        predictions: logits (N, classes) or classes (N,); numbers (N,) or (N, 1); or N texts. labels: (N,), or N lists of texts.
        """
        if self.kind == "question answering":
            return METRICS[self.metric](predictions, labels)
        predictions, labels = np.asarray(predictions), np.asarray(labels)
        if self.kind == "classification" and predictions.ndim == 2:
            predictions = predictions.argmax(-1)
        return METRICS[self.metric](predictions.reshape(len(labels)), labels)

    def encode(
        self, batch: Mapping[str, list], tokenizer: PreTrainedTokenizerBase, max_length: int = 128
    ) -> dict[str, list]:
        """Token ids and `labels` of a batch, not padded; of question answering, windows (`squad.encode`).

        What is longer than `max_length` tokens is cut at its end, of a pair the longer text first.
        """
        if self.kind == "question answering":
            return squad.encode(batch, tokenizer, max_length)
        texts = [batch["text_a"]] + ([batch["text_b"]] if len(self.text) == 2 else [])
        return {
            **tokenizer(*texts, truncation="longest_first", max_length=max_length),
            "labels": batch["label"],
        }


# -------------------------------------------------------------------------------------------------------------- declarations
def _glue(
    name: str, text: tuple[str, ...], metric: str = "accuracy", labels: tuple[str, ...] = (), **more
) -> Task:
    kind = "classification" if labels else "regression"
    return Task(
        name,
        kind,
        text,
        metric,
        "Wang et al. 2018, GLUE, section 3",
        "nyu-mll/glue",
        name,
        labels=labels,
        **more,
    )


def _documentation(
    name: str, text: tuple[str, ...], metric: str = "accuracy", labels: tuple[str, ...] = (), **more
) -> Task:
    kind = (
        "classification" if labels else "question answering" if "question" in text else "regression"
    )
    return Task(
        name,
        kind,
        text,
        metric,
        "distil_lib.tasks.documentation",
        labels=labels,
        evaluation=("test",),
        **more,
    )


SENTENCE, PAIR = ("sentence",), ("sentence1", "sentence2")
MATCHED = ("validation_matched", "validation_mismatched")
ENTAILED, NOT_OR_IS = ("entailment", "not_entailment"), ("unacceptable", "acceptable")
ANSWERS = ("question", "context")
ALL = (
    _glue("cola", SENTENCE, "matthews", NOT_OR_IS),
    _glue(
        "mnli",
        ("premise", "hypothesis"),
        labels=("entailment", "neutral", "contradiction"),
        evaluation=MATCHED,
        splits=("train", *MATCHED, "test_matched", "test_mismatched"),
    ),
    _glue("mrpc", PAIR, "accuracy and F1", ("not_equivalent", "equivalent")),
    _glue("qnli", ("question", "sentence"), labels=ENTAILED),
    _glue("qqp", ("question1", "question2"), "accuracy and F1", ("not_duplicate", "duplicate")),
    _glue("rte", PAIR, labels=ENTAILED),
    _glue("sst2", SENTENCE, labels=("negative", "positive")),
    _glue("stsb", PAIR, "Pearson and Spearman"),
    _glue("wnli", PAIR, labels=("not_entailment", "entailment")),
    Task(
        "imdb",
        "classification",
        ("text",),
        "accuracy",
        "Maas et al. 2011",
        "stanfordnlp/imdb",
        labels=("neg", "pos"),
        splits=("train", "test"),
        evaluation=("test",),
    ),
    Task(
        "squad",
        "question answering",
        ANSWERS,
        "f1",
        "Rajpurkar et al. 2016, section 6.1",
        "rajpurkar/squad",
        splits=("train", "validation"),
    ),
    _documentation("doc-acceptability", ("text_a",), "matthews", NOT_OR_IS),
    _documentation("doc-package", ("text_a",), labels=documentation_tasks.PACKAGES),
    _documentation("doc-same", ("text_a", "text_b"), "accuracy and F1", ("different", "same")),
    _documentation("doc-signature", ("text_a", "text_b"), labels=("other", "described")),
    _documentation("doc-near", ("text_a", "text_b"), "spearman"),
    _documentation("doc-qa", ANSWERS, "f1"),
)
TASKS: Mapping[str, Task] = MappingProxyType({task.name: task for task in ALL})


def find_task(name: str) -> Task:
    """The task of that name. Raises `UserError` with the nearest name that exists."""
    if name in TASKS:
        return TASKS[name]
    plain = name.lower().replace("_", "-")
    bare = {task.replace("-", ""): task for task in TASKS}
    near = difflib.get_close_matches(plain.replace("-", ""), bare, n=1, cutoff=0.6)
    meant = f" Did you mean {bare[near[0]]!r}?" if near else ""
    raise UserError(f"There is no task {name!r}.{meant}", f"Choose from {', '.join(TASKS)}.")


# ------------------------------------------------------------------------------------------------------------------ loading
def load_task(
    name: str | Task, data_dir: str | Path | None = None, splits: Sequence[str] = ()
) -> tuple[Task, DatasetDict]:
    """A task and its data in uniform columns.

    name: of `TASKS`, or a `Task` of one's own. data_dir: a folder of local files (see `task_files`) instead of the Hub.
    splits: those that are needed, by default every one of the task's that is there; training and evaluation splits always must be.

    Returns `(task, data)`: `text_a`, `text_b` (where there are two texts) and `label`, or `id`, `question`, `context` and `answers`;
    the documentation's tasks have more columns that say where a row is from. A label is -1 where a test split has none.
    Raises `UserError` for whatever is missing or wrong.
    """
    task = name if isinstance(name, Task) else find_task(name)
    wanted = tuple(splits) or task.splits
    if unknown := [split for split in wanted if split not in task.splits]:
        raise UserError(
            f"{task.name} has no split {', '.join(unknown)}.",
            f"Its splits are {', '.join(task.splits)}.",
        )
    if data_dir is not None:
        raw = read_task_files(task.name, data_dir, wanted)
    elif task.repository:
        raw = _from_hub(task)
    else:
        raw = documentation_tasks.load(task.name)
    needed = [split for split in ("train", *task.evaluation) if split in wanted]
    if missing := [split for split in needed if split not in raw]:
        raise UserError(
            f"{task.name} lacks the split {', '.join(missing)}; found are {', '.join(raw)}.",
            "Add its file, or ask for less.",
        )
    return task, DatasetDict(
        {split: _uniform(task, split, raw[split]) for split in wanted if split in raw}
    )


def _from_hub(task: Task) -> Mapping[str, Dataset]:
    try:
        return datasets.load_dataset(task.repository, task.config or None)
    except (
        OSError,
        ValueError,
        RuntimeError,
        CLIENT_ERROR,
        datasets.exceptions.DatasetsError,
    ) as error:
        first = next(iter(str(error).splitlines()), "")
        raise UserError(
            f"{task.name} could not be loaded from {task.repository} on the Hub ({type(error).__name__}: {first[:200]}).",
            "Check the network connection, pass local files with --data_dir, or take a task that needs neither: "
            f"{', '.join(t for t in TASKS if t.startswith('doc-'))}.",
        ) from error


def _uniform(task: Task, split: str, data: Dataset) -> Dataset:
    if not len(data):
        raise UserError(
            f"The split {split!r} of {task.name} is empty.",
            "Load it again, or pass files that hold examples.",
        )
    reported = split == "train" or split in task.evaluation
    if task.kind == "question answering":
        _need(
            task,
            split,
            data,
            [name for name in QUESTION_ANSWERING if reported or name != "answers"],
        )
        if "answers" in data.column_names:
            for batch in data.iter(1000):
                squad.check_answers(batch)
        return data
    if task.label not in data.column_names and not reported:
        data = data.add_column(task.label, [-1] * len(data))
    _need(task, split, data, [*task.text, task.label])
    names = dict(
        zip(
            [*task.text, task.label],
            [*("text_a", "text_b")[: len(task.text)], "label"],
            strict=True,
        )
    )
    if task.repository:
        data = data.select_columns(list(names))
    data = data.rename_columns({old: new for old, new in names.items() if old != new})
    data = _checked_labels(task, split, data, unlabelled=not reported)
    return data.cast_column(
        "label", ClassLabel(names=list(task.labels)) if task.labels else Value("float32")
    )


def _need(task: Task, split: str, data: Dataset, columns: Sequence[str]) -> None:
    if missing := [column for column in columns if column not in data.column_names]:
        raise UserError(
            f"The split {split!r} of {task.name} has no column {', '.join(missing)}.",
            f"Its columns are {', '.join(data.column_names)}.",
        )


def _checked_labels(task: Task, split: str, data: Dataset, unlabelled: bool) -> Dataset:
    """With labels as ids or numbers; those given as words are translated. Raises `UserError` for one outside its range."""
    low, high = (0, len(task.labels) - 1) if task.labels else (task.low, task.high)
    expected = (
        ", ".join(f"{i} ({name})" for i, name in enumerate(task.labels))
        or f"a number from {low:g} to {high:g}"
    )
    if task.labels and data.features["label"].dtype in ("string", "large_string"):
        ids = {name: i for i, name in enumerate(task.labels)}
        data = data.add_column(
            "ids", [ids.get(word, word) if word in ids else None for word in data["label"]]
        )
        bad = [
            word for word, number in zip(data["label"], data["ids"], strict=True) if number is None
        ]
        data = data.remove_columns("label").rename_column("ids", "label")
    else:
        column = data.with_format("arrow")["label"][:]
        outside = pc.or_(pc.less(column, low), pc.greater(column, high))
        if unlabelled:
            outside = pc.and_(outside, pc.not_equal(column, -1))
        bad = pc.filter(column, pc.fill_null(outside, True)).to_pylist()
        if not bad and pc.any(pc.is_nan(pc.cast(column, "float64"))).as_py():
            bad = [float("nan")]
    if bad:
        raise UserError(
            f"The split {split!r} of {task.name} has the label {bad[0]!r} ({len(bad)} such rows).",
            f"Expected is {expected}.",
        )
    return data


def fingerprint(data: DatasetDict) -> str:
    """A hash of every row of every split: which data a result was measured on."""
    digest = hashlib.sha256()
    for split in sorted(data):
        for batch in data[split].iter(1000):
            digest.update(json.dumps([split, batch], sort_keys=True, ensure_ascii=False).encode())
    return digest.hexdigest()[:16]
