"""Save, verify, resume: checkpoints that are whole or not there.

    save_checkpoint(folder, step, model, optimizers, schedules, extra={"metrics_bytes": 1234}, keep=2)
    checkpoint = latest_valid_checkpoint(folder)                     # the newest whole one; damaged ones are named and passed over
    extra = load_checkpoint(checkpoint, model, optimizers, schedules)

A checkpoint is a folder `step-00000100` with tensors in safetensors, everything else in JSON, and a manifest with the size and
SHA-256 of each file. It is written under another name, flushed to the disk and renamed, so that neither a kill nor a full disk
leaves a half-written one behind or harms the one before.
"""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from distil_lib.common.files import _sha256, atomic_folder
from distil_lib.errors import UserError
from distil_lib.training.sharding import distribute_like, full_cpu_tensor, full_state_dict

MANIFEST = "manifest.json"


# ---------------------------------------------------------------------------------------------------------------- optimizers
def _pack_optimizer(optimizer: Optimizer, write: bool) -> tuple[dict[str, torch.Tensor], dict]:
    """An optimizer's state as tensors by name, and the rest, which JSON can hold."""
    state = optimizer.state_dict()
    entries = (
        (f"{i}.{k}", v)
        for i, entry in state["state"].items()
        for k, v in entry.items()
        if torch.is_tensor(v)
    )
    tensors = {name: full_cpu_tensor(v, write) for name, v in entries}
    numbers = {
        str(i): {k: v for k, v in entry.items() if not torch.is_tensor(v)}
        for i, entry in state["state"].items()
    }
    return tensors, {"state": numbers, "param_groups": state["param_groups"]}


def _unpack_optimizer(optimizer: Optimizer, tensors: dict[str, torch.Tensor], rest: dict) -> None:
    state = {int(i): dict(entry) for i, entry in rest["state"].items()}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        state[int(index)][key] = distribute_like(tensor, parameters[int(index)])
    optimizer.load_state_dict({"state": state, "param_groups": rest["param_groups"]})


# --------------------------------------------------------------------------------------------------------------- save and load
def save_checkpoint(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizers: Sequence[Optimizer],
    schedules: Sequence[LRScheduler],
    extra: dict | None = None,
    keep: int = 2,
    write: bool = True,
) -> Path:
    """Write `folder/step-N` and delete all but the newest `keep` checkpoints. `extra`: whatever else JSON can hold.

    Every process calls this, because what is sharded has to be put together; one of them writes.

    Raises `UserError` when the disk is full; what was saved before stays whole.
    """
    target = folder / f"step-{step:08d}"
    weights, packed = (
        full_state_dict(model, write),
        [_pack_optimizer(optimizer, write) for optimizer in optimizers],
    )
    if not write:
        return target
    with atomic_folder(target) as beside:
        unique = {}  # tied weights are one tensor with two names: save the first
        for name, tensor in weights.items():
            unique.setdefault(id(tensor), (name, tensor))
        save_file(dict(unique.values()), beside / "model.safetensors")
        state = {
            "step": step,
            "extra": extra or {},
            "optimizers": [],
            "schedules": [s.state_dict() for s in schedules],
        }
        for number, (tensors, rest) in enumerate(packed):
            save_file(tensors, beside / f"optimizer-{number}.safetensors")
            state["optimizers"].append(rest)
        for schedule in state["schedules"]:
            schedule.pop("lr_lambdas", None)
        (beside / "state.json").write_text(json.dumps(state, indent=1))
        files = {
            p.name: {"bytes": p.stat().st_size, "sha256": _sha256(p)}
            for p in sorted(beside.iterdir())
        }
        (beside / MANIFEST).write_text(json.dumps(files, indent=1))
    for old in list_checkpoints(folder)[:-keep] if keep else []:
        shutil.rmtree(old)
    return target


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first, whole or not."""
    return sorted(p for p in folder.glob("step-*") if p.is_dir())


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, or None if every file has the size and hash of the manifest."""
    try:
        files = json.loads((checkpoint / MANIFEST).read_text())
    except (OSError, ValueError):
        return "its manifest is missing or damaged"
    for name, expected in files.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != expected["bytes"]:
            return f"{name} has {path.stat().st_size} bytes instead of {expected['bytes']}"
        if _sha256(path) != expected["sha256"]:
            return f"{name} has changed since it was written"
    return None


def latest_valid_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint, or None if there is none. Damaged ones are named on standard error and passed over."""
    for checkpoint in reversed(list_checkpoints(folder)):
        if (problem := damage(checkpoint)) is None:
            return checkpoint
        print(f"passing over {checkpoint}: {problem}", file=sys.stderr, flush=True)
    return None


def load_checkpoint(
    checkpoint: Path,
    model: nn.Module,
    optimizers: Sequence[Optimizer],
    schedules: Sequence[LRScheduler],
) -> tuple[int, dict]:
    """Put a whole checkpoint back into the objects it was made from: (step, extra)."""
    own = dict(model.named_parameters(remove_duplicate=False))
    weights = load_file(checkpoint / "model.safetensors")
    missing, unexpected = model.load_state_dict(
        {n: distribute_like(w, own.get(n, w)) for n, w in weights.items()}, strict=False
    )
    tied = {id(own[n]) for n in own if n not in missing}
    untied = [n for n in missing if n in own and id(own[n]) not in tied]
    if untied or unexpected:
        raise UserError(
            f"{checkpoint} is of another model ({[*untied, *unexpected][0]}).",
            "Resume with the configuration of the run.",
        )
    state = json.loads((checkpoint / "state.json").read_text())
    for number, (optimizer, rest) in enumerate(zip(optimizers, state["optimizers"], strict=True)):
        _unpack_optimizer(
            optimizer, load_file(checkpoint / f"optimizer-{number}.safetensors"), rest
        )
    for schedule, saved in zip(schedules, state["schedules"], strict=True):
        schedule.load_state_dict(saved | {"lr_lambdas": [None] * len(schedule.base_lrs)})
    return state["step"], state["extra"]
