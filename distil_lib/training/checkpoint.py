"""Save, verify, resume: checkpoints that are complete or absent.

    save_checkpoint(folder, step, model, optimizers, schedules, extra={"tokens": 1234}, keep=2)
    checkpoint = latest_valid_checkpoint(folder)     # damaged ones are named and skipped
    step, extra = load_checkpoint(checkpoint, model, optimizers, schedules)

A checkpoint is a folder `step-00000100` with tensors in safetensors, everything else in JSON, and a
manifest with the size and SHA-256 of each file. It is written under another name, flushed to the
disk and renamed, so neither a kill nor a full disk leaves half a checkpoint or harms an older one.
PyTorch's `torch.distributed.checkpoint.state_dict` puts sharded tensors together and names
the optimizers' state by parameter, whatever wraps the model (DDP, FSDP2, torch.compile).
"""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from distil_lib.common.files import _sha256, atomic_folder, read_json
from distil_lib.errors import UserError
from distil_lib.model_folder import check_finite

MANIFEST, STATE = "manifest.json", "state.json"
MODEL, OPTIMIZER = "model.safetensors", "optimizer.safetensors"
FILES = frozenset({MODEL, OPTIMIZER, STATE})
# Whole tensors on the CPU of the first process: a GPU never has to hold all of a sharded model.
WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


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
    """Write `folder/step-N` and delete all but the newest `keep` checkpoints.

    Every process calls this, because sharded tensors have to be put together; one of them writes.

    Args:
        folder: folder of the run's checkpoints.
        step: number of optimizer steps that are done.
        model: the model; of tied weights one is saved.
        optimizers: its optimizers.
        schedules: their learning rate schedules.
        extra: anything else that JSON can hold.
        keep: how many checkpoints are kept; 0 for all.
        write: whether this process writes.

    Raises:
        UserError: the disk is full. What was saved before stays complete.
    """
    target = folder / f"step-{step:08d}"
    weights: dict[str, Any] = get_model_state_dict(model, options=WHOLE)
    optimizer_state: Any = get_optimizer_state_dict(model, list(optimizers), options=WHOLE)
    if not write:
        return target
    # By "parameter.key". All that AdamW and Muon remember of a parameter are tensors.
    tensors = {
        f"{name}.{key}": tensor.contiguous()
        for name, entry in optimizer_state["state"].items()
        for key, tensor in entry.items()
    }
    # The schedules' functions are no state, and are made anew from the configuration.
    states = [{k: v for k, v in s.state_dict().items() if k != "lr_lambdas"} for s in schedules]
    state = {
        "step": step,
        "extra": extra or {},
        "param_groups": optimizer_state["param_groups"],
        "schedules": states,
    }
    with atomic_folder(target) as beside:
        save_file(_once(weights, model), beside / MODEL)
        save_file(tensors, beside / OPTIMIZER)
        (beside / STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")
        files = {
            path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)}
            for path in sorted(beside.iterdir())
        }
        (beside / MANIFEST).write_text(json.dumps(files, indent=1), encoding="utf-8")
    for old in list_checkpoints(folder)[:-keep] if keep else []:
        shutil.rmtree(old)
    return target


def _bare_name(name: str) -> str:
    """A parameter's name without what torch.compile puts before it."""
    return name.replace("_orig_mod.", "")


def _once(weights: dict[str, torch.Tensor], model: nn.Module) -> dict[str, torch.Tensor]:
    """The state without the second name of tied weights: safetensors stores a tensor once."""
    named = {_bare_name(name): id(p) for name, p in model.named_parameters(remove_duplicate=False)}
    first = {_bare_name(name) for name, _ in model.named_parameters()}
    return {k: v.contiguous() for k, v in weights.items() if k in first or k not in named}


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first, complete or not."""
    return sorted(p for p in folder.glob("step-*") if p.is_dir())


def _read_manifest(checkpoint: Path) -> dict[str, tuple[int, str]] | None:
    """Size and hash of each file, or None for a manifest that no checkpoint of ours has."""
    try:
        manifest = read_json(checkpoint / MANIFEST)
        files = {name: (each["bytes"], each["sha256"]) for name, each in manifest.items()}
    except (UserError, AttributeError, TypeError, KeyError, IndexError):
        return None
    return files if files.keys() == FILES else None


def find_corruption(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint; None if every file has the size and hash of the manifest."""
    files = _read_manifest(checkpoint)
    if files is None:
        return "its manifest is missing or damaged"
    for name, (size, sha256) in files.items():
        path = checkpoint / name
        try:
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != size:
                return f"{name} has {path.stat().st_size} bytes instead of {size}"
            if _sha256(path) != sha256:
                return f"{name} has changed since it was written"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return None


