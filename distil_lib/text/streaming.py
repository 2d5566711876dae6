"""A corpus that is read over the network while it is trained on, with positions to resume from."""

import itertools
import math
from collections.abc import Iterator

import numpy as np
from datasets import IterableDataset
from torch.utils.data import IterableDataset as TorchIterableDataset
from transformers import PreTrainedTokenizerFast

from distil_lib.errors import UserError
from distil_lib.masking import DynamicMasking, MicroBatch
from distil_lib.text.batches import mask_blocks
from distil_lib.text.packing import DOCUMENTS_AT_ONCE, Packer, tokenize

MAX_STREAM_SHARDS = 64


FILES_PER_SHARD = (
    8  # parts of the source that make a lane, at least: then no lane is much longer than another
)


class BlockStream:
    """Blocks of documents that are read over the network: nothing is stored.

    documents: a streamed dataset with a `text` column. lanes: into how many parts it is divided, a power of two.
    """

    def __init__(
        self, documents: IterableDataset, tokenizer: PreTrainedTokenizerFast, block_size: int
    ):
        self.documents, self.tokenizer, self.block_size = documents, tokenizer, block_size
        self.lanes = 1
        while (
            self.lanes < MAX_STREAM_SHARDS
            and 2 * self.lanes * FILES_PER_SHARD <= documents.num_shards
        ):
            self.lanes *= 2

    def lane(self, index: int, position: dict | None = None) -> "StreamShard":
        return StreamShard(self, index, position)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """Rows of `input_ids`, a block each, from the lanes in turn; without end."""
        lanes = [self.lane(index) for index in range(self.lanes)]
        while True:
            for lane in lanes:
                yield {"input_ids": next(lane)[0]}


class StreamShard:
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
                self.blocks = [
                    b
                    for tokens in tokenize(batch["text"], self.stream.tokenizer)
                    for b in self.packer(tokens)
                ]
            elif self.number == 0:
                raise UserError(
                    "A part of the stream does not fill a block.",
                    "Download the corpus: --streaming false.",
                )
            else:
                self.epoch += 1
                self._open(None, 0, [])
        self.number += 1
        return self.blocks.pop(0), self.epoch, self.number - 1

    @property
    def position(self) -> dict:
        """Where the next block lies, in numbers and strings that JSON can hold."""
        return self.start | {"read": self.number - self.start["number"]}


class StepWithState(list):
    """The `MicroBatch`es of a step, and in `.positions` where each lane of the stream stands after it (see `packing.StreamShard`)."""

    positions: dict[str, dict]


class StreamBatches(TorchIterableDataset):
    """The same for a corpus that streams: sequence n of the run is the next block of lane n modulo the number of lanes.

    positions: where a stopped run stood; nothing before is read again. Process r computes the sequences r, r + world, ... Where
    the number of processes divides that of the lanes, it reads its own lanes only.
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
        positions: dict[str, dict] | None = None,
    ):
        self.stream, self.masking = stream, masking
        self.batch_size, self.micro_batch_size = batch_size, micro_batch_size
        self.rank, self.world, self.start, self.positions = rank, world, start, positions or {}

    def __iter__(self) -> Iterator[StepWithState]:
        number_of_lanes = self.stream.lanes
        needed = [
            lane
            for lane in range(number_of_lanes)
            if (lane - self.rank) % math.gcd(number_of_lanes, self.world) == 0
        ]
        lanes = {lane: self.stream.lane(lane, self.positions.get(str(lane))) for lane in needed}
        for step in itertools.count(self.start):
            rows = []
            for place in range(step * self.batch_size, (step + 1) * self.batch_size):
                if (index := place % number_of_lanes) in lanes:
                    block, epoch, number = next(lanes[index])
                    if place % self.world == self.rank:
                        rows.append((block, number * number_of_lanes + index, epoch))
            micro_batches = -(-self.batch_size // (self.micro_batch_size * self.world))
            made = StepWithState(
                self._micro_batch([rows[i] for i in part])
                for part in np.array_split(np.arange(len(rows)), micro_batches)
            )
            made.positions = {str(index): lane.position for index, lane in lanes.items()}
            yield made

    def _micro_batch(self, rows: list[tuple[np.ndarray, int, int]]) -> MicroBatch:
        blocks, numbers, epochs = (
            zip(*rows, strict=True) if rows else ([np.zeros(self.stream.block_size)], [0], [0])
        )
        return mask_blocks(
            np.asarray(blocks),
            np.asarray(numbers),
            np.asarray(epochs),
            self.masking,
            empty=not rows,
        )
