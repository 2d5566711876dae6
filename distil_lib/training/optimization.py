"""Optimizers and the learning rate's schedule.

optimizers = build_optimizers(model, "adamw", learning_rate=5e-4)
schedules = [linear_schedule(o, warmup_steps=100, total_steps=2000) for o in optimizers]
"""

from torch import nn
from torch.optim import AdamW, Muon, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_linear_schedule_with_warmup

from distil_lib.errors import UserError

OPTIMIZERS = ("adamw", "muon")


def build_optimizers(
    model: nn.Module,
    name: str = "adamw",
    learning_rate: float = 5e-4,
    weight_decay: float = 0.01,
    betas: tuple[float, float] = (0.9, 0.98),
    eps: float = 1e-6,
) -> list[Optimizer]:
    """AdamW for all parameters, or Muon for the matrices inside the layers and AdamW for the rest.

    Biases and LayerNorms are not decayed: they are not what overfits, and a decayed LayerNorm weight shrinks its whole layer.
    Muon (Jordan et al. 2024) makes the update of a matrix orthogonal; embeddings are tables of vectors, not maps, and stay
    with AdamW. Its updates are scaled to AdamW's size, so one learning rate serves both.
    """
    if name not in OPTIMIZERS:
        raise UserError(
            f"There is no optimizer {name!r}.", f"Choose one of {', '.join(OPTIMIZERS)}."
        )
    parameters = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    matrices = (
        [p for n, p in parameters if p.ndim == 2 and ".layer." in n] if name == "muon" else []
    )
    in_muon = {id(p) for p in matrices}
    rest = [p for _, p in parameters if id(p) not in in_muon]
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizers: list[Optimizer] = [
        AdamW(groups, lr=learning_rate, betas=betas, eps=eps, fused=True)
    ]
    if matrices:
        optimizers.append(
            Muon(
                matrices,
                lr=learning_rate,
                weight_decay=weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    return optimizers


def linear_schedule(optimizer: Optimizer, warmup_steps: int, total_steps: int) -> LambdaLR:
    """Up from 0 over the warm-up, then down to 0 at the last step. Call `.step()` once per optimizer step."""
    return get_linear_schedule_with_warmup(optimizer, warmup_steps, total_steps)
