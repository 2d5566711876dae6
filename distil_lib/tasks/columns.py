"""The one place where a task's columns are checked and brought into their uniform form.

    data = uniform(task, "train", raw)      # text_a, label; or id, question, context, answers

Whatever a file or the Hub holds ends here in one message with the row: texts that are missing or
no text, labels of a wrong kind or outside their range, answers that are not in their context.
"""

import math
import reprlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, Value
from pyarrow import types

from distil_lib.errors import UserError
from distil_lib.tasks import squad
from distil_lib.tasks.task import Task

MISSING = {"nan", "none", "null", "na", "n/a", "?"}  # how files write a number that is not there
MAX_CLASSES = 1000  # more different labels are numbers to predict, not classes


def bad_row(task: Task, split: str, row: int, column: str, value: Any, expected: str) -> UserError:
    """The message for a value that cannot be used; rows are counted from 1."""
    return UserError(
        f"Row {row + 1} of the split {split!r} of {task.name} has the {column} "
        f"{reprlib.repr(value)}.",
        f"Expected is {expected}: correct the row, or leave it out.",
    )


def uniform(task: Task, split: str, data: Dataset) -> Dataset:
    """A split in uniform columns, every value checked.

    Raises:
        UserError: for a missing column, an empty split, or a bad value.
    """
    if not len(data):
        raise UserError(
            f"The split {split!r} of {task.name} is empty.",
            "Load it again, or pass files that hold examples.",
        )
    reported = split == "train" or split in task.evaluation
    if task.kind == "question answering":
        _need(task, split, data, [c for c in squad.COLUMNS if reported or c != "answers"])
        return _questions(task, split, data)
    if task.label not in data.column_names and not reported:
        data = data.add_column(task.label, [-1] * len(data))
    _need(task, split, data, task.columns)
    names = dict(zip(task.text, ("text_a", "text_b"), strict=False)) | {task.label: "label"}
    if task.repository or task.folder:
        data = data.select_columns(list(names))
    for column in task.text:
        _check_texts(task, split, data, column)
    data = data.rename_columns({old: new for old, new in names.items() if old != new})
    return _with_checked_labels(task, split, data, unlabelled=not reported)


def _need(task: Task, split: str, data: Dataset, columns: Sequence[str]) -> None:
    if missing := [column for column in columns if column not in data.column_names]:
        raise UserError(
            f"The split {split!r} of {task.name} has no column {', '.join(missing)}.",
            f"Its columns are {', '.join(data.column_names)}.",
        )


def _arrow(data: Dataset, column: str) -> pyarrow.ChunkedArray:
    return data.with_format("arrow")[column][:]


def _check_texts(task: Task, split: str, data: Dataset, column: str) -> None:
    values = _arrow(data, column)
    if not (types.is_string(values.type) or types.is_large_string(values.type)):
        raise bad_row(task, split, 0, column, values[0].as_py(), "text")
    if values.null_count:
        raise bad_row(task, split, pc.index(pc.is_null(values), True).as_py(), column, None, "text")
    if pc.all(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(values)), 0)).as_py():
        raise UserError(
            f"Every {column} in the split {split!r} of {task.name} is empty.",
            "Check the header of its file, and in which column the texts stand.",
        )


