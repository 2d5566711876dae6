"""Dynamic masking as a pure function of (seed, epoch, example).

    masking = DynamicMasking(tokenizer, counts=blocks.counts)
    batch = masking(input_ids, examples=[17, 4], epoch=0)   # batch.input_ids, batch.labels: (2, L)

So it is the same on every rank, in any order and after every resume. BERT's recipe (Devlin et al.
2019, section 3.1): 15% of the words are predicted; of these 80% are replaced by [MASK], 10% by a
random word, and 10% stay. *Dynamic* (Liu et al. 2019, section 4.1): another choice in each epoch.
*Smoothed* as in the released DistilBERT code: a word that occurs `count` times is chosen with a
chance proportional to count ** -0.7, so that rare words are predicted more often.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from distil_lib.losses import IGNORED

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SAMPLE = 1  # last in the key of the stream that tokens with soft targets are drawn from


def random_stream(seed: int, *key: int) -> np.random.Generator:
    """Random numbers that depend on `seed` and `key` alone; other keys give independent streams."""
    # The key is no part of the entropy: `SeedSequence([1, 2])` and `SeedSequence([1, 2, 0])` agree.
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=key)))


def sample_size(share: float, length: int) -> int:
    """How many of a block's tokens are drawn: the nearest number to `share`, and at least one."""
    return max(round(share * length), 1)


def sample_tokens(
    shape: tuple[int, int], share: float, seed: int, examples: Sequence[int], epochs: Sequence[int]
) -> Tensor:
    """(B, L) bool, True at the drawn tokens: of each block the same number, with equal chances.

    As all blocks are of one length, a mean over these tokens is an unbiased estimate of that over
    all. The draw depends on (seed, epoch, example) alone, and is independent of the masks.

    Args:
        shape: (B, L).
        share: The share of the L tokens that is drawn, between 0 and 1, without replacement.
        seed: Changes every draw.
        examples: (B,), the blocks' numbers in the corpus.
        epochs: (B,).
    """
    sampled = torch.zeros(shape, dtype=torch.bool)
    for row, example, epoch in zip(sampled, examples, epochs, strict=True):
        order = random_stream(seed, int(epoch), int(example), SAMPLE).permutation(shape[1])
        row[order[: sample_size(share, shape[1])]] = True
    return sampled


@dataclass
class MaskedBatch:
    """What masking makes of a batch of blocks."""

    input_ids: Tensor  # (B, L), corrupted
    labels: Tensor  # (B, L), the true id where a word is to be predicted, and -100 elsewhere
    sampled: Tensor | None = None  # (B, L) bool, the tokens drawn for soft targets, if any are


class DynamicMasking:
    """Choose and mask words. Special tokens are never chosen, and never replace a word.

    Args:
        tokenizer: Gives the number of words, the id of [MASK] and the special tokens.
        probability: The share of each block's words that is to be predicted.
        smoothing: The exponent s of the choice, chance ~ count ** -s; 0 treats all words alike.
        seed: Changes every choice.
        counts: (V,), how often each id occurs in the corpus; without it all words are as frequent.
        sample: The share of tokens that is drawn for soft targets (`sample_tokens`); 0 for none.

    Raises:
        ValueError: If a setting has no meaning.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        probability: float = 0.15,
        smoothing: float = 0.7,
        seed: int = 0,
        counts: np.ndarray | None = None,
        sample: float = 0.0,
    ):
        if not 0 < probability < 1:
            raise ValueError(f"probability is {probability}; it must lie between 0 and 1.")
        if not 0 <= smoothing < math.inf:
            raise ValueError(f"smoothing is {smoothing}; it must be 0 or a positive number.")
        if not 0 <= sample <= 1:
            raise ValueError(f"sample is {sample}; it must lie between 0 and 1.")
        vocab_size = len(tokenizer)
        if counts is not None and len(counts) != vocab_size:
            raise ValueError(f"counts has {len(counts)} entries for a vocabulary of {vocab_size}.")
        self.probability, self.seed, self.sample = probability, seed, sample
        self.mask_id = tokenizer.mask_token_id
        # A word that the corpus does not have counts as seen once: 0 ** -s would be infinite.
        frequency = np.ones(vocab_size) if counts is None else np.maximum(counts, 1.0)
        self.weights = frequency**-smoothing
        self.weights[tokenizer.all_special_ids] = 0.0
        self.words = np.flatnonzero(self.weights)  # what a random replacement is drawn from

    def __call__(
        self, input_ids: Tensor, examples: Sequence[int], epoch: int | Sequence[int] = 0
    ) -> MaskedBatch:
        """Mask blocks of ids (B, L), which are left as they are.

        Args:
            input_ids: (B, L).
            examples: (B,), the blocks' numbers in the corpus.
            epoch: One for all, or (B,).
        """
        epochs = np.broadcast_to(epoch, len(examples))
        corrupted, labels = input_ids.clone(), torch.full_like(input_ids, IGNORED)
        rows = (x.numpy() for x in (input_ids, corrupted, labels))  # the same memory
        for ids, shown, true, example, number in zip(*rows, examples, epochs, strict=True):
            chosen, replacement = self._choose(ids, int(example), int(number))
            true[chosen], shown[chosen] = ids[chosen], replacement
        draw: Any = (input_ids.shape, self.sample, self.seed, examples, epochs.tolist())
        return MaskedBatch(corrupted, labels, sample_tokens(*draw) if self.sample else None)

    def _choose(self, ids: np.ndarray, example: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The positions to predict in one block, and the ids to show there."""
        random = random_stream(self.seed, epoch, example)
        weights = self.weights[ids]
        candidates = np.flatnonzero(weights)
        # Round by chance, so that the share is right on average: 62 words x 15% = 9.3 gives 10 in
        # three blocks of ten and 9 in the others.
        number = min(int(self.probability * len(candidates) + random.random()), len(candidates))
        # A weighted draw without replacement: give each word an exponential waiting time whose rate
        # is its weight; the first `number` words to arrive are chosen.
        waiting = random.standard_exponential(len(ids))[candidates] / weights[candidates]
        chosen = np.sort(candidates[np.argsort(waiting, kind="stable")[:number]])
        # Numbers are drawn for every position, chosen or not: what is drawn at a position does not
        # depend on which others were chosen.
        fate = random.random(len(ids))[chosen]
        word = self.words[random.integers(len(self.words), size=len(ids))[chosen]]
        return chosen, np.where(fate < 0.8, self.mask_id, np.where(fate < 0.9, word, ids[chosen]))


@dataclass
class MicroBatch:
    """What goes through the model at once.

    A process that has no sequence left in a step gets one of which nothing is counted, because in
    distributed training every process has to take part in every exchange of gradients.
    """

    input_ids: Tensor  # (B, L), corrupted
    labels: Tensor  # (B, L), as of `MaskedBatch`
    loss_mask: Tensor  # (B, L) bool, the tokens that the losses see: all that are not padding
    examples: Tensor  # (B,), the blocks' numbers in the corpus
    padded: bool = False  # whether there is padding that attention must not look at
    sampled: Tensor | None = None  # (B, L) bool, as of `MaskedBatch`

    @property
    def attention_mask(self) -> Tensor | None:
        """(B, L), or None where there is no padding: attention then takes its fastest form."""
        return self.loss_mask if self.padded else None

    def to(self, device: torch.device) -> "MicroBatch":
        """The same on another device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "MicroBatch":
        """The same in pinned memory, from which copies to a GPU need not wait."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "MicroBatch":
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        changed: dict[str, Any] = {name: change(value) for name, value in tensors.items()}
        return replace(self, **changed)
