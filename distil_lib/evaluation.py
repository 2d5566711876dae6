"""Held-out figures: how well a model predicts masked tokens, and how close it is to its teacher.

    batches = held_out_batches(blocks.held_out, tokenizer, size=96, batch_size=32)
    figures = evaluate_masked_lm(student, batches, teacher)
    figures["accuracy"], figures["kl"]

Every figure is a mean over all masked tokens of the batches (the cosine: over all tokens), and the
same tokens are masked in every evaluation.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from distil_lib.losses import IGNORED, cosine_loss, mlm_loss, soft_target_loss
from distil_lib.masking import DynamicMasking, MicroBatch

EVALUATION_EPOCH = 2**31 - 1  # no training reaches it: held-out masks are never those of training
SUMS = ("mlm_loss", "accuracy", "kl", "agreement", "cosine", "masked", "visible")


def held_out_batches(
    blocks: Any,
    tokenizer: PreTrainedTokenizerBase,
    size: int,
    batch_size: int,
    rank: int = 0,
    world: int = 1,
) -> Iterable[MicroBatch]:
    """The first held-out blocks in fixed order, masked plainly (15%, every word alike).

    Args:
        blocks: A `datasets.Dataset` with the column input_ids, L ids a row.
        tokenizer: The one that made the ids.
        size: How many blocks at most.
        batch_size: Blocks in a micro-batch.
        rank: This process, of `world`: each gets every world-th batch.
        world: How many processes share the blocks.
    """
    masking = DynamicMasking(tokenizer, smoothing=0.0, seed=0)
    blocks = blocks.select(range(min(size, len(blocks)))).with_format("numpy")
    for start in range(rank * batch_size, len(blocks), world * batch_size):
        numbers = list(range(start, min(start + batch_size, len(blocks))))
        input_ids = torch.from_numpy(blocks[numbers]["input_ids"]).long()
        batch = masking(input_ids, numbers, EVALUATION_EPOCH)
        everything = torch.ones_like(input_ids, dtype=torch.bool)
        yield MicroBatch(batch.input_ids, batch.labels, everything, torch.tensor(numbers))


@torch.no_grad()
def masked_lm_sums(
    model: nn.Module, batches: Iterable[MicroBatch], teacher: nn.Module | None, device: torch.device
) -> torch.Tensor:
    """Sums over tokens, `SUMS` (7,) in float64: add them over processes, then call `to_figures`.

    Args:
        model: A model with `Student`'s interface; its mode is left as it was.
        batches: Micro-batches without padding.
        teacher: A model to compare it with, or None.
        device: Where the models are.
    """
    total = torch.zeros(len(SUMS), dtype=torch.float64)
    was_training = model.training
    model.eval()
    for batch in batches:
        batch = batch.to(device)
        masked = batch.labels != IGNORED
        labels = batch.labels[masked]
        out = model(batch.input_ids, None, masked)
        choice = out.logits.argmax(-1)
        tokens = batch.input_ids.numel()
        kl = agreement = cosine = torch.zeros(())
        if teacher is not None:
            reference = teacher(batch.input_ids, None, masked)
            kl = soft_target_loss(out.logits, reference.logits, temperature=1.0, reduction="sum")
            agreement = (choice == reference.logits.argmax(-1)).sum()
            states = (out.last_hidden_state, reference.last_hidden_state)
            cosine = tokens - cosine_loss(*states, reduction="sum")  # which sums 1 - cos
        loss, right = mlm_loss(out.logits, labels, "sum"), (choice == labels).sum()
        sums = (loss, right, kl, agreement, cosine, len(labels), tokens)
        total += torch.tensor([float(x) for x in sums], dtype=torch.float64)
    model.train(was_training)
    return total


def to_figures(sums: torch.Tensor, with_teacher: bool) -> dict[str, float]:
    """Means from the sums (7,) of `masked_lm_sums`.

    Returns:
        `mlm_loss` (nats) and `accuracy`; with a teacher also `kl` (nats, T = 1), `agreement` (the
        share of equal first choices) and `cosine`. Where no token was masked they are NaN.
    """
    named = dict(zip(SUMS, sums.tolist(), strict=True))
    masked, visible = named["masked"] or math.nan, named["visible"] or math.nan
    names = ("mlm_loss", "accuracy", "kl", "agreement") if with_teacher else SUMS[:2]
    figures = {name: named[name] / masked for name in names}
    return figures | ({"cosine": named["cosine"] / visible} if with_teacher else {})


def evaluate_masked_lm(
    model: nn.Module,
    batches: Iterable[MicroBatch],
    teacher: nn.Module | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """The held-out figures of a model, in one process; see `masked_lm_sums` and `to_figures`."""
    sums = masked_lm_sums(model, batches, teacher, torch.device(device))
    return to_figures(sums, teacher is not None)
