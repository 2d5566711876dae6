"""Tasks from files on this machine: GLUE's own TSV layouts, SQuAD's JSON, and Parquet in the columns of the Hub.

    splits = read_task_files("mnli", "data/glue", {"train": "train", "validation_matched": "validation_matched"})

`data_dir` is GLUE's whole folder (CoLA/, SST-2/, ...) or the folder of the task itself. Columns and labels come out as those of
`nyu-mll/glue` on the Hub: entailment 0, neutral 1, contradiction 2; entailment 0, not_entailment 1; label -1 in a test split.
"""

import csv
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import datasets
import pyarrow.parquet
from datasets import Dataset

from distil_lib.errors import UserError

BROKEN_ROWS = 0.01  # share of rows with missing columns that is left out with a warning, as the Hub's data do; more is an error


@dataclass(frozen=True)
class Layout:
    """How GLUE's TSV files of one task look.

    folder: in GLUE's archive. columns: from the Hub's name to the file's. label: the file's label column. names: its words in the order of
    the ids, or () for numbers. headless: the columns of files without a header.
    """

    folder: str
    columns: Mapping[str, str]
    label: str = "label"
    names: tuple[str, ...] = ()
    headless: tuple[str, ...] = ()


PAIR = MappingProxyType({"sentence1": "sentence1", "sentence2": "sentence2"})
LAYOUTS = MappingProxyType(
    {
        "cola": Layout(
            "CoLA", {"sentence": "sentence"}, headless=("source", "label", "mark", "sentence")
        ),
        "mnli": Layout(
            "MNLI",
            {"premise": "sentence1", "hypothesis": "sentence2"},
            "gold_label",
            ("entailment", "neutral", "contradiction"),
        ),
        "mrpc": Layout("MRPC", {"sentence1": "#1 String", "sentence2": "#2 String"}, "Quality"),
        "qnli": Layout(
            "QNLI",
            {"question": "question", "sentence": "sentence"},
            names=("entailment", "not_entailment"),
        ),
        "qqp": Layout("QQP", {"question1": "question1", "question2": "question2"}, "is_duplicate"),
        "rte": Layout("RTE", PAIR, names=("entailment", "not_entailment")),
        "sst2": Layout("SST-2", {"sentence": "sentence"}),
        "stsb": Layout("STS-B", PAIR, "score"),
        "wnli": Layout("WNLI", PAIR),
    }
)


def read_task_files(name: str, data_dir: str | Path, splits: Sequence[str]) -> dict[str, Dataset]:
    """The splits that are there, in the Hub's columns. Raises `UserError` if none is."""
    root = Path(data_dir)
    if not root.is_dir():
        raise UserError(
            f"{root} is not a folder.", "Pass the folder that holds the task's files as --data_dir."
        )
    folders = [root / name, root / LAYOUTS[name].folder if name in LAYOUTS else root, root]
    found, looked_for = {}, []
    for split in splits:
        patterns = [f"{split}.parquet", f"{split}-*.parquet", *_names_of(name, split)]
        looked_for += patterns[:1] + patterns[2:]
        for pattern, folder in (
            (pattern, folder) for folder in folders if folder.is_dir() for pattern in patterns
        ):
            if files := sorted(folder.glob(pattern)):
                found[split] = _read(name, split, files)
                break
    if not found:
        raise UserError(
            f"{root} holds none of {', '.join(looked_for)}.",
            f"Put the files of {name} there, or load it from the Hub.",
        )
    return found


def _names_of(name: str, split: str) -> list[str]:
    """The file names of a split in the original download."""
    if name == "squad":
        return {"train": ["train-v1.1.json"], "validation": ["dev-v1.1.json"]}.get(split, [])
    if name not in LAYOUTS:
        return []
    names = [split.replace("validation", "dev") + ".tsv"]
    if (
        name == "mrpc"
    ):  # Microsoft's own files: its training file is both GLUE's train and dev, told apart by dev_ids.tsv
        names.append(f"msr_paraphrase_{'test' if split == 'test' else 'train'}.txt")
    return names


