"""Documents packed into blocks of token ids, which are cached on disk.

    tokenizer = load_tokenizer("data/tokenizer")
    blocks = load_blocks("docs", tokenizer, block_size=64)
    blocks.train[0]["input_ids"]                            # (64,) ids: [CLS] 62 words [SEP]

The documents of a split are joined, with [SEP] between two of them, and cut into pieces of
`block_size - 2` tokens, each wrapped in [CLS] and [SEP]. No block holds padding, so no arithmetic
is spent on any.
"""

import hashlib
import itertools
import json
import tempfile
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from datasets import Dataset, Features, Sequence, Value
from transformers import PreTrainedTokenizerFast

from distil_lib.common.files import MAKING, _sweep, storage_named
from distil_lib.common.hardware import available_cpus
from distil_lib.common.paths import cache_folder
from distil_lib.errors import UserError
from distil_lib.text import cache as store
from distil_lib.text.cache import Blocks
from distil_lib.text.documents import StreamedDocuments, load_documents, split_documents, split_of
from distil_lib.text.local_files import tell
from distil_lib.text.packing import pack, tokenize
from distil_lib.text.sources import corpus_fingerprint, hub_revisions, parse_corpus
from distil_lib.text.streaming import DOCUMENTS_AT_ONCE, BlockStream
from distil_lib.text.tokenizer import tokenizer_fingerprint

FORMAT = 3  # raised whenever the same documents would give other blocks: part of the cache's key
DOCUMENTS_A_PACK = 1000  # packing starts again after so many, whatever the number of processes
STREAM_SAMPLE = 2000  # blocks of a stream that are read ahead to count its words
STREAM_HELD_OUT = 500  # held-out blocks that are collected from a stream: takes 30 times the text


