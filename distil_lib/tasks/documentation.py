"""Six tasks in the shapes of GLUE and SQuAD, made from the documentation of installed packages.

    splits = load("doc-same")     # {"train": Dataset, "validation": ..., "test": ...}; cached

No network is needed, and the text itself carries the labels:

- doc-acceptability (CoLA's shape): is the sentence as it was written, or was one word changed or
  were two neighbours swapped? (`documentation_sentences`)
- doc-package (ten classes): which of ten packages does a paragraph speak of, all names blanked?
- doc-same (MRPC's shape): do two paragraphs follow one another in one docstring, or are they from
  two docstrings of one module?
- doc-signature (QNLI's shape): does a paragraph describe the function with these arguments, or
  another function of its module?
- doc-near (STS-B's shape): how much of their path do the modules of two paragraphs share, from 0
  to 5? (These four: `documentation_pairs`.)
- doc-qa (SQuAD's shape): type, default or meaning of a parameter, found in the text of its
  parameter section (`documentation_questions`)

Test documents are those held out from the default teacher's pretraining (`documentation_sources`).
The column `document` says where a row is from. Negatives come from the same module, so that the
topic alone does not give them away; in each split the labels are balanced.
"""

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import pyarrow
import pyarrow.parquet
from datasets import Dataset

from distil_lib.common.files import MAKING, _sweep
from distil_lib.common.paths import cache_folder
from distil_lib.errors import UserError
from distil_lib.masking import random_stream
from distil_lib.tasks.documentation_pairs import (
    module_similarity,
    package,
    same_docstring,
    signature,
)
from distil_lib.tasks.documentation_questions import question_answering
from distil_lib.tasks.documentation_sentences import acceptability
from distil_lib.tasks.documentation_sources import SHARES, Row, SourceModule, read_modules
from distil_lib.text.documentation import DOCUMENTED, documentation_version

# Raised whenever the same sources would give other examples: part of the cache's key.
FORMAT = 1
SEED = 0
# At most; fewer where a split has less to give.
SIZES = MappingProxyType({"train": 3000, "validation": 600, "test": 800})

# Of what a maker returns the first `size` rows are taken.
MAKERS = MappingProxyType(
    {
        "doc-acceptability": acceptability,
        "doc-package": package,
        "doc-same": same_docstring,
        "doc-signature": signature,
        "doc-near": module_similarity,
        "doc-qa": question_answering,
    }
)


def make(name: str, modules: Mapping[str, Sequence[SourceModule]]) -> dict[str, list[Row]]:
    """The rows of each split of a task.

    Raises:
        UserError: if the modules give none for one of the splits.
    """
    splits = {}
    for number, (split, part) in enumerate(modules.items()):
        random = random_stream(SEED, sorted(MAKERS).index(name), number)
        rows = MAKERS[name](part, random, SIZES[split])[: SIZES[split]]
        if not rows:
            raise UserError(
                f"The installed documentation gives no {split} example for {name}.",
                "Install more of its packages: `make book`.",
            )
        splits[split] = rows
    return splits


def load(
    name: str,
    packages: Sequence[str] = DOCUMENTED,
    cache: Path | None = None,
    shares: Mapping[str, int] = SHARES,
) -> dict[str, Dataset]:
    """A task's splits, from the cache if they were made before.

    All tasks are made together, within about half a minute. The cache's key is made of the
    packages' versions and this file's format. A folder takes its name only when it is complete; a
    damaged one is made again.

    Args:
        name: a key of `MAKERS`.
        packages: the distributions whose documentation is read.
        cache: the folder of the cache; by default the library's own.
        shares: the cumulated shares of documents, as in `documentation_sources.SHARES`.
    """
    key = json.dumps(
        [FORMAT, sorted(documentation_version(packages)), dict(shares), dict(SIZES), SEED]
    )
    parent = (cache or cache_folder()) / "documentation-tasks"
    folder = parent / hashlib.sha256(key.encode()).hexdigest()[:16]
    try:
        return _read(folder / name)
    except (OSError, pyarrow.ArrowException):  # not made yet, or damaged
        pass
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _sweep(parent)
        with tempfile.TemporaryDirectory(prefix=MAKING, dir=parent) as beside:
            _make_all(Path(beside, "made"), packages, shares)
            if folder.exists():  # damaged, or another process was quicker: this one is as good
                folder.rename(Path(beside, "before"))
            Path(beside, "made").rename(folder)
    except OSError as error:
        if not folder.is_dir():
            raise UserError(
                f"The examples of {name} cannot be kept in {parent} ({error.strerror}).",
                "Let the environment variable DISTIL_CACHE name a folder that can be written.",
            ) from error
    return _read(folder / name)


def _make_all(folder: Path, packages: Sequence[str], shares: Mapping[str, int]) -> None:
    modules = read_modules(packages, dict(shares))
    for task in MAKERS:
        (folder / task).mkdir(parents=True)
        for split, rows in make(task, modules).items():
            table = pyarrow.Table.from_pylist(rows)
            pyarrow.parquet.write_table(table, folder / task / f"{split}.parquet")


def _read(folder: Path) -> dict[str, Dataset]:
    # In the order of use, and not memory-mapped: all tasks together are a few megabytes.
    return {
        split: Dataset(pyarrow.parquet.read_table(folder / f"{split}.parquet"))
        for split in ("train", "validation", "test")
    }
