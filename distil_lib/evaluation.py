"""Held-out figures: how well a model fills blanks, and how close it is to its teacher.

    figures = evaluate_masked_lm(student, held_out_batches, teacher)
    figures["accuracy"], figures["kl"]

Every figure is a mean over all hidden words (the cosine: over all tokens) of the batches, never a mean of means, and the words that
are hidden are the same in every evaluation.
"""

import math
from collections.abc import Iterable

import torch
from torch import nn

from distil_lib.losses import IGNORED, cosine_loss, mlm_loss, soft_target_loss
from distil_lib.masking import DynamicMasking, MicroBatch

EVALUATION_EPOCH = (
    2**31 - 1
)  # an epoch no training reaches, so that held-out masks are never those of training
SUMS = ("mlm_loss", "accuracy", "kl", "agreement", "cosine", "masked", "visible")


def held_out_batches(
    blocks, tokenizer, size: int, batch_size: int, rank: int = 0, world: int = 1
) -> Iterable[MicroBatch]:
    """The first `size` held-out blocks in fixed order, masked plainly (15%, every word alike), as this process's micro-batches."""
    masking = DynamicMasking(tokenizer, smoothing=0.0, seed=0)
    blocks = blocks.select(range(min(size, len(blocks)))).with_format("numpy")
    for start in range(rank * batch_size, len(blocks), world * batch_size):
        numbers = list(range(start, min(start + batch_size, len(blocks))))
        input_ids = torch.from_numpy(blocks[numbers]["input_ids"]).long()
        batch = masking(input_ids, numbers, EVALUATION_EPOCH)
        yield MicroBatch(
            batch.input_ids,
            batch.labels,
            torch.ones_like(input_ids, dtype=torch.bool),
            torch.tensor(numbers),
        )


@torch.no_grad()
def masked_lm_sums(
    model: nn.Module, batches: Iterable[MicroBatch], teacher: nn.Module | None, device: torch.device
) -> torch.Tensor:
    """(7,) float64 sums over batches, in the order of `SUMS`: add them over processes, then `to_figures`."""
    total = torch.zeros(len(SUMS), dtype=torch.float64)
    was_training = model.training
    model.eval()
    for batch in batches:
        batch = batch.to(device)
        hidden = batch.labels != IGNORED
        labels = batch.labels[hidden]
        out = model(batch.input_ids, None, hidden)
        choice = out.logits.argmax(-1)
        sums = [
            mlm_loss(out.logits, labels, "sum"),
            (choice == labels).sum(),
            0.0,
            0.0,
            0.0,
            len(labels),
            batch.input_ids.numel(),
        ]
        if teacher is not None:
            reference = teacher(batch.input_ids, None, hidden)
            sums[2] = soft_target_loss(
                out.logits, reference.logits, temperature=1.0, reduction="sum"
            )
            sums[3] = (choice == reference.logits.argmax(-1)).sum()
            sums[4] = sums[6] - cosine_loss(
                out.last_hidden_state, reference.last_hidden_state, reduction="sum"
            )
        total += torch.tensor([float(x) for x in sums], dtype=torch.float64)
    model.train(was_training)
    return total


def to_figures(sums: torch.Tensor, with_teacher: bool) -> dict[str, float]:
    """Means: `mlm_loss` (nats), `accuracy`; with a teacher `kl` (nats, T = 1), `agreement` (share of equal first choices), `cosine`."""
    named = dict(zip(SUMS, sums.tolist(), strict=True))
    words, tokens = (
        named[name] or math.nan for name in ("masked", "visible")
    )  # no word hidden: no figure, and no crash
    figures = {name: named[name] / words for name in ("mlm_loss", "accuracy", "kl", "agreement")}
    figures["cosine"] = named["cosine"] / tokens
    return figures if with_teacher else {name: figures[name] for name in ("mlm_loss", "accuracy")}


def evaluate_masked_lm(
    model: nn.Module,
    batches: Iterable[MicroBatch],
    teacher: nn.Module | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """The held-out figures of a model, in one process."""
    return to_figures(
        masked_lm_sums(model, batches, teacher, torch.device(device)), teacher is not None
    )