def documents_to_blocks(
    documents: Dataset,
    tokenizer: PreTrainedTokenizerFast,
    block_size: int,
    processes: int | None = None,
) -> Dataset:
    """Tokenize in parallel and pack: `input_ids` of (block_size,) int32 ids, a block a row."""
    processes = min(processes or available_cpus(), max(len(documents) // 100, 1))
    tokens = documents.map(
        lambda texts: {"tokens": tokenize(texts, tokenizer)},
        input_columns="text",
        batched=True,
        batch_size=100,
        num_proc=processes,
        remove_columns=documents.column_names,
        load_from_cache_file=False,
        desc="Tokenizing",
        writer_batch_size=100,
        features=Features({"tokens": Sequence(Value("int32"))}),
    )
    return tokens.map(
        lambda lists: {"input_ids": list(pack(lists, tokenizer, block_size))},
        input_columns="tokens",
        batched=True,
        batch_size=DOCUMENTS_A_PACK,
        remove_columns=["tokens"],
        load_from_cache_file=False,
        desc="Packing",
        features=Features({"input_ids": Sequence(Value("int32"), length=block_size)}),
    )


def load_blocks(
    source: str,
    tokenizer: PreTrainedTokenizerFast,
    block_size: int,
    streaming: bool | None = None,
    cache: Path | None = None,
) -> Blocks:
    """The blocks of a corpus, from the cache if they have been made before.

    They are written beside and renamed, so that a run that is stopped leaves no half of them, and
    checked when they are read: damaged ones are made again. Without a connection, the newest blocks
    of the same name are used.

    Args:
        source: the corpus (see `sources` for its grammar).
        tokenizer: gives the ids.
        block_size: tokens in a block.
        streaming: see `documents.load_documents`.
        cache: the folder to look in and to write to.
    """
    if not 8 <= block_size <= tokenizer.model_max_length:
        raise UserError(
            f"A block of {block_size} tokens is not possible.",
            f"Choose from 8 to {tokenizer.model_max_length}.",
            setting="block_size",
        )
    parts = parse_corpus(source)
    on_hub = any(part.kind == "hub" for part in parts)
    key = _cache_key(source, tokenizer, block_size)
    revisions = hub_revisions(parts) if on_hub else {}
    folder = Path(cache) / "blocks" if cache else cache_folder("blocks")
    if revisions is None and not streaming and (packed := store.newest(folder, key)):
        tell(
            f"The Hub cannot be reached: {source} is used as it was packed on"
            f" {store.made_on(folder / packed)}."
        )
        key = packed
    elif on_hub:
        words = json.dumps(revisions, sort_keys=True) if revisions else "unknown"
        key = f"{key}-{hashlib.sha256(words.encode()).hexdigest()[:8]}"
    if on_hub and streaming:
        streamed = load_documents(source, True, revisions=revisions)
        assert not isinstance(streamed, Dataset)
        return _stream(streamed, tokenizer, block_size, key)
    if found := store.read(folder / key, len(tokenizer), block_size):
        return found
    with storage_named(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
    with storage_named(folder), tempfile.TemporaryDirectory(prefix=MAKING, dir=folder) as beside:
        documents = load_documents(source, streaming, Path(beside), revisions)
        if not isinstance(documents, Dataset):
            return _stream(documents, tokenizer, block_size, key)
        packed_parts = {}
        for name, part in zip(("train", "held_out"), split_documents(documents), strict=True):
            packed_parts[name] = documents_to_blocks(part, tokenizer, block_size)
            if not len(packed_parts[name]):
                raise UserError(
                    f"The {name} part of {source} is shorter than a block of {block_size}.",
                    "Give it more text.",
                )
        counts = count_tokens(packed_parts["train"], len(tokenizer))
        about = {"corpus": source, "block_size": block_size, "revisions": revisions}
        about["content_hash"] = hash_blocks(packed_parts)
        store.write(Path(beside), folder / key, packed_parts, counts, about)
    if found := store.read(folder / key, len(tokenizer), block_size):
        return found
    raise UserError(
        f"The blocks in {folder / key} are damaged as soon as they are written.",
        "Look at the disk, or name another folder by the variable DISTIL_CACHE.",
    )


def _cache_key(source: str, tokenizer: PreTrainedTokenizerFast, block_size: int) -> str:
    facts = [FORMAT, corpus_fingerprint(source), tokenizer_fingerprint(tokenizer), block_size]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def packed_blocks(source: str, tokenizer: PreTrainedTokenizerFast, block_size: int) -> int | None:
    """How many blocks of a local corpus are in the cache to be trained on; None if none are."""
    folder = cache_folder("blocks") / _cache_key(source, tokenizer, block_size)
    found = store.read(folder, len(tokenizer), block_size)
    return int(found.counts.sum()) // block_size if found else None


def _batches(blocks: Iterable[dict]) -> Iterator[np.ndarray]:
    if isinstance(blocks, Dataset):
        blocks = blocks.with_format("numpy").iter(4096)
    for batch in blocks:
        yield np.asarray(batch["input_ids"])


def count_tokens(blocks: Iterable[dict], vocab_size: int) -> np.ndarray:
    """How often each id occurs: (vocab_size,) int64."""
    counts = np.zeros(vocab_size, np.int64)
    for ids in _batches(blocks):
        counts += np.bincount(ids.ravel(), minlength=vocab_size)
    return counts


def hash_blocks(parts: dict[str, Dataset]) -> str:
    """A hash of the ids of all blocks, in their order."""
    digest = hashlib.sha256()
    for name, blocks in parts.items():
        digest.update(f"{name} {len(blocks)} ".encode())
        for ids in _batches(blocks):
            digest.update(np.ascontiguousarray(ids, "<i4").tobytes())
    return digest.hexdigest()[:16]


def _is_in(split: str, name: str, text: str | None) -> bool:
    """Whether a document of a stream has text and belongs to a split."""
    return bool(text) and split_of(name) == split


def _stream(
    documents: StreamedDocuments,
    tokenizer: PreTrainedTokenizerFast,
    block_size: int,
    key: str,
) -> Blocks:
    """Blocks made while they are read: nothing is stored, words are counted on a sample.

    A function of this module decides what is trained on, no lambda: the workers of a DataLoader
    may be started by spawn or forkserver.
    """
    parts, weights = documents
    columns = ["name", "text"]
    trained = [part.filter(partial(_is_in, "train"), input_columns=columns) for part in parts]
    train = BlockStream(trained, tokenizer, block_size, weights)
    sample = [row["input_ids"] for row in itertools.islice(train, STREAM_SAMPLE)]
    held_out = []
    for part, weight in zip(parts, weights, strict=True):
        share = max(round(STREAM_HELD_OUT * weight / sum(weights)), 1)
        reserved = part.filter(partial(_is_in, "held_out"), input_columns=columns)
        tokens = (
            ids
            for batch in reserved.iter(DOCUMENTS_AT_ONCE)
            for ids in tokenize(batch["text"], tokenizer)
        )
        held_out += list(itertools.islice(pack(tokens, tokenizer, block_size), share))
    if not held_out:
        raise UserError(
            f"The stream gives no held-out block of {block_size} tokens.", "Give it more text."
        )
    counts = count_tokens(({"input_ids": ids} for ids in sample), len(tokenizer))
    rows = Dataset.from_dict({"input_ids": held_out})
    ahead = {"train": Dataset.from_dict({"input_ids": sample}), "held_out": rows}
    return Blocks(train, rows, counts, key, hash_blocks(ahead))
