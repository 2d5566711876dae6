"""WordPiece tokenizer, and documents packed into blocks of token ids that are cached on disk.

    tokenizer = load_tokenizer("data/tokenizer")
    blocks = load_blocks("docs", tokenizer, block_size=64)
    blocks.train[0]["input_ids"]                            # (64,) ids: [CLS] 62 words [SEP]

The documents of a split are joined, with [SEP] between two of them, and cut into pieces of `block_size - 2` tokens, each
wrapped in [CLS] and [SEP]. No block holds padding, so no arithmetic is spent on any.

    python -m distil_lib.text.tokenizer --corpus docs --vocab_size 8192 --output data/tokenizer      # trains a tokenizer
"""

import hashlib
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import Dataset, Features, IterableDataset, Sequence, Value, load_from_disk
from transformers import PreTrainedTokenizerFast

from distil_lib.common.files import MAKING, _sweep
from distil_lib.common.paths import cache_folder
from distil_lib.errors import UserError
from distil_lib.text.documents import DOCUMENTED, documentation_version, load_documents, split_of
from distil_lib.text.packing import DOCUMENTS_AT_ONCE, pack, tokenize
from distil_lib.text.streaming import BlockStream
from distil_lib.text.tokenizer import tokenizer_fingerprint

FORMAT = 2  # raised whenever the same documents would give other blocks: part of the cache's key
DOCUMENTS_A_PACK = (
    1000  # packing restarts after so many documents, whatever the number of processes
)
STREAM_SAMPLE = 2000  # blocks of a stream that are read ahead to count its words
STREAM_HELD_OUT = 500  # held-out blocks that are collected from a stream: some 30 times as much text has to be read for them


# ---------------------------------------------------------------------------------------------------------------- tokenizer


# ------------------------------------------------------------------------------------------------------- documents to blocks
def _tokenize(batch: dict[str, list[str]], tokenizer: PreTrainedTokenizerFast) -> dict[str, list]:
    return {"tokens": tokenize(batch["text"], tokenizer)}


def _pack_batch(
    batch: dict[str, list], tokenizer: PreTrainedTokenizerFast, block_size: int
) -> dict[str, list]:
    return {"input_ids": list(pack(batch["tokens"], tokenizer, block_size))}


