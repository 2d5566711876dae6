"""Documents in: documentation, local files and Hub datasets become one `datasets.Dataset`.

    documents = load_documents("docs")               # the docstrings installed with this book
    documents = load_documents("notes/")             # .txt, .jsonl and .parquet files of a folder
    documents = load_documents("hub:wikimedia/wikipedia:20231101.en + docs")       # a mixture

Each row is one document: `name` and `text` (paragraphs separated by blank lines). What is trained
on and what is held out is decided by document (`split_of`), and a paragraph that occurs twice is
kept once (`deduplicate`), so that no held-out paragraph has been read in training.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from datasets import Dataset, IterableDataset, concatenate_datasets

from distil_lib.errors import UserError
from distil_lib.text.deduplication import deduplicated, rows_of, write_documents
from distil_lib.text.documentation import installed_documentation
from distil_lib.text.hub_datasets import fits_on_disk, hub_documents, hub_size, stored_rows
from distil_lib.text.local_files import local_rows
from distil_lib.text.sources import Source, parse_corpus

HELD_OUT_PER_MILLE = 30


class StreamedDocuments(NamedTuple):
    """Text that streams: its parts, and how much of the text each gives, relatively."""

    parts: list[IterableDataset]
    weights: list[float]


def load_documents(
    corpus: str,
    streaming: bool | None = None,
    folder: Path | None = None,
    revisions: Mapping[str, str] | None = None,
) -> Dataset | StreamedDocuments:
    """The documents of a corpus (see `sources` for its grammar).

    The documents of a mixture are those of its parts, one after the other. With weights, a part is
    thinned out until the shares are right: no text is repeated, so the part that is the scarcest
    for its weight is read whole. Paragraphs are deduplicated over all parts.

    Args:
        corpus: "docs", "docs:numpy,pandas", a path, "hub:OWNER/NAME[:CONFIG[:SPLIT]]", or several.
        streaming: read what lies on the Hub over the network while training, with nothing stored
            and nothing deduplicated; by default when it would take more than half of the free disk.
        folder: where the text is written; by default a temporary one, deleted at the end.
        revisions: the commits of the repositories on the Hub; by default the newest.

    Raises:
        UserError: when there is nothing to read.
    """
    parts, revisions = parse_corpus(corpus), revisions or {}
    if hub := [part for part in parts if part.kind == "hub"]:
        if streaming is None:
            streaming = not fits_on_disk(sum(hub_size(part, revisions) for part in hub))
        if streaming:
            return _stream(parts, revisions)
    if parts[0].weight is not None:
        return _with_shares(parts, revisions, folder)
    rows = (row for part in parts for row in _rows(part, revisions))
    documents = write_documents(deduplicated(rows), folder)
    if not len(documents):
        raise UserError(f"The corpus {corpus} is empty.", "Give it at least a few thousand words.")
    return documents


def _rows(part: Source, revisions: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """(name, text) of each document of a part. Raises `UserError` if none of them has a text."""
    if part.kind == "docs":
        rows = rows_of(installed_documentation(part.packages))
    elif part.kind == "hub":
        documents = hub_documents(part, revision=revisions.get(part.repository[0]))
        assert isinstance(documents, Dataset)
        rows = stored_rows(documents)
    else:
        rows = local_rows(part.name)
    empty = True
    for name, text in rows:
        empty = empty and not text.strip()
        yield name, text
    if empty:
        raise UserError(f"The corpus {part.name} is empty.", "Give it a few thousand words.")


def _with_shares(
    parts: Sequence[Source], revisions: Mapping[str, str], folder: Path | None
) -> Dataset:
    """The documents of a mixture with weights: as many of each part as its share allows."""
    seen: set[int] = set()
    each = [write_documents(deduplicated(_rows(part, revisions), seen), folder) for part in parts]
    lengths = [_lengths(documents) for documents in each]
    sizes = [sum(numbers) for numbers in lengths]
    for part, size in zip(parts, sizes, strict=True):
        if not size:
            raise UserError(
                f"All that {part.name} says is said by the parts before it.", "Leave it out."
            )
    weights = [part.weight or 0.0 for part in parts]
    scale = min(size / weight for size, weight in zip(sizes, weights, strict=True))
    kept = []
    for documents, numbers, weight in zip(each, lengths, weights, strict=True):
        # A sample that depends on nothing but the names, and not on who is held out.
        digests = [
            hashlib.blake2b(f"share\0{name}".encode(), digest_size=8).digest()
            for name in documents["name"]
        ]
        order = sorted(range(len(numbers)), key=digests.__getitem__)
        total = np.cumsum([numbers[i] for i in order])
        count = max(int(np.searchsorted(total, weight * scale * (1 + 1e-9), side="right")), 1)
        kept.append(documents.select(sorted(order[:count])))
    return concatenate_datasets(kept)


def _lengths(documents: Dataset) -> list[int]:
    """Letters of each document."""
    return [len(text) for _, text in rows_of(documents)]


def _stream(parts: Sequence[Source], revisions: Mapping[str, str]) -> StreamedDocuments:
    """A corpus of which a part, or all, is read over the network."""
    streams: list[IterableDataset] = []
    sizes: list[float] = []
    for part in parts:
        if part.kind == "hub":
            stream = hub_documents(part, True, revisions.get(part.repository[0]))
            assert isinstance(stream, IterableDataset)
            if len(parts) == 1:
                return StreamedDocuments([stream], [1.0])
            size = hub_size(part, revisions) if part.weight is None else 0
        else:
            documents = write_documents(deduplicated(_rows(part, revisions)))
            stream = documents.to_iterable_dataset(num_shards=min(len(documents), 512))
            size = sum(_lengths(documents))
        if not size and part.weight is None:
            raise UserError(
                f"The Hub does not say how large {part.name} is.",
                "Give each part a weight: 0.6 hub:OWNER/NAME + 0.4 docs.",
            )
        streams.append(stream)
        sizes.append(part.weight or float(size))
    return StreamedDocuments(streams, sizes)


def split_documents(documents: Dataset) -> tuple[Dataset, Dataset]:
    """(train, held out), by document. Raises `UserError` if there is only one document."""
    names = list(documents["name"])
    if len(names) < 2:
        raise UserError(
            f"The corpus is a single document of {words(documents):,} words, and whole documents"
            " are held out.",
            "Give more text (a .txt file is cut every thousand words), or split it into files.",
        )
    held_out = [row for row, name in enumerate(names) if split_of(name) == "held_out"]
    if not held_out or len(held_out) == len(names):
        # too few documents for their hashes to fall on both sides
        held_out = [
            min(range(len(names)), key=lambda row: hashlib.sha256(names[row].encode()).digest())
        ]
    train = sorted(set(range(len(names))) - set(held_out))
    return documents.select(train), documents.select(held_out)


def split_of(name: str, held_out_per_mille: int = HELD_OUT_PER_MILLE) -> str:
    """The split "train" or "held_out", a pure function of the document's name.

    Adding documents moves none from one side to the other.
    """
    number = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "little")
    return "held_out" if number % 1000 < held_out_per_mille else "train"


def words(documents: Iterable[dict[str, str]]) -> int:
    """Number of words, split at white space."""
    return sum(len(document["text"].split()) for document in documents)
