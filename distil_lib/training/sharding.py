"""Models that do not fit into one GPU: FSDP2 shards weights, gradients and optimizer state.

    check_launch_backend()           # refuses backends under which this program is wrong
    plugin = fsdp_plugin("bf16")     # for `Accelerator(fsdp_plugin=...)`; None without FSDP

Checkpoints hold whole tensors (see `checkpoint`), so the number of processes may change between
stop and resume, and FSDP may be switched on or off.
"""

import os

import torch
from accelerate import FullyShardedDataParallelPlugin
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.tensor import DTensor

from distil_lib.errors import UserError

# DeepSpeed's engine, for example, makes an optimizer step at every backward pass, and its
# checkpoints are pickles.
REFUSED = {
    "DEEPSPEED": "DeepSpeed",
    "MEGATRON_LM": "Megatron-LM",
    "PARALLELISM_CONFIG": "A parallelism configuration",
}


def check_launch_backend() -> None:
    """Raise `UserError` for a launch under which this program would be wrong."""
    for variable, backend in REFUSED.items():
        if _true(f"ACCELERATE_USE_{variable}"):
            raise UserError(
                f"{backend} accumulates, clips and saves in its own way; "
                "this program does so itself.",
                "Launch with the configuration file "
                "distil_lib/training/accelerate_configs/zero2.yaml (gradients and optimizer state "
                "sharded) or fsdp.yaml (weights too).",
            )
    if not _true("ACCELERATE_USE_FSDP"):
        return
    if os.environ.get("FSDP_VERSION") != "2":
        raise UserError(
            "Only version 2 of FSDP is supported.",
            "Write `fsdp_version: 2` into the launch configuration.",
        )
    if _true("FSDP_CPU_RAM_EFFICIENT_LOADING"):
        # transformers would leave every model empty on all processes but the first, and
        # Accelerate fills only those that it shards.
        raise UserError(
            "The teacher would be empty on all processes but the first.",
            "Set `fsdp_cpu_ram_efficient_loading: false` in the launch configuration.",
        )


def check_alone(what: str, program: str) -> None:
    """Raise `UserError` where a launcher has started several processes of a program of one.

    Args:
        what: the beginning of a sentence, such as "Fine-tuning runs".
        program: its module.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise UserError(
            f"{what} in one process.", f"Start it with `python -m {program}`, without a launcher."
        )
    check_launch_backend()


def fsdp_plugin(precision: str) -> FullyShardedDataParallelPlugin | None:
    """FSDP2 as the launcher's settings ask for it; None for a model that is whole everywhere.

    Args:
        precision: "bf16" keeps master weights and sums of gradients in float32, as without
            sharding; only products are in bf16.
    """
    if not _true("ACCELERATE_USE_FSDP"):
        return None
    policy = None
    if precision == "bf16":
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    return FullyShardedDataParallelPlugin(mixed_precision_policy=policy)


def _true(name: str) -> bool:
    return os.environ.get(name, "false").lower() == "true"


def name_layers(model: nn.Module) -> None:
    """Tell Accelerate which modules FSDP shards one by one: the encoder's layers."""
    names = {type(m).__name__ for m in model.modules() if type(m).__name__.endswith("Layer")}
    setattr(model, "_no_split_modules", sorted(names))  # noqa: B010 (Accelerate's own attribute)


def full_tensor(tensor: Tensor) -> Tensor:
    """A sharded tensor put together (every process has to call this); any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
