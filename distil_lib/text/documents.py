"""Documents in: installed documentation, local files and Hub datasets become one `datasets.Dataset` of documents.

    documents = load_documents("docs")                          # the docstrings installed with this book
    documents = load_documents("notes/")                        # .txt, .jsonl and .parquet files of a folder
    documents = load_documents("hub:wikimedia/wikipedia:20231101.en")

Each row is one document: `name` (unique) and `text` (paragraphs separated by blank lines). What is trained on and what is
held out is decided by document (`split_of`), and a paragraph that occurs twice is kept once (`deduplicate`), so that no
held-out paragraph has been read in training.
"""

import hashlib
import importlib.metadata
import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from pathlib import Path

import datasets
from datasets import Dataset, IterableDataset

from distil_lib.common.hub import CLIENT_ERROR
from distil_lib.errors import UserError
from distil_lib.text.docstrings import docstrings, paragraphs

# Distributions whose docstrings hold English prose, all of them installed with the book; "python" is the standard library.
DOCUMENTED = (
    "python",
    "accelerate",
    "anyio",
    "babel",
    "beautifulsoup4",
    "click",
    "datasets",
    "docutils",
    "filelock",
    "fonttools",
    "fsspec",
    "huggingface-hub",
    "hypothesis",
    "ipython",
    "jedi",
    "jinja2",
    "joblib",
    "jupyter-client",
    "jupyter-server",
    "matplotlib",
    "mpmath",
    "nbconvert",
    "nbformat",
    "numpy",
    "packaging",
    "pandas",
    "pillow",
    "prompt-toolkit",
    "psutil",
    "pyarrow",
    "pydantic",
    "pygments",
    "pytest",
    "requests",
    "rich",
    "scikit-learn",
    "scipy",
    "sphinx",
    "sympy",
    "tensorboard",
    "torch",
    "tornado",
    "traitlets",
    "transformers",
    "typer",
    "urllib3",
    "werkzeug",
)
# Read by no model of this book: text from elsewhere, to see what carries over to packages never met.
UNSEEN = ("networkx", "seaborn", "sqlalchemy")

HELD_OUT_PER_MILLE = 30
NOT_DOCUMENTATION = re.compile(
    r"(^|/)(tests?|testing|idle_test|site-packages|_?vendor(ed)?)/|(^|/)(test_|conftest)"
)


# ---------------------------------------------------------------------------------------------- one docstring to paragraphs


# ---------------------------------------------------------------------------------------------------- where documents come from
def documentation_files(packages: Sequence[str] = DOCUMENTED) -> list[dict[str, str]]:
    """The Python files of installed distributions: rows of `name` (package/path) and `path`, sorted; tests are left out.

    Packages that are not installed are skipped. Raises `UserError` if none is.
    """
    files = {}
    for package in packages:
        if package == "python":
            root = Path(sysconfig.get_path("stdlib"))
            found = [(path.relative_to(root).as_posix(), path) for path in root.rglob("*.py")]
        else:
            try:
                distribution = importlib.metadata.distribution(package)
            except importlib.metadata.PackageNotFoundError:
                continue
            found = [
                (file.as_posix(), file.locate())
                for file in distribution.files or ()
                if file.suffix == ".py"
            ]
        files |= {
            f"{package}/{name}": str(path)
            for name, path in found
            if not NOT_DOCUMENTATION.search(name)
        }
    if not files:
        raise UserError(
            f"None of the packages {', '.join(packages)} is installed.",
            "Install the book with `make book`.",
        )
    return [{"name": name, "path": files[name]} for name in sorted(files)]


