"""Which blocks make the n-th optimizer step: a pure function of (seed, step) on any hardware.

    steps = StepBatches(blocks.train, masking, batch_size=32, micro_batch_size=16, seed=0)
    for micro_batch in steps[100]:                             # this process's share of step 100
        micro_batch.input_ids, micro_batch.labels

The corpus is read in a new random order each epoch, one epoch after the other. Step n takes the
sequences n * batch_size to (n + 1) * batch_size of that endless row, and masks each by its epoch
and number. Processes and micro-batches only share them out. So one process and eight see the same
curve, and to resume, the number of the step is all one has to know.
"""

from functools import lru_cache

import numpy as np
import torch
from datasets import Dataset
from torch.utils.data import Dataset as TorchDataset

from distil_lib.losses import IGNORED
from distil_lib.masking import DynamicMasking, MicroBatch, random_stream


@lru_cache(maxsize=2)
def epoch_order(examples: int, seed: int, epoch: int) -> np.ndarray:
    """The order in which an epoch visits the examples: (examples,) a permutation."""
    return random_stream(seed, epoch).permutation(examples)


def sequences_of_step(
    step: int, batch_size: int, examples: int, seed: int, total: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(numbers, epochs) of the sequences of one step, (batch_size,) each.

    They are fewer in the last step if `total` sequences end in it.
    """
    end = (step + 1) * batch_size
    places = np.arange(step * batch_size, end if total is None else min(end, total))
    epochs, offsets = places // examples, places % examples
    numbers = np.empty(len(places), np.int64)
    for epoch in np.unique(epochs):
        numbers[epochs == epoch] = epoch_order(examples, seed, int(epoch))[offsets[epochs == epoch]]
    return numbers, epochs


def split_into_micro_batches(
    count: int, micro_batch_size: int, rank: int, world: int
) -> list[np.ndarray]:
    """The places (0 to count - 1) of a step that one process computes, a micro-batch each.

    Every process gets the same number of micro-batches, and each micro-batch at most
    `micro_batch_size` places, as even as possible; some may be empty when `count` is small.
    """
    micro_batches = -(-count // (micro_batch_size * world))
    return np.array_split(np.arange(count), micro_batches * world)[
        rank * micro_batches : (rank + 1) * micro_batches
    ]


def mask_blocks(
    blocks: np.ndarray,
    numbers: np.ndarray,
    epochs: np.ndarray,
    masking: DynamicMasking,
    empty: bool = False,
) -> MicroBatch:
    """Blocks (B, L), masked by their numbers and epochs, (B,) each.

    `empty`: nothing of them is to be counted.
    """
    input_ids = torch.from_numpy(blocks.astype(np.int64))
    batch = masking(input_ids, numbers.tolist(), epochs.tolist())
    counted = torch.full_like(input_ids, not empty, dtype=torch.bool)
    if empty:
        batch.labels.fill_(IGNORED)
    return MicroBatch(
        batch.input_ids, batch.labels, counted, torch.from_numpy(numbers), sampled=batch.sampled
    )


class StepBatches(TorchDataset):
    """`steps[n]`: the micro-batches that this process computes in step n.

    Works under any `DataLoader(batch_size=None)`.
    """

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
        numbers, epochs = sequences_of_step(
            step, self.batch_size, len(self.blocks), self.seed, self.total
        )
        shares = split_into_micro_batches(
            len(numbers), self.micro_batch_size, self.rank, self.world
        )
        return [self._micro_batch(numbers[share], epochs[share]) for share in shares]

    def _micro_batch(self, numbers: np.ndarray, epochs: np.ndarray) -> MicroBatch:
        empty = len(numbers) == 0
        if empty:
            numbers, epochs = np.zeros(1, np.int64), np.zeros(1, np.int64)
        return mask_blocks(self.blocks[numbers]["input_ids"], numbers, epochs, self.masking, empty)
