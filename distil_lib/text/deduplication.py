"""Each paragraph once: documents on the disk, without what an earlier one has said already."""

import atexit
import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow
from datasets import Dataset

BLANK_LINES = re.compile(r"\n\s*\n")
SCHEMA = pyarrow.schema([("name", pyarrow.string()), ("text", pyarrow.string())])
BATCH = 4 << 20  # letters that are written together


def deduplicate(documents: Dataset) -> Dataset:
    """Drop every paragraph that an earlier document, or the same one, has said already.

    Documents left empty are dropped. The text, in columns `name` and `text`, stays on the disk:
    what grows in memory is a number a paragraph.
    """
    return write_documents(deduplicated(rows_of(documents)))


def rows_of(documents: Dataset) -> Iterator[tuple[str, str]]:
    """(name, text) of each document; of one without text, an empty text."""
    for batch in documents.select_columns(["name", "text"]).iter(100):
        for name, text in zip(batch["name"], batch["text"], strict=True):
            yield name, text or ""


def deduplicated(
    rows: Iterable[tuple[str, str]], seen: set[int] | None = None
) -> Iterator[tuple[str, str]]:
    """The rows with each paragraph once; those left empty are dropped.

    Args:
        rows: (name, text) of each document; paragraphs are compared by words.
        seen: a number for each paragraph that was there before; those of the rows are added.
    """
    seen = set() if seen is None else seen
    for name, text in rows:
        fresh = []
        for paragraph in BLANK_LINES.split(text):
            words = " ".join(paragraph.split()).lower()
            digest = hashlib.blake2b(words.encode(), digest_size=8).digest()
            number = int.from_bytes(digest, "little")
            if words and number not in seen:
                seen.add(number)
                fresh.append(paragraph.strip())
        if fresh:
            yield name, "\n\n".join(fresh)


def write_documents(rows: Iterable[tuple[str, str]], folder: Path | None = None) -> Dataset:
    """A dataset of the rows (`name`, `text`), written to a file and mapped into memory.

    Without a folder it lies in a temporary one, which is deleted at the end.
    """
    if folder is None:
        folder = Path(tempfile.mkdtemp(prefix="distil-text-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    descriptor, path = tempfile.mkstemp(suffix=".arrow", dir=folder)
    with open(descriptor, "wb") as file, pyarrow.ipc.new_stream(file, SCHEMA) as writer:
        batch: list[dict[str, str]] = []
        size = 0
        for name, text in rows:
            batch.append({"name": name, "text": text})
            size += len(text)
            if size > BATCH or len(batch) >= 1000:
                writer.write_batch(pyarrow.RecordBatch.from_pylist(batch, SCHEMA))
                batch, size = [], 0
        writer.write_batch(pyarrow.RecordBatch.from_pylist(batch, SCHEMA))
    return Dataset.from_file(path)
