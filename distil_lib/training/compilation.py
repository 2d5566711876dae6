"""`torch.compile` for a training step: the layers of both models, and the losses' chunks.

    if compiles("auto", device):
        compile_layers(student, teacher)
        DistillationStep(student, teacher, loss, fused=compiled_vocabulary_losses())

A layer is compiled in place: names of parameters, checkpoints and exports do not know of it. All
layers of a model share one compiled form, so that its depth costs no compiling. Evaluations, whose
batches have other shapes, are not compiled (`eager`). Compiled dropout draws other numbers, with
the same chances and from the same seed; without dropout only rounding differs.

With graphs a GPU replays the launches of a layer, which it recorded before, into the same memory:

    compile_layers(student, teacher, graphs=True)
    keep_gradients(student)                            # then zero_grad(set_to_none=False)
    torch.compiler.cudagraph_mark_step_begin()         # before each micro-batch
"""

import contextlib
import os
from collections.abc import Iterator

import torch
from torch import _dynamo, nn

from distil_lib.common.errors import other_process_lost
from distil_lib.errors import UserError


def compiles(setting: str, device: torch.device, sharded: bool = False) -> bool:
    """Whether to compile.

    Args:
        setting: "on", "off", "auto": on a GPU whose compiler works, or "graphs": as "on".
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
    if reason and setting != "auto":
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


def compile_layers(
    *models: nn.Module | None, backend: str = "inductor", graphs: bool = False
) -> int:
    """Compile the layers of each model in place, before it is wrapped; returns their number.

    graphs: whether a GPU records them in CUDA graphs, too; elsewhere that changes nothing.
    """
    layers = [
        module
        for model in models
        if model is not None
        for stack in model.modules()
        if isinstance(stack, nn.ModuleList)
        for module in stack
    ]
    for layer in layers:
        layer.compile(backend=backend, mode="reduce-overhead" if graphs else None)
    return len(layers)


def keep_gradients(model: nn.Module) -> None:
    """Give each weight a gradient to add to, in memory that no graph writes over.

    Otherwise it would be what the backward pass of a layer returns, and the next micro-batch's
    replay would overwrite that.
    """
    for p in model.parameters():
        if p.requires_grad and p.grad is None:
            p.grad = torch.zeros_like(p)


@contextlib.contextmanager
def compiled_step(setting: str, step: int) -> Iterator[None]:
    """Say of a step that fails where compiling was asked for how the run goes on without.

    Raises:
        UserError: it failed, and not for lack of memory or of another process.
    """
    try:
        yield
    except (RuntimeError, AssertionError) as error:
        foreign = isinstance(error, torch.OutOfMemoryError) or other_process_lost(error)
        if foreign or setting not in ("on", "graphs"):
            raise
        graphs = setting == "graphs"
        reason = (str(error).splitlines() or [""])[0][:200].rstrip(".") or type(error).__name__
        raise UserError(
            f"Step {step} failed in compiled layers{' or their CUDA graphs' * graphs}: {reason}.",
            f"Resume with {'on, which records no graphs, or ' * graphs}off.",
            setting=("resume", "compile"),
        ) from error


def eager(compiled: bool = True) -> contextlib.AbstractContextManager:
    """A block in which what is compiled, if anything is, runs as it is written."""
    return torch.compiler.set_stance("force_eager") if compiled else contextlib.nullcontext()
