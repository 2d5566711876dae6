"""The known tasks, and one way to load any task in uniform columns.

    task, data = load_task("sst2")                         # from the Hub
    task, data = load_task("mnli", data_dir="glue/")       # from local files
    task, data = load_task("doc-qa")                       # from the installed documentation
    task, data = load_task("my_task.yaml")                 # a task of your own (`own_tasks`)

GLUE, IMDb and SQuAD 1.1 are the paper's (Sanh et al. 2019, Tables 1 and 2); the tasks "doc-..."
are described in `documentation`. What a task is: `task.Task`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import datasets
from datasets import Dataset, DatasetDict

from distil_lib.common.cli import near
from distil_lib.common.hub import LOADING_ERRORS
from distil_lib.errors import UserError
from distil_lib.tasks import documentation as documentation_tasks
from distil_lib.tasks.columns import check_two_classes, uniform, with_labels
from distil_lib.tasks.documentation_pairs import PACKAGES
from distil_lib.tasks.local_files import read_task_files
from distil_lib.tasks.own_tasks import read_task_declaration
from distil_lib.tasks.task import KINDS, Task
from distil_lib.text.sources import check_no_folder


# ---------------------------------------------------------------------------------- declarations
def _glue(
    name: str,
    text: tuple[str, ...],
    metric: str = "accuracy",
    labels: tuple[str, ...] = (),
    **more: Any,
) -> Task:
    kind, source = "classification" if labels else "regression", "Wang et al. 2018, GLUE, section 3"
    return Task(name, kind, text, metric, source, "nyu-mll/glue", name, labels=labels, **more)


def _documentation(
    name: str, text: tuple[str, ...], metric: str = "accuracy", labels: tuple[str, ...] = ()
) -> Task:
    kind = next(kind for kind, metrics in KINDS.items() if metric in metrics)
    source = "distil_lib.tasks.documentation"
    return Task(name, kind, text, metric, source, labels=labels, evaluation=("test",))


SENTENCE, PAIR = ("sentence",), ("sentence1", "sentence2")
MATCHED = ("validation_matched", "validation_mismatched")
ENTAILED, NOT_OR_IS = ("entailment", "not_entailment"), ("unacceptable", "acceptable")
QUESTION = ("question", "context")
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
        QUESTION,
        "f1",
        "Rajpurkar et al. 2016, section 6.1",
        "rajpurkar/squad",
        splits=("train", "validation"),
    ),
    _documentation("doc-acceptability", ("text_a",), "matthews", NOT_OR_IS),
    _documentation("doc-package", ("text_a",), labels=PACKAGES),
    _documentation("doc-same", ("text_a", "text_b"), "accuracy and F1", ("different", "same")),
    _documentation("doc-signature", ("text_a", "text_b"), labels=("other", "described")),
    _documentation("doc-near", ("text_a", "text_b"), "spearman"),
    _documentation("doc-qa", QUESTION, "f1"),
)
TASKS: Mapping[str, Task] = MappingProxyType({task.name: task for task in ALL})


def find_task(name: str | Task) -> Task:
    """The task of a name or of a file that declares one; a `Task` is returned as it is.

    Raises:
        UserError: if there is none, with the nearest name that exists; or for a bad file.
    """
    if isinstance(name, Task):
        return name
    if name in TASKS:
        return TASKS[name]
    if name.lower().endswith((".yaml", ".yml")):
        return read_task_declaration(name)
    raise UserError(
        f"There is no task {name!r}. {near(name.lower(), TASKS)}".rstrip(),
        f"Choose from {', '.join(TASKS)}, or name a YAML file that declares a task.",
    )


# --------------------------------------------------------------------------------------- loading
def load_task(
    name: str | Task, data_dir: str | Path | None = None, splits: Sequence[str] = ()
) -> tuple[Task, DatasetDict]:
    """A task and its data in uniform columns.

    Args:
        name: a key of `TASKS`, a file that declares a task, or a `Task`.
        data_dir: a folder of local files (see `local_files`) instead of the task's own source.
        splits: those that are needed; by default all of the task's that are there. Training and
            evaluation splits must be there if they are needed.

    Returns:
        The task, its labels filled in where they come from the data; and the splits, with
        `text_a`, `text_b` (where there are two texts) and `label`, or `id`, `question`, `context`
        and `answers`. The documentation's tasks have more columns, which say where a row is from.
        A label is -1 where a test split has none.

    Raises:
        UserError: for whatever is missing or wrong.
    """
    task = find_task(name)
    wanted = tuple(splits) or task.splits
    if unknown := [split for split in wanted if split not in task.splits]:
        raise UserError(
            f"{task.name} has no split {', '.join(unknown)}.",
            f"Its splits are {', '.join(task.splits)}.",
        )
    labels_from_data = task.kind == "classification" and not task.labels
    read = dict.fromkeys(["train", *wanted] if labels_from_data else wanted)
    raw = _read(task, data_dir, tuple(read))
    needed = [split for split in ("train", *task.evaluation) if split in read]
    if missing := [split for split in needed if split not in raw]:
        raise UserError(
            f"{task.name} lacks the split {', '.join(missing)}; found are {', '.join(raw)}.",
            "Add its file, or name other splits.",
        )
    if labels_from_data:
        task = with_labels(task, raw["train"])
    data = DatasetDict(
        {split: uniform(task, split, raw[split]) for split in wanted if split in raw}
    )
    if task.name not in TASKS and "train" in data:
        check_two_classes(task, data["train"])
    return task, data


def _read(
    task: Task, data_dir: str | Path | None, splits: tuple[str, ...]
) -> Mapping[str, Dataset]:
    if data_dir is not None or task.folder:
        return read_task_files(task, data_dir or task.folder, splits)
    if task.repository:
        return _from_hub(task)
    if task.name in documentation_tasks.MAKERS:
        return documentation_tasks.load(task.name)
    raise UserError(
        f"The task {task.name} does not say where its data are.",
        "Give it a `folder` or a `repository`.",
    )


def _from_hub(task: Task) -> Mapping[str, Dataset]:
    check_no_folder(task.repository)
    try:
        return datasets.load_dataset(task.repository, task.config or None)
    except LOADING_ERRORS as error:
        first = next(iter(str(error).splitlines()), "")
        offline = ", ".join(name for name in TASKS if name.startswith("doc-"))
        raise UserError(
            f"{task.name} could not be loaded from {task.repository} on the Hub "
            f"({type(error).__name__}: {first[:200]}).",
            "Check the network connection, use a folder of local files, or take a task that needs "
            f"neither: {offline}.",
            setting="data_dir",
        ) from error


def fingerprints(data: Mapping[str, Dataset]) -> dict[str, str]:
    """Of each split a hash of all its rows: which data a result was measured on."""
    found = {}
    for split, rows in data.items():
        digest = hashlib.sha256()
        for batch in rows.iter(1000):
            digest.update(json.dumps([split, batch], sort_keys=True, ensure_ascii=False).encode())
        found[split] = digest.hexdigest()[:16]
    return found
