"""Models that do not fit into one GPU: FSDP2 shards weights, gradients and optimizer state over the processes.

    plugin = sharding("bf16")                      # for `Accelerator(fsdp_plugin=...)`; None where no FSDP was asked for
    state = full_state_dict(model)                     # names to whole tensors on the CPU
    tensor = distribute_like(whole_tensor, parameter)     # this process's part, to resume

What is written to the disk is whole, so the number of processes may change between stop and resume, and FSDP come or go.
"""

import os

import torch
from accelerate import FullyShardedDataParallelPlugin
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.tensor import DTensor, distribute_tensor

from distil_lib.errors import UserError

# DeepSpeed's engine, for one, steps with every backward pass, micro-batches too, and writes checkpoints with pickle.
REFUSED = {
    "DEEPSPEED": "DeepSpeed",
    "MEGATRON_LM": "Megatron-LM",
    "PARALLELISM_CONFIG": "A parallelism configuration",
}


def sharding(precision: str) -> FullyShardedDataParallelPlugin | None:
    """What the launcher's settings ask for: FSDP2, or None for a model whole on each process.

    precision: "bf16" keeps master weights and sums of gradients in float32, as without sharding; only products are in bf16.
    Raises `UserError` for the backends under which this program would be wrong.
    """
    remedy = "Launch with --config_file distil_lib/training/accelerate_configs/zero2.yaml (gradients and optimizer state sharded) or fsdp.yaml (weights too)."
    for variable, backend in REFUSED.items():
        if _true(f"ACCELERATE_USE_{variable}"):
            raise UserError(
                f"{backend} accumulates, clips and saves in its own way; this program does so itself.",
                remedy,
            )
    if not _true("ACCELERATE_USE_FSDP"):
        return None
    if os.environ.get("FSDP_VERSION") != "2":
        raise UserError(
            "Of FSDP only version 2 is supported.",
            "Write `fsdp_version: 2` into the launch configuration.",
        )
    if _true("FSDP_CPU_RAM_EFFICIENT_LOADING"):
        # `transformers` would leave every model empty on all processes but the first; Accelerate fills only those it shards.
        raise UserError(
            "The teacher would be empty on all processes but the first.",
            "Set `fsdp_cpu_ram_efficient_loading: false`.",
        )
    policy = (
        MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        if precision == "bf16"
        else None
    )
    return FullyShardedDataParallelPlugin(mixed_precision_policy=policy)


def _true(name: str) -> bool:
    return os.environ.get(name, "false").lower() == "true"


def name_layers(model: nn.Module) -> None:
    """Say which modules FSDP is to shard each by itself: the encoder's layers, by Accelerate's own attribute for it."""
    model._no_split_modules = sorted(
        {type(m).__name__ for m in model.modules() if type(m).__name__.endswith("Layer")}
    )


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor put together (all processes have to call), any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def full_cpu_tensor(tensor: Tensor, wanted: bool = True) -> Tensor:
    """The same on the CPU, lest all of a model come together on a GPU; where it is not `wanted`, nothing is kept."""
    tensor = whole(tensor.detach())
    return tensor.cpu().contiguous() if wanted else tensor.new_empty(0)


def full_state_dict(model: nn.Module, wanted: bool = True) -> dict[str, Tensor]:
    """A model's state by name, whole, on the CPU. All processes have to call; those for which it is not `wanted` get empty tensors.

    Tied weights are one tensor under two names.
    """
    seen: dict[int, Tensor] = {}
    state = model.state_dict(keep_vars=True)
    for tensor in state.values():
        if id(tensor) not in seen:
            seen[id(tensor)] = full_cpu_tensor(tensor, wanted)
    return {name: seen[id(tensor)] for name, tensor in state.items()}


def distribute_like(tensor: Tensor, own: Tensor) -> Tensor:
    """A whole tensor, known to all processes, cut as `own` is; as it is if `own` is not sharded or of another shape."""
    if not isinstance(own, DTensor) or own.shape != tensor.shape:
        return tensor
    return distribute_tensor(
        tensor.to(own.device), own.device_mesh, own.placements, src_data_rank=None
    )
