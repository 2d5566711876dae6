"""Optimizers and the learning rate's schedule.

    optimizers = build_optimizers(model, "adamw", learning_rate=5e-4)
    schedules = [linear_schedule(o, warmup_steps=100, total_steps=2000) for o in optimizers]

Each optimizer has a schedule of its own.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import AdamW, Muon, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_linear_schedule_with_warmup

from distil_lib.errors import UserError

OPTIMIZERS = ("adamw", "muon")


def orthogonalize(
    stack: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> Tensor:
    """(n, A, B) matrices to about their nearest orthogonal ones in bf16, all in the same products.

    Newton and Schulz's iteration x <- a x + (b g + c g g) x with g = x x^T, as PyTorch's Muon has
    it for a single matrix, to the bit.
    """
    a, b, c = coefficients
    tall = stack.shape[-2] > stack.shape[-1]
    x = stack.mT.bfloat16() if tall else stack.bfloat16()
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class StackedMuon(Muon):
    """PyTorch's Muon with its numbers and its state, for many small matrices.

    All matrices of one shape are updated together: of 12 layers three stacks and not 72 matrices.
    That is a seventh of the launches, for which a GPU waits; a CPU, whose cache holds one matrix
    and no stack, takes a fifth longer (`benchmarks/optimizers.py`). Sharded ones go one by one.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One update, of momentum with Nesterov's correction; `closure` as in PyTorch."""
        if any(isinstance(p, DTensor) for group in self.param_groups for p in group["params"]):
            return super().step(closure)
        assert closure is None
        for group in self.param_groups:
            stacks: dict[torch.Size, list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    stacks.setdefault(p.shape, []).append(p)
            for shape, parameters in stacks.items():
                self._update(group, shape, parameters)
        return None

    def _update(self, group: dict[str, Any], shape: torch.Size, parameters: list[Tensor]) -> None:
        for p in parameters:
            if not self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        momentum = [self.state[p]["momentum_buffer"] for p in parameters]
        gradients: Any = [p.grad for p in parameters]
        torch._foreach_lerp_(momentum, gradients, 1 - group["momentum"])
        update = torch.stack(torch._foreach_lerp(gradients, momentum, group["momentum"]))
        settings = (group[name] for name in ("ns_coefficients", "ns_steps", "eps"))
        update = orthogonalize(update, *settings).to(parameters[0].dtype)
        # "match_rms_adamw": as large as AdamW's updates are.
        size = 0.2 * max(shape) ** 0.5
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(parameters, list(update.unbind()), alpha=-group["lr"] * size)


def build_optimizers(
    model: nn.Module,
    name: str = "adamw",
    learning_rate: float = 5e-4,
    weight_decay: float = 0.01,
    betas: tuple[float, float] = (0.9, 0.98),
    eps: float = 1e-6,
) -> list[Optimizer]:
    """AdamW for all parameters, or Muon for the matrices inside the layers and AdamW for the rest.

    Biases and LayerNorms are not decayed: they are not what overfits, and a decayed LayerNorm
    weight shrinks its whole layer. Muon (Jordan et al. 2024) makes the update of a matrix
    orthogonal; embeddings are tables of vectors, not maps, and stay with AdamW. Muon's updates are
    scaled to AdamW's size, so one learning rate serves both. The model is where it will train.
    """
    if name not in OPTIMIZERS:
        raise UserError(
            f"There is no optimizer {name!r}.", f"Choose one of {', '.join(OPTIMIZERS)}."
        )
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for parameter, p in model.named_parameters():
        if p.requires_grad:
            in_muon = name == "muon" and p.ndim == 2 and ".layer." in parameter
            (matrices if in_muon else rest).append(p)
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    adamw = AdamW(groups, lr=learning_rate, betas=betas, eps=eps, fused=True)
    if not matrices:
        return [adamw]
    kind = StackedMuon if matrices[0].is_cuda else Muon
    size = "match_rms_adamw"
    muon = kind(matrices, lr=learning_rate, weight_decay=weight_decay, adjust_lr_fn=size)
    return [adamw, muon]


class LinearByProgress:
    """The same two straight lines over `progress`, the share of the run that is over.

    For `LambdaLR`, in a run with a time limit: the loop sets `progress` before each step.
    """

    def __init__(self, warmup_ratio: float):
        self.warmup_ratio, self.progress = warmup_ratio, 0.0

    def __call__(self, step: int) -> float:
        """The factor of the learning rate; `step`, which `LambdaLR` passes, is not used."""
        done, warmup = min(self.progress, 1.0), self.warmup_ratio
        # The first step would have a rate of 0 otherwise, and change nothing.
        return max(done, 1e-3) / warmup if done < warmup else (1 - done) / (1 - warmup)


def linear_schedule(optimizer: Optimizer, warmup_steps: int, total_steps: int) -> LambdaLR:
    """Up from 0 over the warm-up, then down to 0 at the last step.

    Call `.step()` once per optimizer step.

    Args:
        optimizer: whose learning rate is set.
        warmup_steps: steps in which it rises.
        total_steps: steps in all.
    """
    return get_linear_schedule_with_warmup(optimizer, warmup_steps, total_steps)
