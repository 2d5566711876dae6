"""`torch.compile` for a training step: the layers of both models, and the losses' chunks.

    if compiles("auto", device):
        compile_layers(student, teacher)
        DistillationStep(student, teacher, loss, fused=compiled_vocabulary_losses())

A layer is compiled in place: names of parameters, checkpoints and exports do not know of it. All
layers of a model share one compiled form, so that its depth costs no compiling. Evaluations, whose
batches have other shapes, are not compiled (`eager`). Compiled dropout draws other numbers, with
the same chances and from the same seed; without dropout only rounding differs.
"""

import contextlib
import os

import torch
from torch import _dynamo, nn

from distil_lib.errors import UserError


def compiles(setting: str, device: torch.device, sharded: bool = False) -> bool:
    """Whether to compile.

    Args:
        setting: "on", "off", or "auto": on a GPU whose compiler works.
        device: where the models are.
        sharded: whether FSDP puts each layer together before it is used, and takes it apart.

    Raises:
        UserError: "on", and there is no compiler that works, or the model is sharded.
    """
    if setting == "off" or (setting == "auto" and (sharded or device.type != "cuda")):
        return False
    if sharded:
        raise UserError(
            "Layers that FSDP shards are not compiled: that is not tested here.",
            "Leave it off, or launch without FSDP.",
            setting="compile",
        )
    reason = why_not(device)
    if reason and setting == "on":
        raise UserError(
            f"torch.compile does not work on this machine: {reason}.",
            "Install a C++ compiler (on a GPU, Triton too), or leave it off.",
            setting="compile",
        )
    if setting == "auto" and not reason:
        # Nobody has asked for it: a part that does not compile runs as it is written, with a word.
        _dynamo.config.suppress_errors = True
    return not reason


def why_not(device: torch.device) -> str:
    """What keeps a small function from being compiled, in one line; nothing if it works."""
    # Another function each time, so that no cache answers in place of the compiler.
    number = int.from_bytes(os.urandom(6), "big")
    try:
        torch.compile(lambda x: x + number)(torch.ones(2, device=device))
    except Exception as error:  # whatever a compiler may raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return (lines[0] if lines else type(error).__name__)[:200].rstrip(".")
    return ""


def compile_layers(*models: nn.Module | None, backend: str = "inductor") -> int:
    """Compile the layers of each model in place, before it is wrapped; returns their number."""
    layers = [
        module
        for model in models
        if model is not None
        for stack in model.modules()
        if isinstance(stack, nn.ModuleList)
        for module in stack
    ]
    for layer in layers:
        layer.compile(backend=backend)
    return len(layers)


def eager(compiled: bool = True) -> contextlib.AbstractContextManager:
    """A block in which what is compiled, if anything is, runs as it is written."""
    return torch.compiler.set_stance("force_eager") if compiled else contextlib.nullcontext()