def documentation_version(packages: Sequence[str] = DOCUMENTED) -> list[str]:
    """Name and version of each package that `documentation_files` reads: what a cache of its text depends on."""
    versions = []
    for package in packages:
        try:
            versions.append(
                f"{package} {importlib.metadata.version(package)}"
                if package != "python"
                else f"python {sys.version}"
            )
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _read_documentation(batch: dict[str, list[str]]) -> dict[str, list[str]]:
    sources = (Path(path).read_bytes() if os.path.isfile(path) else b"" for path in batch["path"])
    texts = (
        "\n\n".join(p for doc in docstrings(source) for p in paragraphs(doc)) for source in sources
    )
    rows = [(name, text) for name, text in zip(batch["name"], texts, strict=True) if text]
    return {"name": [name for name, _ in rows], "text": [text for _, text in rows]}


def installed_documentation(
    packages: Sequence[str] = DOCUMENTED, processes: int | None = None
) -> Dataset:
    """The prose of the docstrings of installed packages, one document a module, parsed in parallel and deduplicated."""
    files = Dataset.from_list(documentation_files(packages))
    processes = min(processes or os.cpu_count() or 1, max(len(files) // 200, 1))
    documents = files.map(
        _read_documentation,
        batched=True,
        batch_size=50,
        num_proc=processes,
        remove_columns=["path"],
        desc="Reading docstrings",
        load_from_cache_file=False,
        keep_in_memory=True,
    )
    return deduplicate(documents)


READERS = {".txt": "text", ".jsonl": "json", ".parquet": "parquet"}


def local_documents(path: str | Path) -> Dataset:
    """A .txt file, .jsonl or .parquet file (a `text` column, one document a row), or a folder of such files.

    A long .txt file becomes several documents, cut between paragraphs, so that a part of it can be held out.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(
            f"The corpus {path} does not exist.",
            'Pass a file, a folder, "docs" or "hub:OWNER/NAME[:CONFIG]".',
        )
    files = sorted(
        f
        for f in (path.rglob("*") if path.is_dir() else [path])
        if f.suffix in READERS and f.is_file() and f.stat().st_size
    )
    if not files:
        raise UserError(
            f"{path} holds no text.", f"Supported are files ending in {', '.join(READERS)}."
        )
    parts = []
    for file in files:
        try:
            # `sample_by="document"` keeps a text file whole; without it each line would be a document.
            options = {"sample_by": "document"} if file.suffix == ".txt" else {}
            part = datasets.load_dataset(
                READERS[file.suffix], data_files=str(file), split="train", **options
            )
        except (datasets.exceptions.DatasetGenerationError, ValueError, OSError) as error:
            raise UserError(
                f"{file} cannot be read: {error.__cause__ or error}.",
                "Check that it is what its name says.",
            ) from error
        if "text" not in part.column_names:
            raise UserError(
                f"{file} has the columns {', '.join(part.column_names)}.",
                "Name the column with the documents `text`.",
            )
        if part.features["text"].dtype not in ("string", "large_string"):
            raise UserError(
                f"The column `text` of {file} holds {part.features['text'].dtype}.",
                "It must hold strings.",
            )
        if file.suffix == ".txt":
            part = part.map(_cut, batched=True, keep_in_memory=True)
        stem = file.relative_to(path).as_posix() if path.is_dir() else file.name
        names = [f"{stem}#{row}" for row in range(len(part))]
        parts.append(part.select_columns("text").add_column("name", names))
    return datasets.concatenate_datasets(parts)


def _cut(batch: dict[str, list[str]], words_each: int = 1000) -> dict[str, list[str]]:
    pieces, size = [[]], 0
    for paragraph in (p for text in batch["text"] for p in re.split(r"\n\s*\n", text)):
        if size >= words_each:
            pieces.append([])
            size = 0
        pieces[-1].append(paragraph)
        size += len(paragraph.split())
    return {"text": ["\n\n".join(piece) for piece in pieces]}


def hub_documents(name: str, streaming: bool | None = None) -> Dataset | IterableDataset:
    """`OWNER/NAME[:CONFIG[:SPLIT]]` from the Hugging Face Hub (`HF_ENDPOINT`), its `text` column one document a row.

    streaming: read over the network while training, with nothing stored; by default when the data would take more than
    half of the free disk.
    """
    repository, config, split = (*name.split(":"), "", "")[:3]
    try:
        builder = datasets.load_dataset_builder(repository, config or None)
        if streaming is None:
            size = builder.info.dataset_size or builder.info.download_size or 0
            streaming = 2 * size > shutil.disk_usage(Path.home()).free
        documents = datasets.load_dataset(
            repository, config or None, split=split or "train", streaming=streaming
        )
    except (
        OSError,
        ValueError,
        RuntimeError,
        CLIENT_ERROR,
        datasets.exceptions.DatasetsError,
    ) as error:
        raise UserError(
            f"The dataset {name!r} could not be loaded from the Hub ({type(error).__name__}: {str(error).splitlines()[0]}).",
            'Check its name and the network connection, or train without either on the default corpus: "docs".',
        ) from error
    if "text" not in (documents.column_names or ()):
        raise UserError(
            f"{name} has the columns {documents.column_names}.",
            "Only datasets with a `text` column can be read.",
        )
    documents = documents.select_columns("text")
    if streaming:
        documents = (
            documents.reshard()
        )  # from files to their row groups, so that processes can share a stream evenly
    return documents.map(_name_by_text, input_columns="text")


def _name_by_text(text: str | None) -> dict[str, str]:
    """A name that is the same wherever the document stands and whoever reads it: what decides whether it is held out."""
    return {"name": hashlib.blake2b((text or "").encode(), digest_size=12).hexdigest()}


def load_documents(source: str, streaming: bool | None = None) -> Dataset | IterableDataset:
    """Documents of `source`: "docs", "docs:numpy,pandas" (those packages), a path, or "hub:OWNER/NAME[:CONFIG[:SPLIT]]".

    Raises `UserError` when there is nothing to read.
    """
    if source == "docs" or source.startswith("docs:"):
        return installed_documentation(tuple(source[5:].split(",")) if source[5:] else DOCUMENTED)
    if source.startswith("hub:"):
        documents = hub_documents(source[4:], streaming)
        return documents if isinstance(documents, IterableDataset) else deduplicate(documents)
    documents = deduplicate(local_documents(source))
    if not len(documents):
        raise UserError(f"The corpus {source} is empty.", "Give it at least a few thousand words.")
    return documents


# --------------------------------------------------------------------------------------------------- once each, and held out
def deduplicate(documents: Dataset) -> Dataset:
    """Drop every paragraph that an earlier document, or the same one, has said already; documents left empty go.

    The text stays on the disk: what grows in memory is a number a paragraph.
    """
    seen: set[int] = set()

    def first_time(text: str) -> str:
        fresh = []
        for paragraph in re.split(r"\n\s*\n", text):
            words = " ".join(paragraph.split()).lower()
            digest = int.from_bytes(
                hashlib.blake2b(words.encode(), digest_size=8).digest(), "little"
            )
            if words and digest not in seen:
                seen.add(digest)
                fresh.append(paragraph.strip())
        return "\n\n".join(fresh)

    def rows(batch: dict[str, list[str]]) -> dict[str, list[str]]:
        kept = [
            (name, text)
            for name, raw in zip(batch["name"], batch["text"], strict=True)
            if (text := first_time(raw or ""))
        ]
        return {"name": [name for name, _ in kept], "text": [text for _, text in kept]}

    return documents.map(
        rows,
        batched=True,
        batch_size=100,
        remove_columns=documents.column_names,
        load_from_cache_file=False,
        desc="Deduplicating",
    )


def split_of(name: str, held_out_per_mille: int = HELD_OUT_PER_MILLE) -> str:
    """ "train" or "held_out", a pure function of the document's name: adding documents moves none from one side to the other."""
    number = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "little")
    return "held_out" if number % 1000 < held_out_per_mille else "train"


def words(documents: Iterable[dict[str, str]]) -> int:
    """Number of words, split at white space."""
    return sum(len(document["text"].split()) for document in documents)
