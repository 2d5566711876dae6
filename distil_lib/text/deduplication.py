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


class Deduplicator:
    """Remembers the paragraphs of all texts that it was called with: a number for each."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def __call__(self, text: str) -> str:
        """The text without the paragraphs that were there before; they are compared by words."""
        fresh = []
        for paragraph in BLANK_LINES.split(text):
            words = " ".join(paragraph.split()).lower()
            digest = hashlib.blake2b(words.encode(), digest_size=8).digest()
            number = int.from_bytes(digest, "little")
            if words and number not in self.seen:
                self.seen.add(number)
                fresh.append(paragraph.strip())
        return "\n\n".join(fresh)


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
    rows: Iterable[tuple[str, str]], once: Deduplicator | None = None
) -> Iterator[tuple[str, str]]:
    """The rows with each paragraph once; those left empty are dropped."""
    once = once or Deduplicator()
    for name, text in rows:
        if text := once(text):
            yield name, text


def write_documents(rows: Iterable[tuple[str, str]], folder: Path | None = None) -> Dataset:
    """A dataset of the rows (`name`, `text`), written to a file and mapped into memory.

    Without a folder it lies in a temporary one, which is deleted at the end.
    """
    if folder is None:
        folder = Path(tempfile.mkdtemp(prefix="distil-text-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    descriptor, path = tempfile.mkstemp(suffix=".arrow", dir=folder)
    with (
        open(descriptor, "wb") as file,
        pyarrow.ipc.new_stream(file, SCHEMA) as writer,
    ):
        batch: list[tuple[str, str]] = []
        size = 0
        for row in rows:
            batch.append(row)
            size += len(row[1])
            if size > BATCH or len(batch) >= 1000:
                writer.write_batch(_to_batch(batch))
                batch, size = [], 0
        writer.write_batch(_to_batch(batch))
    return Dataset.from_file(path)


def _to_batch(rows: list[tuple[str, str]]) -> pyarrow.RecordBatch:
    columns = [pyarrow.array([row[i] for row in rows], pyarrow.string()) for i in (0, 1)]
    return pyarrow.record_batch(columns, schema=SCHEMA)