def documents_to_blocks(
    documents: Dataset,
    tokenizer: PreTrainedTokenizerFast,
    block_size: int,
    processes: int | None = None,
) -> Dataset:
    """Tokenize in parallel and pack: a `Dataset` with one column, `input_ids` of (block_size,) int32 ids."""
    processes = min(processes or os.cpu_count() or 1, max(len(documents) // 100, 1))
    tokens = documents.map(
        _tokenize,
        batched=True,
        batch_size=100,
        num_proc=processes,
        remove_columns=documents.column_names,
        fn_kwargs={"tokenizer": tokenizer},
        load_from_cache_file=False,
        desc="Tokenizing",
        writer_batch_size=100,
        features=Features({"tokens": Sequence(Value("int32"))}),
    )
    return tokens.map(
        _pack_batch,
        batched=True,
        batch_size=DOCUMENTS_A_PACK,
        remove_columns=["tokens"],
        load_from_cache_file=False,
        desc="Packing",
        fn_kwargs={"tokenizer": tokenizer, "block_size": block_size},
        features=Features({"input_ids": Sequence(Value("int32"), length=block_size)}),
    )


@dataclass
class Blocks:
    """Text ready for training: `train` and `held_out` hold `input_ids` (block_size,); `counts` (V,) how often each id occurs.

    `train` is a `BlockStream` when the corpus streams. `fingerprint` names text, tokenizer and block size in one hash.
    """

    train: Dataset | BlockStream
    held_out: Dataset
    counts: np.ndarray
    fingerprint: str

    @property
    def digest(self) -> str:
        """A hash of the text itself: how many blocks there are and how often each id occurs in them, wherever they lie.

        (`fingerprint` changes with a file's folder and date; of a stream, only the sample counts that was read ahead.)
        """
        size = 0 if self.streaming else len(self.train)
        return hashlib.sha256(
            f"{size} {len(self.held_out)} ".encode() + self.counts.tobytes()
        ).hexdigest()[:16]

    @property
    def streaming(self) -> bool:
        return isinstance(self.train, BlockStream)


def split_documents(documents: Dataset) -> tuple[Dataset, Dataset]:
    """(train, held out), by document. Raises `UserError` if there is only one document."""
    names = list(documents["name"])
    held_out = [row for row, name in enumerate(names) if split_of(name) == "held_out"]
    if not held_out or len(held_out) == len(
        names
    ):  # too few documents for their hashes to fall on both sides
        held_out = [
            min(range(len(names)), key=lambda row: hashlib.sha256(names[row].encode()).digest())
        ]
    if len(names) < 2:
        raise UserError(
            "The corpus is a single document, so none can be held out.",
            "Give more text, or split it into several files.",
        )
    train = sorted(set(range(len(names))) - set(held_out))
    return documents.select(train), documents.select(held_out)


def corpus_fingerprint(source: str) -> list:
    """What the documents of `source` depend on: package versions, or the files' sizes and times of change, or the Hub's revision."""
    if source == "docs" or source.startswith("docs:"):
        return documentation_version(tuple(source[5:].split(",")) if source[5:] else DOCUMENTED)
    if source.startswith("hub:"):
        from huggingface_hub import HfApi

        try:
            return [source, HfApi().dataset_info(source[4:].split(":")[0]).sha]
        except Exception:  # whatever the HTTP library of the day raises without a network
            return [source]  # blocks of this name that were packed before may still be used
    path = Path(source)
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [
        [str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns] for f in files if f.is_file()
    ]


def load_blocks(
    source: str,
    tokenizer: PreTrainedTokenizerFast,
    block_size: int,
    streaming: bool | None = None,
    cache: Path | None = None,
) -> Blocks:
    """The blocks of a corpus (see `corpus.load_documents`), from the cache if they have been made before.

    The cache's key is made of the documents' fingerprint, the tokenizer, the block size and this file's format. It is written
    beside and renamed, so that a run that is stopped leaves no half of it.
    """
    if not 8 <= block_size <= tokenizer.model_max_length:
        raise UserError(
            f"A block of {block_size} tokens is not possible.",
            f"Choose from 8 to {tokenizer.model_max_length}.",
        )
    key = json.dumps(
        [
            FORMAT,
            corpus_fingerprint(source),
            tokenizer_fingerprint(tokenizer),
            block_size,
            streaming,
        ]
    )
    fingerprint = hashlib.sha256(key.encode()).hexdigest()[:16]
    folder = (cache or cache_folder()) / "blocks" / fingerprint
    if not folder.is_dir():
        documents = load_documents(source, streaming)
        if isinstance(documents, IterableDataset):
            return _stream(documents, tokenizer, block_size, fingerprint)
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep(folder.parent)
        with tempfile.TemporaryDirectory(prefix=MAKING, dir=folder.parent) as beside:
            splits = zip(("train", "held_out"), split_documents(documents), strict=True)
            packed = {
                name: documents_to_blocks(part, tokenizer, block_size) for name, part in splits
            }
            for name, blocks in packed.items():
                if not len(blocks):
                    raise UserError(
                        f"The {name} part of {source} is shorter than a block of {block_size}.",
                        "Give it more text.",
                    )
                blocks.save_to_disk(Path(beside, "made", name))
            np.save(
                Path(beside, "made", "counts.npy"), count_tokens(packed["train"], len(tokenizer))
            )
            if not folder.is_dir():  # another process may have been quicker
                shutil.move(Path(beside, "made"), folder)
    return Blocks(
        load_from_disk(folder / "train"),
        load_from_disk(folder / "held_out"),
        np.load(folder / "counts.npy"),
        fingerprint,
    )


def count_tokens(blocks: Iterable[dict], vocab_size: int) -> np.ndarray:
    """How often each id occurs: (vocab_size,) int64."""
    counts = np.zeros(vocab_size, np.int64)
    if isinstance(blocks, Dataset):
        blocks = blocks.with_format("numpy").iter(4096)
    for batch in blocks:
        counts += np.bincount(np.asarray(batch["input_ids"]).ravel(), minlength=vocab_size)
    return counts


def _stream(
    documents: IterableDataset,
    tokenizer: PreTrainedTokenizerFast,
    block_size: int,
    fingerprint: str,
) -> Blocks:
    """Blocks made while they are read: nothing is stored, held-out documents are skipped, words are counted on a sample."""
    train = BlockStream(
        documents.filter(lambda name: split_of(name) == "train", input_columns="name"),
        tokenizer,
        block_size,
    )
    counts = count_tokens(itertools.islice(train, STREAM_SAMPLE), len(tokenizer))
    held_out = documents.filter(lambda name: split_of(name) == "held_out", input_columns="name")
    tokens = (
        ids
        for batch in held_out.iter(DOCUMENTS_AT_ONCE)
        for ids in tokenize(batch["text"], tokenizer)
    )
    sample = [
        {"input_ids": block}
        for block in itertools.islice(pack(tokens, tokenizer, block_size), STREAM_HELD_OUT)
    ]
    if not sample:
        raise UserError(
            f"The stream gives no held-out block of {block_size} tokens.", "Give it more text."
        )
    return Blocks(train, Dataset.from_list(sample), counts, fingerprint)


# ------------------------------------------------------------------------------------------------------------- command line
