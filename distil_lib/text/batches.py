"""Which blocks make the n-th optimizer step: a pure function of (seed, step), whatever the hardware.

    steps = StepBatches(blocks.train, masking, batch_size=32, micro_batch_size=16, seed=0)
    for micro_batch in steps[100]:                             # this process's share of step 100
        micro_batch.input_ids, micro_batch.labels

The corpus is read in a new random order each epoch, one epoch after the other. Step n takes the sequences n * batch_size to
(n + 1) * batch_size of that endless row, and masks each by its epoch and number. Processes and micro-batches only share them
out. So one process and eight see the same curve, and to resume, the number of the step is all one has to know.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import IterableDataset as TorchIterableDataset

from distil_lib.masking import IGNORED, DynamicMasking, random_stream
from distil_lib.text.packing import BlockStream


@dataclass
class MicroBatch:
    """What goes through the model at once.

    input_ids, labels: (B, L), the corrupted ids and what stood there (-100 where nothing is to be predicted).
    counted: (B, L) bool, the tokens that the losses see: all that are not padding.
    examples: (B,) the blocks' numbers in the corpus. padded: whether there is padding that attention must not look at.
    sampled: (B, L) bool, a random sample of the tokens (see `masking.sample_tokens`); None if none was drawn.

    A process that has no sequence left in a step gets one of which nothing is counted, because in distributed training every
    process has to take part in every exchange of gradients.
    """

    input_ids: Tensor
    labels: Tensor
    counted: Tensor
    examples: Tensor
    padded: bool = False
    sampled: Tensor | None = None

    @property
    def attention_mask(self) -> Tensor | None:
        """(B, L) for the models, or None where there is no padding: attention then takes its fastest form."""
        return self.counted if self.padded else None

    def to(self, device: torch.device) -> "MicroBatch":
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "MicroBatch":
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "MicroBatch":
        return replace(self, **{k: change(v) for k, v in vars(self).items() if isinstance(v, Tensor)})


@lru_cache(maxsize=2)
def epoch_order(examples: int, seed: int, epoch: int) -> np.ndarray:
    """The order in which an epoch visits the examples: (examples,) a permutation."""
    return random_stream(seed, epoch).permutation(examples)


def step_examples(step: int, batch_size: int, examples: int, seed: int, total: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(numbers, epochs) of the sequences of one step, (batch_size,) each; fewer in the last step if `total` sequences end in it."""
    places = np.arange(step * batch_size, min((step + 1) * batch_size, total if total is not None else (step + 1) * batch_size))
    epochs, offsets = places // examples, places % examples
    numbers = np.empty(len(places), np.int64)
    for epoch in np.unique(epochs):
        numbers[epochs == epoch] = epoch_order(examples, seed, int(epoch))[offsets[epochs == epoch]]
    return numbers, epochs


def share_out(count: int, micro_batch_size: int, rank: int, world: int) -> list[np.ndarray]:
    """The places (0 to count - 1) of a step that one process computes, a micro-batch each.

    Every process gets the same number of micro-batches, and each micro-batch at most `micro_batch_size` places, as even as
    possible; some may be empty when `count` is small.
    """
    micro_batches = -(-count // (micro_batch_size * world))
    return np.array_split(np.arange(count), micro_batches * world)[rank * micro_batches : (rank + 1) * micro_batches]


def corrupt(blocks: np.ndarray, numbers: np.ndarray, epochs: np.ndarray, masking: DynamicMasking, empty: bool = False) -> MicroBatch:
    """Blocks (B, L), masked by their numbers and epochs, (B,) each; `empty`: nothing of them is to be counted."""
    input_ids = torch.from_numpy(blocks.astype(np.int64))
    batch = masking(input_ids, numbers, epochs)
    counted = torch.full_like(input_ids, not empty, dtype=torch.bool)
    if empty:
        batch.labels.fill_(IGNORED)
    return MicroBatch(batch.input_ids, batch.labels, counted, torch.from_numpy(numbers), sampled=batch.sampled)


class StepBatches(TorchDataset):
    """`steps[n]`: the list of `MicroBatch`es that this process computes in step n. Works under any `DataLoader(batch_size=None)`."""

    def __init__(
        self,
        blocks: Dataset,
        masking: DynamicMasking,
        batch_size: int,
        micro_batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        total: int | None = None,
    ):
        self.blocks, self.masking = blocks.with_format("numpy"), masking
        self.batch_size, self.micro_batch_size, self.seed = batch_size, micro_batch_size, seed
        self.rank, self.world, self.total = rank, world, total

    def __getitem__(self, step: int) -> list[MicroBatch]:
        numbers, epochs = step_examples(step, self.batch_size, len(self.blocks), self.seed, self.total)
        shares = share_out(len(numbers), self.micro_batch_size, self.rank, self.world)
        return [self._micro_batch(numbers[share], epochs[share]) for share in shares]

    def _micro_batch(self, numbers: np.ndarray, epochs: np.ndarray) -> MicroBatch:
        empty = len(numbers) == 0
        if empty:
            numbers, epochs = np.zeros(1, np.int64), np.zeros(1, np.int64)
        return corrupt(self.blocks[numbers]["input_ids"], numbers, epochs, self.masking, empty)


class StreamedStep(list):
    """The `MicroBatch`es of a step, and in `.positions` where each lane of the stream stands after it (see `packing.Lane`)."""

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

    def __iter__(self) -> Iterator[StreamedStep]:
        number_of_lanes = self.stream.lanes
        needed = [lane for lane in range(number_of_lanes) if (lane - self.rank) % math.gcd(number_of_lanes, self.world) == 0]
        lanes = {lane: self.stream.lane(lane, self.positions.get(str(lane))) for lane in needed}
        for step in itertools.count(self.start):
            rows = []
            for place in range(step * self.batch_size, (step + 1) * self.batch_size):
                if (index := place % number_of_lanes) in lanes:
                    block, epoch, number = next(lanes[index])
                    if place % self.world == self.rank:
                        rows.append((block, number * number_of_lanes + index, epoch))
            micro_batches = -(-self.batch_size // (self.micro_batch_size * self.world))
            made = StreamedStep(self._micro_batch([rows[i] for i in part]) for part in np.array_split(np.arange(len(rows)), micro_batches))
            made.positions = {str(index): lane.position for index, lane in lanes.items()}
            yield made

    def _micro_batch(self, rows: list[tuple[np.ndarray, int, int]]) -> MicroBatch:
        blocks, numbers, epochs = zip(*rows, strict=True) if rows else ([np.zeros(self.stream.block_size)], [0], [0])
        return corrupt(np.asarray(blocks), np.asarray(numbers), np.asarray(epochs), self.masking, empty=not rows)
