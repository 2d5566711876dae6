"""The state of a run between stop and resume: what is compared, said, loaded and saved."""

from importlib.metadata import version
from pathlib import Path

import torch
from accelerate.utils import gather_object

from distil_lib.errors import UserError
from distil_lib.masking import MicroBatch
from distil_lib.training.checkpoint import load_checkpoint, read_state, save_checkpoint
from distil_lib.training.run_folder import saving
from distil_lib.training.setup import TrainingSetup


def load_state(setup: TrainingSetup) -> tuple[int, dict]:
    """Load the checkpoint to resume from; (0, {}) for a new run.

    Returns:
        The steps that are done, and what `save_state` was given.

    Raises:
        UserError: teacher, tokenizer or text have other contents than those of the checkpoint.
    """
    checkpoint, config = setup.checkpoint, setup.config
    if checkpoint is None:
        return 0, {}
    with setup.errors.shared():
        saved = read_state(checkpoint)["extra"].get("inputs", {})
        names = {"text": config.corpus, "tokenizer": config.tokenizer, "teacher": config.teacher}
        for name, found in setup.inputs.items():
            if saved.get(name) != found:
                raise UserError(
                    f"The {name} ({names[name]}) is not what {checkpoint} was trained with.",
                    "Resume with the same files and packages, or start anew in another folder.",
                    setting="output",
                )
        model = setup.accelerator.unwrap_model(setup.model)
        done, extra = load_checkpoint(checkpoint, model, setup.optimizers, setup.schedules)
        if done > setup.steps:
            raise UserError(
                f"{checkpoint} has {done:,} steps, and the run {setup.steps:,}.",
                "It was altered: delete it, and resume from an older one.",
            )
    before, now = extra.get("arithmetic", {}), arithmetic(setup)
    differ = (k for k in before | now if before.get(k) != now.get(k))
    changed = [f"{k} ({before.get(k)}, now {now.get(k)})" for k in differ]
    if changed:
        setup.accelerator.print(
            f"From step {done} on with other {', '.join(changed)}: the same curve, but for "
            "rounding no longer the same bits.",
            flush=True,
        )
    return done, extra


def arithmetic(setup: TrainingSetup) -> dict[str, str | int]:
    """What changes sums in their last bits, and nothing else."""
    settings: dict[str, str | int] = {
        "processes": setup.world,
        "micro-batches": setup.config.micro_batch_size,
        "threads": torch.get_num_threads(),
        "device": setup.device.type,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "sharding": setup.sharded,
    }
    if setup.compiled:
        settings["compiled"] = True
    return settings | {package: version(package) for package in ("torch", "transformers", "numpy")}


def stream_state(setup: TrainingSetup, micro_batches: list[MicroBatch]) -> dict[str, dict]:
    """Where each part of a stream stands after a step, gathered from all processes."""
    if not setup.blocks.streaming:
        return {}
    mine = getattr(micro_batches, "state", {})
    return {k: v for each in gather_object([mine]) for k, v in each.items()}


def save_state(
    setup: TrainingSetup, step: int, micro_batches: list[MicroBatch], state: dict
) -> None:
    """Save a checkpoint. Every process calls this.

    Args:
        setup: the run.
        step: number of steps that are done.
        micro_batches: of the last one.
        state: what the loop needs to go on; JSON can hold it.

    Raises:
        UserError: it cannot be written. What was saved before is complete.
    """
    folder, main = Path(setup.config.output), setup.accelerator.is_main_process
    positions = stream_state(setup, micro_batches)
    if main and not (folder / "config.yaml").is_file():
        raise UserError(
            f"{folder} was deleted or moved while the run was writing into it.",
            "If it was moved, resume from where it is now.",
            setting=("resume", "output"),
        )
    own = {"inputs": setup.inputs, "arithmetic": arithmetic(setup), "positions": positions}
    with saving(folder / "checkpoints"):
        save_checkpoint(
            folder / "checkpoints",
            step,
            setup.accelerator.unwrap_model(setup.model),
            setup.optimizers,
            setup.schedules,
            own | state,
            setup.config.save_total_limit,
            write=main,
        )
