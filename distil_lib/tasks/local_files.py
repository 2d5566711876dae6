"""Tasks from files on this machine: GLUE's own TSV layouts, SQuAD's JSON, and plain tables.

    splits = read_task_files(find_task("mnli"), "data/glue", ["train", "validation_matched"])

The folder is GLUE's whole archive (CoLA/, SST-2/, ...) or the folder of the task itself. Texts and
labels are those of `nyu-mll/glue` on the Hub: entailment 0, neutral 1, contradiction 2;
entailment 0, not_entailment 1; label -1 in a test split. Any task may also come as CSV, TSV, JSONL
or Parquet files in its own columns: `train.csv`, or shards `train-0.parquet`, `train-1.parquet`.

A path is a path here: characters like `[` or `*` in it are no patterns.
"""

import io
import json
import reprlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import datasets
import pandas
import pyarrow
import pyarrow.parquet
from datasets import Dataset

from distil_lib.errors import UserError
from distil_lib.tasks import squad
from distil_lib.tasks.task import Task

# The share of rows with missing columns that is left out with a warning, as in the Hub's data.
BROKEN_ROWS = 0.01
TABLES = ("parquet", "csv", "tsv", "jsonl")


@dataclass(frozen=True)
class Layout:
    """How GLUE's TSV files of one task look.

    Attributes:
        folder: in GLUE's archive.
        label: the file's label column.
        text: its text columns where they have other names than on the Hub.
        headless: the columns of files without a header.
    """

    folder: str
    label: str = "label"
    text: tuple[str, ...] = ()
    headless: tuple[str, ...] = ()


LAYOUTS = MappingProxyType(
    {
        "cola": Layout("CoLA", headless=("source", "label", "mark", "sentence")),
        "mnli": Layout("MNLI", "gold_label", ("sentence1", "sentence2")),
        "mrpc": Layout("MRPC", "Quality", ("#1 String", "#2 String")),
        "qnli": Layout("QNLI"),
        "qqp": Layout("QQP", "is_duplicate"),
        "rte": Layout("RTE"),
        "sst2": Layout("SST-2"),
        "stsb": Layout("STS-B", "score"),
        "wnli": Layout("WNLI"),
    }
)
# Whose labels GLUE writes as words; those of all others are numbers, of WNLI too.
NAMED = ("mnli", "qnli", "rte")


def read_task_files(task: Task, data_dir: str | Path, splits: Sequence[str]) -> dict[str, Dataset]:
    """The splits that are there, in the columns of the task's source.

    Raises:
        UserError: if none is there, or if a file cannot be read.
    """
    root = Path(data_dir)
    if not root.is_dir():
        raise UserError(
            f"{root} is not a folder.", "Name the folder of the task's files.", setting="data_dir"
        )
    glue = LAYOUTS[task.name].folder if task.name in LAYOUTS else "."
    folders = [folder for folder in (root / task.name, root / glue, root) if folder.is_dir()]
    found, looked_for = {}, []
    for split in splits:
        looked_for += [f"{split}.parquet", *_original_names(task.name, split)]
        if files := next(filter(None, (_files(task, split, folder) for folder in folders)), None):
            found[split] = _read(task, split, files)
    if not found:
        raise UserError(
            f"{root} holds none of {', '.join(looked_for)} (nor CSV, TSV or JSONL files).",
            f"Put the files of {task.name} there, or load it from the Hub.",
        )
    return found


