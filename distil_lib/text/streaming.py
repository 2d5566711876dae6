"""A corpus that is read over the network while it is trained on, with positions to resume from."""

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
from datasets import IterableDataset
from torch.utils.data import IterableDataset as TorchIterableDataset
from transformers import PreTrainedTokenizerFast

from distil_lib.errors import UserError
from distil_lib.masking import DynamicMasking, MicroBatch
from distil_lib.text.batches import mask_blocks
from distil_lib.text.packing import Packer, tokenize

MAX_STREAM_SHARDS = 64
FILES_PER_SHARD = 8  # parts of the source in a shard, at least: then no shard is much longer
DOCUMENTS_AT_ONCE = 10  # are read and tokenized together; few, because one may be a whole book


class BlockStream:
    """Blocks of documents that are read over the network: nothing is stored.

    A stream is read in shards, made of the files' row groups, however many processes there are.

    Args:
        parts: streamed datasets with a `text` in every row, several of a mixture.
        weights: the share of the blocks that comes from each part.
    """

    def __init__(
        self,
        parts: Sequence[IterableDataset],
        tokenizer: PreTrainedTokenizerFast,
        block_size: int,
        weights: Sequence[float] = (1.0,),
    ):
        self.parts, self.weights = parts, weights
        self.tokenizer, self.block_size = tokenizer, block_size
        most = max(min(part.num_shards for part in parts) // FILES_PER_SHARD, 1)
        self.num_shards = min(2 ** int(math.log2(most)), MAX_STREAM_SHARDS)

    def shard(self, index: int, state: dict | None = None) -> "StreamShard | MixtureShard":
        """One part of the stream, from its start or from where `state_dict()` was taken."""
        if len(self.parts) == 1:
            return StreamShard(self, self.parts[0], index, state)
        return MixtureShard(self, index, state)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """Rows of `input_ids`, a block each, from the shards in turn; without end."""
        shards = [self.shard(index) for index in range(self.num_shards)]
        while True:
            for shard in shards:
                yield {"input_ids": next(shard)[0]}


class StreamShard:
    """An endless row of (block, epoch, number of the block in this shard's epoch)."""

    def __init__(
        self, stream: BlockStream, source: IterableDataset, index: int, state: dict | None = None
    ):
        self.stream, self.source, self.index = stream, source, index
        state = state or {"epoch": 0, "number": 0, "documents": None, "rest": [], "read": 0}
        self.epoch = state["epoch"]
        self._open(state["documents"], state["number"], state["rest"])
        for _ in range(state["read"]):
            next(self)

    def _open(self, documents: dict | None, number: int, rest: list[int]) -> None:
        # A new object for every pass: one that a state was loaded into would begin there each time.
        self.documents = self.source.shard(self.stream.num_shards, self.index)
        if documents is not None:
            self.documents.load_state_dict(documents)
        self.reader = self.documents.iter(DOCUMENTS_AT_ONCE)
        self.packer = Packer(self.stream.tokenizer, self.stream.block_size, rest)
        self.number, self.after = number, documents
        self.blocks: list[np.ndarray] = []
        self._mark()

    def _mark(self) -> None:
        """Remember where the documents that are read next begin."""
        self.start = {
            "epoch": self.epoch,
            "number": self.number,
            "documents": self.after,
            "rest": self.packer.rest.tolist(),
        }

    def __next__(self) -> tuple[np.ndarray, int, int]:
        while not self.blocks:
            self._mark()
            batch = next(self.reader, None)
            if batch is not None:
                self.after = self.documents.state_dict()
                token_lists = tokenize(batch["text"], self.stream.tokenizer)
                self.blocks = [block for tokens in token_lists for block in self.packer(tokens)]
            elif self.number == 0:
                raise UserError(
                    "A part of the stream does not fill a block.",
                    "Store the corpus instead of streaming it.",
                    setting="streaming",
                )
            else:
                self.epoch += 1
                self._open(None, 0, [])
        self.number += 1
        return self.blocks.pop(0), self.epoch, self.number - 1

    def state_dict(self) -> dict:
        """Where the next block lies, in numbers and strings that JSON can hold."""
        return self.start | {"read": self.number - self.start["number"]}


class MixtureShard:
    """The same of a mixture: each block from the part that is furthest behind its share.

    Each part has epochs of its own; the numbers of its blocks are apart from the others'.
    """

    def __init__(self, stream: BlockStream, index: int, state: dict | None = None):
        self.weights = stream.weights
        states = state["parts"] if state else [None] * len(stream.parts)
        self.shards = [
            StreamShard(stream, part, index, each)
            for part, each in zip(stream.parts, states, strict=True)
        ]
        self.taken = list(state["taken"]) if state else [0] * len(stream.parts)

    def __next__(self) -> tuple[np.ndarray, int, int]:
        due = [(n + 1) / weight for n, weight in zip(self.taken, self.weights, strict=True)]
        part = due.index(min(due))
        block, epoch, number = next(self.shards[part])
        self.taken[part] += 1
        return block, epoch, number * len(self.shards) + part

    def state_dict(self) -> dict:
        """Where each part stands, and how many blocks it has given."""
        return {"parts": [shard.state_dict() for shard in self.shards], "taken": list(self.taken)}


class StepWithState(list):
    """The `MicroBatch`es of a step, and in `.state` where each shard stands after it."""

    state: dict[str, dict]


class StreamBatches(TorchIterableDataset):
    """`StepBatches` of a corpus that streams.

    Sequence n of the run is the next block of shard n modulo their number. Process r computes the
    sequences r, r + world, ... Where the number of processes divides that of the shards, it reads
    its own shards only.

    Args:
        state: where a stopped run stood (`StepWithState.state`); nothing before is read again.
    """

    def __init__(
        self,
        stream: BlockStream,
        masking: DynamicMasking,
        batch_size: int,
        micro_batch_size: int,
        rank: int = 0,
        world: int = 1,
        start: int = 0,
        state: dict[str, dict] | None = None,
    ):
        self.stream, self.masking = stream, masking
        self.batch_size, self.micro_batch_size = batch_size, micro_batch_size
        self.rank, self.world, self.start, self.state = rank, world, start, state or {}

    def __iter__(self) -> Iterator[StepWithState]:
        num_shards = self.stream.num_shards
        apart = math.gcd(num_shards, self.world)
        shards = {
            index: self.stream.shard(index, self.state.get(str(index)))
            for index in range(self.rank % apart, num_shards, apart)
        }
        for step in itertools.count(self.start):
            rows = []
            for place in range(step * self.batch_size, (step + 1) * self.batch_size):
                if (index := place % num_shards) in shards:
                    block, epoch, number = next(shards[index])
                    if place % self.world == self.rank:
                        rows.append((block, number * num_shards + index, epoch))
            micro_batches = -(-self.batch_size // (self.micro_batch_size * self.world))
            made = StepWithState(
                self._micro_batch([rows[i] for i in part])
                for part in np.array_split(np.arange(len(rows)), micro_batches)
            )
            made.state = {str(index): shard.state_dict() for index, shard in shards.items()}
            yield made

    def _micro_batch(self, rows: list[tuple[np.ndarray, int, int]]) -> MicroBatch:
        kept = rows or [(np.zeros(self.stream.block_size), 0, 0)]  # a block that does not count
        blocks, numbers, epochs = map(np.asarray, zip(*kept, strict=True))
        return mask_blocks(blocks, numbers, epochs, self.masking, empty=not rows)
