"""Documents to blocks of token ids: packed without padding, and, where a corpus streams, with a position to come back to.

    blocks = list(pack(token_lists, tokenizer, block_size=64))          # (64,) ids each: [CLS] 62 words [SEP]
    stream = BlockStream(documents, tokenizer, block_size=64)
    lane = stream.lane(0)
    block, epoch, number = next(lane)
    stream.lane(0, lane.position)                                       # goes on from here

A stream is read in *lanes*: parts that are made of the files' row groups, however many processes there are. The sequences of a
step are taken from the lanes in turn. So a process has to read no other lanes than those of its own sequences, and any number of
processes sees the same curve.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from datasets import IterableDataset
from transformers import PreTrainedTokenizerFast

from distil_lib.common.errors import UserError

MOST_LANES = 64
SHARDS_A_LANE = 8  # parts of the source that make a lane, at least: then no lane is much longer than another
DOCUMENTS_AT_ONCE = 10  # are read and tokenized together; few, because one may be a whole book


def tokenize(texts: list[str], tokenizer: PreTrainedTokenizerFast) -> list[list[int]]:
    """The ids of each text. A document that speaks of "[MASK]" means the word, not the token: it is split like any other."""
    return tokenizer(
        texts, add_special_tokens=False, split_special_tokens=True, return_attention_mask=False, return_token_type_ids=False, verbose=False
    )["input_ids"]


class Packer:
    """Joins documents, with [SEP] between two of them, and cuts them into blocks of `block_size` ids, [CLS] and [SEP] among them.

    rest: ids that fill no block yet.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, block_size: int, rest: Iterable[int] = ()):
        self.first, self.last, self.body = tokenizer.cls_token_id, tokenizer.sep_token_id, block_size - 2
        self.rest = np.asarray(rest, np.int32)

    def __call__(self, tokens: list[int]) -> list[np.ndarray]:
        """The blocks, (block_size,) int32, that one more document fills."""
        ids = np.concatenate([self.rest, np.asarray(tokens, np.int32), [self.last]]).astype(np.int32)
        full = len(ids) // self.body * self.body
        self.rest = ids[full:]
        return [np.concatenate([[self.first], body, [self.last]]).astype(np.int32) for body in ids[:full].reshape(-1, self.body)]


def pack(token_lists: Iterable[list[int]], tokenizer: PreTrainedTokenizerFast, block_size: int) -> Iterator[np.ndarray]:
    """Yield blocks of `block_size` ids, dtype int32. What is left over at the end and fills no block is dropped."""
    packer = Packer(tokenizer, block_size)
    for tokens in token_lists:
        yield from packer(tokens)


class BlockStream:
    """Blocks of documents that are read over the network: nothing is stored.

    documents: a streamed dataset with a `text` column. lanes: into how many parts it is divided, a power of two.
    """

    def __init__(self, documents: IterableDataset, tokenizer: PreTrainedTokenizerFast, block_size: int):
        self.documents, self.tokenizer, self.block_size = documents, tokenizer, block_size
        self.lanes = 1
        while self.lanes < MOST_LANES and 2 * self.lanes * SHARDS_A_LANE <= documents.num_shards:
            self.lanes *= 2

    def lane(self, index: int, position: dict | None = None) -> "Lane":
        return Lane(self, index, position)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """Rows of `input_ids`, a block each, from the lanes in turn; without end."""
        lanes = [self.lane(index) for index in range(self.lanes)]
        while True:
            for lane in lanes:
                yield {"input_ids": next(lane)[0]}


class Lane:
    """An endless row of (block, epoch, number of the block in this lane's epoch), from one part of a stream."""

    def __init__(self, stream: BlockStream, index: int, position: dict | None = None):
        self.stream, self.index = stream, index
        position = position or {"epoch": 0, "number": 0, "documents": None, "rest": [], "read": 0}
        self.epoch = position["epoch"]
        self._open(position["documents"], position["number"], position["rest"])
        for _ in range(position["read"]):
            next(self)

    def _open(self, documents: dict | None, number: int, rest: list[int]) -> None:
        # A new object for every pass: one that a position was loaded into would begin there each time.
        self.documents = self.stream.documents.shard(self.stream.lanes, self.index)
        if documents is not None:
            self.documents.load_state_dict(documents)
        self.reader = self.documents.iter(DOCUMENTS_AT_ONCE)
        self.packer = Packer(self.stream.tokenizer, self.stream.block_size, rest)
        self.number, self.after, self.blocks = number, documents, []
        self._mark()

    def _mark(self) -> None:
        """Remember where the documents that are read next begin."""
        self.start = {"epoch": self.epoch, "number": self.number, "documents": self.after, "rest": self.packer.rest.tolist()}

    def __next__(self) -> tuple[np.ndarray, int, int]:
        while not self.blocks:
            self._mark()
            batch = next(self.reader, None)
            if batch is not None:
                self.after = self.documents.state_dict()
                self.blocks = [b for tokens in tokenize(batch["text"], self.stream.tokenizer) for b in self.packer(tokens)]
            elif self.number == 0:
                raise UserError("A part of the stream does not fill a block.", "Download the corpus: --streaming false.")
            else:
                self.epoch += 1
                self._open(None, 0, [])
        self.number += 1
        return self.blocks.pop(0), self.epoch, self.number - 1

    @property
    def position(self) -> dict:
        """Where the next block lies, in numbers and strings that JSON can hold."""
        return self.start | {"read": self.number - self.start["number"]}