def _files(task: Task, split: str, folder: Path) -> list[Path]:
    """The files of a split in one folder: a table, its shards, or the original download."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    for kind in TABLES:
        # A TSV of GLUE has a layout of its own, and lists of answers fit into no cell.
        questions = task.kind == "question answering" and kind in ("csv", "tsv")
        if questions or (task.name in LAYOUTS and kind == "tsv"):
            continue
        if f"{split}.{kind}" in names:
            return [folder / f"{split}.{kind}"]
        if shards := [n for n in names if n.startswith(f"{split}-") and n.endswith(f".{kind}")]:
            return [folder / name for name in shards]
    return [folder / name for name in _original_names(task.name, split) if name in names][:1]


def _original_names(name: str, split: str) -> list[str]:
    """The file names of a split in the original download."""
    if name == "squad":
        return {"train": ["train-v1.1.json"], "validation": ["dev-v1.1.json"]}.get(split, [])
    if name not in LAYOUTS:
        return []
    names = [split.replace("validation", "dev") + ".tsv"]
    # Microsoft's training file is both GLUE's train and dev split, told apart by dev_ids.tsv.
    if name == "mrpc":
        names.append(f"msr_paraphrase_{'test' if split == 'test' else 'train'}.txt")
    return names


def _read(task: Task, split: str, files: list[Path]) -> Dataset:
    file, parts = files[0], []
    try:
        for file in files:
            parts.append(_read_one(task, split, file))
    # A `ValueError` is one of JSON, of pandas, or of bytes that are not UTF-8.
    except (OSError, ValueError, pyarrow.ArrowException, OverflowError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise UserError(
            f"{file} cannot be read ({reason}).", "Check that it is what its name says."
        ) from error
    for file, part in zip(files, parts, strict=True):
        if part.features.type != parts[0].features.type:
            raise UserError(
                f"{file} has other columns or types than {files[0]}.",
                "Write all files of a split with the same columns.",
            )
    if not any(map(len, parts)):
        raise UserError(
            f"{file} holds no example.",
            "Download it again, or leave out the file to do without this split.",
        )
    return datasets.concatenate_datasets(parts)


def _read_one(task: Task, split: str, file: Path) -> Dataset:
    kind = file.suffix.removeprefix(".")
    if kind == "parquet":
        return _from_parquet(file)
    if task.name in LAYOUTS and kind in ("tsv", "txt"):
        return Dataset.from_list(list(_glue_rows(task, split, file)))
    if kind == "json":
        return Dataset.from_list(list(squad.read_questions(file)))
    if kind == "jsonl":
        return _from_json_lines(file, task.columns)
    return _from_csv(task, split, file)


def _from_parquet(file: Path) -> Dataset:
    table = pyarrow.parquet.read_table(file, partitioning=None)
    table.validate(full=True)  # strings are UTF-8
    for i, field in enumerate(table.schema):
        if field.type == pyarrow.string_view():
            table = table.set_column(i, field.name, table.column(i).cast(pyarrow.string()))
    return Dataset(table)


def _from_csv(task: Task, split: str, file: Path) -> Dataset:
    """Texts stay as they are written: "NA" is a word; a TSV's quotation marks are part of it."""
    with file.open(encoding="utf-8-sig", newline="") as opened:
        content = opened.read()
    if "\0" in content:  # pandas would cut the text there
        raise UserError(f"{file} holds a NUL character.", "Save it as UTF-8, as text.")
    options: dict[str, Any] = {"keep_default_na": False}
    options |= {"sep": "\t", "quoting": 3} if file.suffix == ".tsv" else {}
    first = pandas.read_csv(io.StringIO(content), header=None, nrows=1, dtype=str, **options)
    header = first.iloc[0].tolist()
    reported = split == "train" or split in task.evaluation
    wanted = [name for name in task.columns if reported or name in header or name != task.label]
    if wrong := [name for name in wanted if header.count(name) != 1]:
        raise UserError(
            f"{file} has {'two columns' if wrong[0] in header else 'no column'} {wrong[0]}.",
            f"Its columns are {', '.join(map(str, header))[:200]}.",
        )
    # As a number, the label 01 would be the label 1.
    words = (*task.text, *([task.label] if task.kind == "classification" else []))
    frame = pandas.read_csv(io.StringIO(content), dtype=dict.fromkeys(words, str), **options)
    if not isinstance(frame.index, pandas.RangeIndex):
        raise UserError(
            f"{file} has more columns in its rows than in its first line.",
            "Put texts that hold the separator in quotation marks, or name all columns.",
        )
    frame = frame[wanted]
    if task.kind == "classification" and task.label in frame:
        numbers = pandas.to_numeric(frame[task.label], errors="coerce")
        as_written = list(map(str, numbers)) == frame[task.label].tolist()
        if numbers.notna().all() and (as_written or (numbers % 1 != 0).any()):
            frame = frame.assign(**{task.label: numbers})
    return Dataset.from_pandas(frame, preserve_index=False)