def latest_valid_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint, or None. Damaged ones are named on standard error."""
    for checkpoint in reversed(list_checkpoints(folder)):
        if (problem := find_corruption(checkpoint)) is None:
            return checkpoint
        print(f"skipping {checkpoint}: {problem}", file=sys.stderr, flush=True)
    return None


def read_state(checkpoint: Path) -> dict:
    """What a checkpoint holds beside tensors: `step`, `extra`, `param_groups`, `schedules`."""
    state = read_json(checkpoint / STATE)
    kinds = {"step": int, "extra": dict, "param_groups": list, "schedules": list}
    parts = ("inputs", "arithmetic", "positions")
    if (
        any(not isinstance(state.get(name), kind) for name, kind in kinds.items())
        or state["step"] < 0
        or any(not isinstance(schedule, dict) for schedule in state["schedules"])
        or any(not isinstance(state["extra"].get(name, {}), dict) for name in parts)
    ):
        raise UserError(
            f"{checkpoint / STATE} is not the state of a run.",
            "Delete that checkpoint and resume from an older one.",
        )
    return state


def load_checkpoint(
    checkpoint: Path,
    model: nn.Module,
    optimizers: Sequence[Optimizer],
    schedules: Sequence[LRScheduler],
) -> tuple[int, dict]:
    """Put a complete checkpoint back into the objects that it was made from.

    Returns:
        The number of steps that are done, and `extra` as it was saved.

    Raises:
        UserError: the checkpoint is of another model or another optimizer, or its weights are NaN.
    """
    state = read_state(checkpoint)
    weights: dict[str, Any] = load_file(checkpoint / MODEL)
    weights = {_bare_name(name): weight for name, weight in weights.items()}
    check_finite(checkpoint, weights)  # hashes do not say so of a file that was written anew
    own: dict[str, Any] = get_model_state_dict(model)
    expected = _once(own, model)
    moments: dict[str, dict[str, torch.Tensor]] = {}
    remembered = load_file(checkpoint / OPTIMIZER)
    check_finite(checkpoint, remembered)
    for name, tensor in remembered.items():
        parameter, _, key = name.rpartition(".")
        moments.setdefault(parameter, {})[key] = tensor
    optimizer_state = {"state": moments, "param_groups": state["param_groups"]}
    wrong = weights.keys() ^ expected.keys()
    wrong |= {k for k in weights.keys() & expected.keys() if weights[k].shape != expected[k].shape}
    problem = f"a weight that differs: {min(wrong)}" if wrong else ""
    if not problem and len(state["schedules"]) != len(schedules):
        problem = f"{len(state['schedules'])} optimizer(s), not {len(schedules)}"
    if not problem:
        whole = StateDictOptions(full_state_dict=True, strict=False)
        set_model_state_dict(model, weights, options=whole)
        try:
            set_optimizer_state_dict(model, list(optimizers), optimizer_state, options=WHOLE)
        except (KeyError, RuntimeError, ValueError):  # by PyTorch, for names that it does not know
            problem = "the state of another optimizer"
    if problem:
        raise UserError(
            f"{checkpoint} is of another model: it has {problem}.",
            "Resume with the configuration of the run.",
        )
    for schedule, saved in zip(schedules, state["schedules"], strict=True):
        schedule.load_state_dict(saved | {"lr_lambdas": [None] * len(schedule.base_lrs)})
    return state["step"], state["extra"]
