"""The documentation that is installed with the book: the docstrings of its packages."""

import contextlib
import hashlib
import importlib.metadata
import os
import re
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import pyarrow
import pyarrow.parquet
from datasets import Dataset

from distil_lib.common.hardware import available_cpus
from distil_lib.common.paths import cache_folder
from distil_lib.errors import UserError
from distil_lib.text.deduplication import SCHEMA, deduplicated, write_documents
from distil_lib.text.docstrings import docstrings, paragraphs

# Distributions whose docstrings hold English prose, all of them installed with the book;
# "python" is the standard library.
DOCUMENTED = tuple(
    """
    python accelerate anyio babel beautifulsoup4 click datasets docutils filelock fonttools
    fsspec huggingface-hub hypothesis ipython jedi jinja2 joblib jupyter-client
    jupyter-server matplotlib mpmath nbconvert nbformat numpy packaging pandas pillow
    prompt-toolkit psutil pyarrow pydantic pygments pytest requests rich scikit-learn scipy
    sphinx sympy tensorboard torch tornado traitlets transformers typer urllib3 werkzeug
    """.split()
)
NOT_DOCUMENTATION = re.compile(
    r"(^|/)(tests?|testing|idle_test|site-packages|_?vendor(ed)?)/|(^|/)(test_|conftest)"
)
FORMAT = 1  # raised whenever the same sources would give other paragraphs


def documentation_files(packages: Sequence[str] = DOCUMENTED) -> list[dict[str, str]]:
    """The Python files of installed distributions, without tests.

    Returns:
        Rows of `name` (package/path) and `path`, sorted. Packages that are not installed
        are skipped.

    Raises:
        UserError: if none of the packages is installed.
    """
    files: dict[str, str] = {}
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
                (file.as_posix(), Path(str(file.locate())))
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
    """Name and version of each package that `documentation_files` reads."""
    return [version for package in packages if (version := _version(package))]


def _version(package: str) -> str | None:
    if package == "python":
        return f"python {sys.version}"
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return None


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
    """The prose of the docstrings of installed packages, one document a module, deduplicated.

    The paragraphs of each package are kept in the cache: the first reading of all of them takes
    minutes, and one that is stopped goes on with the package that it stopped in.
    """
    files: dict[str, list[dict[str, str]]] = {}
    for row in documentation_files(packages):
        files.setdefault(row["name"].split("/", 1)[0], []).append(row)
    rows: dict[str, str] = {}
    for package, own in files.items():
        part = _read_package(package, own, processes)
        rows |= dict(zip(part["name"], part["text"], strict=True))
    return write_documents(deduplicated(sorted(rows.items())))


def _read_package(
    package: str, files: list[dict[str, str]], processes: int | None
) -> dict[str, list[str]]:
    """`name` and `text` of a package's documents, from the cache if they have been read before."""
    # An editable or repaired installation changes files under the same version: sizes tell most.
    sizes = [[f["path"], os.path.getsize(f["path"])] for f in files if os.path.isfile(f["path"])]
    key = hashlib.sha256(repr([FORMAT, _version(package), sizes]).encode()).hexdigest()[:16]
    cached = None
    with contextlib.suppress(UserError):  # a cache that cannot be written costs time, not the text
        cached = cache_folder("documentation") / f"{package}-{key}.parquet"
        # Not there yet, or damaged: read again.
        with contextlib.suppress(OSError, ValueError, pyarrow.ArrowException):
            return pyarrow.parquet.ParquetFile(cached).read(columns=["name", "text"]).to_pydict()
    parts = min(processes or available_cpus(), max(len(files) // 200, 1))
    found = Dataset.from_list(files).map(
        _read_documentation,
        batched=True,
        batch_size=50,
        # None: in this process. 1 would fork one, which can hang where other threads hold a lock.
        num_proc=parts if parts > 1 else None,
        remove_columns=["path"],
        desc=f"Reading docstrings of {package}",
        load_from_cache_file=False,
        keep_in_memory=True,
    )
    part = {"name": list(found["name"]), "text": list(found["text"])}
    if cached:
        with contextlib.suppress(OSError):
            beside = cached.with_name(f".{cached.name}.{os.getpid()}")
            pyarrow.parquet.write_table(pyarrow.table(part, schema=SCHEMA), beside)
            beside.replace(cached)
    return part
