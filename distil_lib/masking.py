"""Dynamic masking as a pure function of (seed, epoch, example): the same on every rank, in any order and after every resume.

    masking = DynamicMasking(tokenizer, counts=blocks.counts)
    batch = masking(input_ids, examples=[17, 4], epoch=0)       # input_ids (2, L) -> batch.input_ids, batch.labels (2, L)

BERT's recipe (Devlin et al. 2019, section 3.1): 15% of the words are predicted; of these 80% are replaced by [MASK], 10% by
a random word, and 10% stay. *Dynamic* (Liu et al. 2019, section 4.1): another choice in each epoch. *Smoothed* as in the released
DistilBERT code: a word that occurs `count` times is chosen with a chance proportional to count ** -0.7, so that rare words get
their turn.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from distil_lib.losses import IGNORED


def random_stream(seed: int, *key: int) -> np.random.Generator:
    """Random numbers that depend on `seed` and `key` alone; another key gives a stream that is independent of the first.

    The key goes into `spawn_key`, not into the entropy: `SeedSequence([1, 2])` and `SeedSequence([1, 2, 0])` are the same.
    """
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=key)))


SAMPLE = 1  # last in the key of the stream that tokens with soft targets are drawn from


def sample_size(share: float, length: int) -> int:
    """How many tokens of a block of `length` are drawn: the nearest number to `share`, and at least one."""
    return max(round(share * length), 1)


def sample_tokens(
    shape: tuple[int, int], share: float, seed: int, examples: Sequence[int], epochs: Sequence[int]
) -> Tensor:
    """(B, L) bool: the same number of tokens of each block, without replacement, every token with the same chance.

    As all blocks are of one length, a mean over these tokens is an unbiased estimate of that over all. Like the masks it depends
    on (seed, epoch, example) alone, and it is independent of them.
    """
    sampled = torch.zeros(shape, dtype=torch.bool)
    for row, example, epoch in zip(sampled, examples, epochs, strict=True):
        row[
            random_stream(seed, int(epoch), int(example), SAMPLE).permutation(shape[1])[
                : sample_size(share, shape[1])
            ]
        ] = True
    return sampled


@dataclass
class MaskedBatch:
    """`input_ids` (B, L) with words hidden; `labels` (B, L): the true id where a word is to be predicted, -100 elsewhere; `sampled`
    (B, L) bool: tokens drawn for soft targets, or None."""

    input_ids: Tensor
    labels: Tensor
    sampled: Tensor | None = None


class DynamicMasking:
    """Choose and hide words.

    probability: share of the words of each block that is to be predicted.
    smoothing: exponent s of the choice, chance ~ count ** -s; 0 gives every word the same chance.
    counts: (V,) how often each id occurs in the corpus. Without it every word counts as equally frequent.
    seed: changes every choice.
    sample: share of the tokens of each block that is drawn besides, for soft targets (`sample_tokens`); 0 for none.

    Special tokens are never chosen, and none is ever put in place of a word.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        probability: float = 0.15,
        smoothing: float = 0.7,
        seed: int = 0,
        counts: np.ndarray | None = None,
        sample: float = 0.0,
    ):
        if not 0 < probability < 1:
            raise ValueError(f"probability is {probability}; it must lie between 0 and 1.")
        if not 0 <= sample <= 1:
            raise ValueError(f"sample is {sample}; it must lie between 0 and 1.")
        vocab_size = len(tokenizer)
        if counts is not None and len(counts) != vocab_size:
            raise ValueError(f"counts has {len(counts)} entries for a vocabulary of {vocab_size}.")
        self.probability, self.seed, self.mask_id, self.sample = (
            probability,
            seed,
            tokenizer.mask_token_id,
            sample,
        )
        frequency = (
            np.ones(vocab_size)
            if counts is None
            else np.maximum(np.asarray(counts, np.float64), 1.0)
        )
        self.weights = frequency**-smoothing
        self.weights[tokenizer.all_special_ids] = 0.0
        self.words = np.flatnonzero(self.weights)  # what a random replacement is drawn from

    def __call__(
        self, input_ids: Tensor, examples: Sequence[int], epoch: int | Sequence[int] = 0
    ) -> MaskedBatch:
        """Mask blocks.

        input_ids: (B, L) ids. examples: (B,) the blocks' numbers in the corpus. epoch: one for all, or (B,).
        """
        epochs = np.broadcast_to(epoch, len(examples))
        corrupted, labels = input_ids.clone(), torch.full_like(input_ids, IGNORED)
        for row, (example, number) in enumerate(zip(examples, epochs, strict=True)):
            ids = input_ids[row].numpy()
            chosen, replacement = self._choose(ids, int(example), int(number))
            labels[row, chosen] = input_ids[row, chosen]
            corrupted[row, chosen] = torch.from_numpy(replacement).to(input_ids.dtype)
        sampled = (
            sample_tokens(input_ids.shape, self.sample, self.seed, examples, epochs)
            if self.sample
            else None
        )
        return MaskedBatch(corrupted, labels, sampled)

    def _choose(self, ids: np.ndarray, example: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The positions to predict in one block, and the ids to show there."""
        random = random_stream(self.seed, epoch, example)
        weights = self.weights[ids]
        candidates = np.flatnonzero(weights)
        # The expected number need not be whole: round up by chance, so that the share is right on average.
        number = min(int(self.probability * len(candidates) + random.random()), len(candidates))
        # The `number` smallest of independent exponential waiting times with these rates are a weighted draw without replacement.
        waiting = random.standard_exponential(len(ids))[candidates] / weights[candidates]
        chosen = np.sort(candidates[np.argsort(waiting, kind="stable")[:number]])
        fate = random.random(len(ids))[chosen]
        word = self.words[random.integers(len(self.words), size=len(ids))[chosen]]
        return chosen, np.where(fate < 0.8, self.mask_id, np.where(fate < 0.9, word, ids[chosen]))


@dataclass
class MicroBatch:
    """What goes through the model at once.

    input_ids, labels: (B, L), the corrupted ids and what stood there (-100 where nothing is to be predicted).
    loss_mask: (B, L) bool, the tokens that the losses see: all that are not padding.
    examples: (B,) the blocks' numbers in the corpus. padded: whether there is padding that attention must not look at.
    sampled: (B, L) bool, a random sample of the tokens (see `masking.sample_tokens`); None if none was drawn.

    A process that has no sequence left in a step gets one of which nothing is counted, because in distributed training every
    process has to take part in every exchange of gradients.
    """

    input_ids: Tensor
    labels: Tensor
    loss_mask: Tensor
    examples: Tensor
    padded: bool = False
    sampled: Tensor | None = None

    @property
    def attention_mask(self) -> Tensor | None:
        """(B, L) for the models, or None where there is no padding: attention then takes its fastest form."""
        return self.loss_mask if self.padded else None

    def to(self, device: torch.device) -> "MicroBatch":
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "MicroBatch":
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "MicroBatch":
        return replace(
            self, **{k: change(v) for k, v in vars(self).items() if isinstance(v, Tensor)}
        )