def _from_json_lines(file: Path, columns: Sequence[str]) -> Dataset:
    rows = []
    with file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                rows.append(row := json.loads(line))
                if not isinstance(row, dict):
                    raise UserError(
                        f"Line {number} of {file} is no JSON object.",
                        'Write one a line: {"text": "...", "label": 0}.',
                    )
    found = [column for column in columns if any(column in row for row in rows)]
    return Dataset.from_dict({c: _typed([row.get(c) for row in rows], c, file) for c in found})


def _typed(values: list, column: str, file: Path) -> list:
    """The values, if all are of one type."""
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) > 1 and kinds != {int, float}:
        first = next(type(value) for value in values if value is not None)
        row = next(i for i, v in enumerate(values) if v is not None and type(v) is not first)
        raise UserError(
            f"Row {row + 1} of {file} has the {column} {reprlib.repr(values[row])}, a "
            f"{type(values[row]).__name__}; the rows before have a {first.__name__}.",
            "Write one type in all rows.",
        )
    return values


# ------------------------------------------------------------------------------------------ GLUE
def _glue_rows(task: Task, split: str, file: Path) -> Iterator[dict]:
    layout = LAYOUTS[task.name]
    texts = dict(zip(task.text, layout.text or task.text, strict=False))
    # Not `splitlines`: some sentences hold U+0085 and similar characters. Quotation marks have no
    # meaning in these files, so a tab is all that separates columns.
    lines = file.read_text(encoding="utf-8-sig").split("\n")
    table = (line.rstrip("\r").split("\t") for line in lines if line.strip())
    test = split.startswith("test")
    header = list(layout.headless) if layout.headless and not test else next(table, [])
    labelled = layout.label in header
    needed = [*texts.values(), *([layout.label] if labelled or not test else [])]
    if missing := [column for column in needed if column not in header]:
        raise UserError(
            f"{file} has no column {', '.join(missing)}; it has {', '.join(header)}.",
            "Pass GLUE's files as they were downloaded.",
        )
    of_dev = _mrpc_dev_ids(file)
    broken = number = 0
    for number, values in enumerate(table, start=1):
        row = dict(zip(header, values, strict=False))
        if any(row.get(column) is None for column in needed):
            broken += 1
        elif of_dev is None or ((row["#1 ID"], row["#2 ID"]) in of_dev) == (split == "validation"):
            label = _label(task, row[layout.label], file, number) if labelled else -1
            yield {name: row[column] for name, column in texts.items()} | {"label": label}
    if broken > max(1, BROKEN_ROWS * (number - 1)):
        raise UserError(
            f"{broken} of {number} rows of {file} lack columns.",
            "Pass GLUE's files as they were downloaded.",
        )
    if broken:
        warnings.warn(
            f"{broken} of {number} rows of {file} lack columns and are left out.", stacklevel=2
        )


def _label(task: Task, word: str, file: Path, row: int) -> int | float:
    names = task.labels if task.name in NAMED else ()
    try:
        if names:
            return names.index(word)
        return float(word) if task.kind == "regression" else int(word)
    except ValueError:
        expected = ", ".join(names) or "a number"
        raise UserError(
            f"Row {row} of {file} has the label {reprlib.repr(word)}.", f"Expected is {expected}."
        ) from None


def _mrpc_dev_ids(file: Path) -> set[tuple[str, ...]] | None:
    """For Microsoft's training file: the pairs of ids that are GLUE's dev split."""
    if file.name != "msr_paraphrase_train.txt":
        return None
    places = [file.parent / name for name in ("dev_ids.tsv", "mrpc_dev_ids.tsv")]
    listed = next((path for path in places if path.is_file()), None)
    if listed is None:
        raise UserError(
            f"{file.parent} has no dev_ids.tsv, which says what of {file.name} is GLUE's dev "
            "split.",
            "Download it from GLUE.",
        )
    lines = listed.read_text(encoding="utf-8").splitlines()
    return {tuple(line.split("\t")[:2]) for line in lines}