def _read(name: str, split: str, files: list[Path]) -> Dataset:
    try:
        if files[0].suffix == ".parquet":
            return datasets.concatenate_datasets(
                [Dataset(pyarrow.parquet.read_table(file)) for file in files]
            )
        rows = list(
            _squad_rows(files[0])
            if files[0].suffix == ".json"
            else _glue_rows(name, split, files[0])
        )
    except (
        OSError,
        pyarrow.ArrowException,
        UnicodeDecodeError,
        json.JSONDecodeError,
        KeyError,
        TypeError,
    ) as error:
        raise UserError(
            f"{files[0]} cannot be read ({type(error).__name__}: {error}).",
            "Check that it is what its name says.",
        ) from error
    if not rows:
        raise UserError(
            f"{files[0]} holds no example.",
            "Download it again, or leave out the file to do without this split.",
        )
    return Dataset.from_list(rows)


def _squad_rows(file: Path) -> Iterator[dict]:
    for article in json.loads(file.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                answers = {
                    key: [answer[key] for answer in question["answers"]]
                    for key in ("text", "answer_start")
                }
                row = {
                    "id": question["id"],
                    "title": article["title"],
                    "context": paragraph["context"],
                    "question": question["question"],
                }
                yield row | {"answers": answers}


def _glue_rows(name: str, split: str, file: Path) -> Iterator[dict]:
    layout = LAYOUTS[name]
    lines = file.read_text(encoding="utf-8-sig").split(
        "\n"
    )  # not splitlines: some sentences hold U+0085 and its like
    table = csv.reader(
        (line.rstrip("\r") for line in lines if line.strip()),
        delimiter="\t",
        quoting=csv.QUOTE_NONE,
    )
    header = (
        list(layout.headless)
        if layout.headless and not split.startswith("test")
        else next(table, [])
    )
    labelled = layout.label in header
    needed = [
        *layout.columns.values(),
        *([layout.label] if labelled or not split.startswith("test") else []),
    ]
    if missing := [column for column in needed if column not in header]:
        found = ", ".join(header)
        raise UserError(
            f"{file} has no column {', '.join(missing)}; it has {found}.",
            "Pass GLUE's files as they were downloaded.",
        )
    wanted = _mrpc_ids(split, file)
    broken = number = 0
    for number, values in enumerate(table):
        row = dict(zip(header, values, strict=False))
        if any(row.get(column) is None for column in needed):
            broken += 1
        elif wanted is None or wanted((row["#1 ID"], row["#2 ID"])):
            texts = {column: row[original] for column, original in layout.columns.items()}
            yield texts | {
                "label": _label(row[layout.label], layout, file) if labelled else -1,
                "idx": number,
            }
    if broken > max(1, BROKEN_ROWS * number):
        raise UserError(
            f"{broken} of {number + 1} rows of {file} lack columns.",
            "Pass GLUE's files as they were downloaded.",
        )
    if broken:
        warnings.warn(
            f"{broken} of {number + 1} rows of {file} lack columns and are left out.", stacklevel=2
        )


def _label(word: str, layout: Layout, file: Path) -> int | float:
    try:
        return (
            layout.names.index(word)
            if layout.names
            else (float(word) if layout.label == "score" else int(word))
        )
    except ValueError:
        expected = ", ".join(layout.names) or "a number"
        raise UserError(f"{file} has the label {word!r}.", f"Expected is {expected}.") from None


def _mrpc_ids(split: str, file: Path):
    """For Microsoft's training file: whether a pair of ids is of GLUE's train or dev split, as `dev_ids.tsv` beside it says."""
    if file.name != "msr_paraphrase_train.txt":
        return None
    listed = next(
        (
            path
            for name in ("dev_ids.tsv", "mrpc_dev_ids.tsv")
            if (path := file.parent / name).is_file()
        ),
        None,
    )
    if listed is None:
        raise UserError(
            f"{file.parent} has no dev_ids.tsv, which says what of {file.name} is GLUE's dev split.",
            "Download it from GLUE.",
        )
    dev = {tuple(line.split("\t")[:2]) for line in listed.read_text(encoding="utf-8").splitlines()}
    return lambda pair: (pair in dev) == (split == "validation")