# ---------------------------------------------------------------------------------------- labels
def with_labels(task: Task, train: Dataset) -> Task:
    """The task with the names of its classes, which are those of its training split.

    Names of a `ClassLabel` column are taken as they are; other labels, words or whole numbers, in
    their sorted order.

    Raises:
        UserError: if the labels are no classes.
    """
    _need(task, "train", train, [task.label])
    feature = train.features[task.label]
    if isinstance(feature, ClassLabel):
        names = tuple(feature.names)
    else:
        values = _whole(_arrow(train, task.label))
        kind = values.type
        if not (types.is_string(kind) or types.is_large_string(kind) or types.is_integer(kind)):
            raise bad_row(task, "train", 0, task.label, values[0].as_py(), "a word or whole number")
        missing = [value is None or value == "" for value in values.to_pylist()]
        if any(missing):
            row = missing.index(True)
            raise bad_row(task, "train", row, task.label, None, "a word or whole number")
        names = tuple(str(value) for value in sorted(pc.unique(values).to_pylist()))
        written = [name for name in names if name.strip().casefold() in MISSING]
        others = {*names} - {*written}
        if written and others and all(name.strip().isdecimal() for name in others):
            row = [str(value) for value in values.to_pylist()].index(written[0])
            raise bad_row(task, "train", row, task.label, written[0], "a whole number")
    if len({name.strip() for name in names}) < len(names):
        raise UserError(
            f"Labels of {task.name} differ in white space alone: {reprlib.repr(names)}.",
            "Remove it.",
        )
    if not 2 <= len(names) <= MAX_CLASSES:
        raise UserError(
            f"The label column {task.label!r} of {task.name} holds {len(names)} different labels.",
            f"A classification has 2 to {MAX_CLASSES}; of a regression the metric is spearman, "
            "pearson, or both.",
        )
    return replace(task, labels=names)


def check_two_classes(task: Task, train: Dataset) -> None:
    """Raise `UserError` if all rows of a training split have one label: nothing can be learned."""
    if task.kind != "question answering" and len(values := set(train["label"][:])) < 2:
        label = task.labels[values.pop()] if task.labels else values.pop()
        raise UserError(
            f"All rows of the training split of {task.name} have the label {label!r}.",
            "Add rows with another label.",
        )


def _whole(values: pyarrow.ChunkedArray) -> pyarrow.ChunkedArray:
    """Whole numbers that a file holds as floats become integers."""
    if types.is_floating(values.type):
        try:
            return values.cast("int64")
        except pyarrow.ArrowInvalid:
            pass
    return values


def _with_checked_labels(task: Task, split: str, data: Dataset, unlabelled: bool) -> Dataset:
    """Labels as ids or numbers; those given as words are translated."""
    values = _arrow(data, "label")
    ids: list[int | None] | list[float | None]
    if task.labels:
        ids = _ids(task, values, named=isinstance(data.features["label"], ClassLabel))
        expected = ", ".join(f"{i} ({name})" for i, name in enumerate(task.labels))
    else:
        ids = [_number(task, value) for value in values.to_pylist()]
        expected = f"a number from {task.low:g} to {task.high:g}"
        expected = expected if math.isfinite(task.high) else "a number"
    for row, number in enumerate(ids):
        if number is None:
            value = values[row].as_py()
            if not (unlabelled and value in (None, -1, "")):
                raise bad_row(task, split, row, "label", value, expected)
            ids[row] = -1
    data = data.remove_columns("label").add_column("label", ids)
    feature = ClassLabel(names=list(task.labels)) if task.labels else Value("float32")
    return data.cast_column("label", feature)


def _ids(task: Task, values: pyarrow.ChunkedArray, named: bool) -> list[int | None]:
    values = _whole(values)
    words = types.is_string(values.type) or types.is_large_string(values.type)
    # Labels that are called "1", "2", ... are numbers in a file: those are names, too.
    numbered = types.is_integer(values.type) and all(n.lstrip("-").isdigit() for n in task.labels)
    if words or (numbered and not named):
        ids = {name: i for i, name in enumerate(task.labels)}
        return [ids.get(str(value)) for value in values.to_pylist()]
    if not types.is_integer(values.type):
        return [None] * len(values)
    inside = range(len(task.labels))
    return [value if value in inside else None for value in values.to_pylist()]


def _number(task: Task, value: Any) -> float | None:
    """The label of a regression, or None if it is none. True and False are no numbers here."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if task.low <= value <= task.high and math.isfinite(value) else None


# ------------------------------------------------------------------------------------- questions
def _questions(task: Task, split: str, data: Dataset) -> Dataset:
    columns = [column for column in squad.COLUMNS if column in data.column_names]
    number = 0
    for batch in data.select_columns(columns).iter(1000):
        for values in zip(*(batch[column] for column in columns), strict=True):
            number += 1
            squad.check_question(
                dict(zip(columns, values, strict=True)),
                f"Row {number} of the split {split!r} of {task.name}",
            )
    return data.cast_column("id", Value("string"))
