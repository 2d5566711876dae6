"""From a configuration to everything that a training run consists of.

    setup = prepare_training(load_preset("mini", output="runs/mine"))
    setup.model, setup.teacher, setup.blocks, setup.optimizers

`loop.PretrainingRun` trains it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.tracking import get_available_trackers
from accelerate.utils import DistributedType, broadcast_object_list, set_seed
from filelock import FileLock
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast

from distil_lib.common.hardware import (
    choose_precision,
    launch_precision,
    matmul_ceiling,
    set_threads,
)
from distil_lib.common.paths import locate
from distil_lib.common.processes import SharedErrors
from distil_lib.common.rendezvous import meet
from distil_lib.distillation import DistillationStep
from distil_lib.errors import UserError
from distil_lib.losses import TripleLoss
from distil_lib.masking import DynamicMasking
from distil_lib.teacher import MaskedLM
from distil_lib.text.batches import StepBatches
from distil_lib.text.blocks import Blocks, load_blocks
from distil_lib.text.streaming import BlockStream, StreamBatches
from distil_lib.text.tokenizer import load_tokenizer, tokenizer_fingerprint
from distil_lib.training.compilation import compile_layers, compiles, keep_gradients
from distil_lib.training.compiled_losses import compiled_vocabulary_losses
from distil_lib.training.config import PretrainConfig
from distil_lib.training.models import (
    load_run_teacher,
    model_fingerprint,
    new_model,
    round_linear_maps,
)
from distil_lib.training.optimization import LinearByProgress, build_optimizers, linear_schedule
from distil_lib.training.processes import check_same_settings
from distil_lib.training.run_folder import open_run, saved_precision
from distil_lib.training.sharding import check_launch_backend, fsdp_plugin, name_layers


@dataclass
class TrainingSetup:
    """Everything that a training run consists of.

    `config` has the precision that was chosen, `precision_reason` why. `model` and `optimizers` are
    prepared by `accelerator`. `sequences`: how many are read in all, or None if `steps` decides.
    `checkpoint`: to resume from, or None. `inputs`: hashes of teacher, tokenizer and text.
    `progress`: what the learning rate follows if there is a time limit. `lock`: on the main
    process. `compiled`: whether layers and losses are; `graphs`: whether in CUDA graphs.
    """

    config: PretrainConfig
    accelerator: Accelerator
    errors: SharedErrors
    tokenizer: PreTrainedTokenizerFast
    teacher: MaskedLM | None
    blocks: Blocks
    inputs: dict[str, str]
    steps: int
    sequences: int | None
    checkpoint: Path | None
    lock: FileLock | None
    model: nn.Module
    optimizers: Sequence[Optimizer]
    schedules: Sequence[LRScheduler]
    progress: LinearByProgress | None
    step: DistillationStep
    precision_reason: str
    compiled: bool
    graphs: bool

    @property
    def rank(self) -> int:
        """The number of this process, from 0."""
        return self.accelerator.process_index

    @property
    def world(self) -> int:
        """How many processes train."""
        return self.accelerator.num_processes

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return self.accelerator.device

    @property
    def sharded(self) -> bool:
        """Whether FSDP splits the student over the processes."""
        return self.accelerator.distributed_type == DistributedType.FSDP

    def batches(self, start: int, positions: dict[str, dict] | None = None) -> DataLoader:
        """The steps from `start` on. positions: where a resumed run stood in its stream."""
        config = self.config
        sample = config.alpha_ce and config.soft_targets == "sample"
        masking = DynamicMasking(
            self.tokenizer,
            config.mlm_probability,
            config.mask_smoothing,
            config.seed,
            self.blocks.counts,
            config.soft_target_fraction if sample else 0.0,
        )
        shared = (self.blocks.train, masking, config.batch_size, config.micro_batch_size)
        workers = config.dataloader_num_workers
        options: dict[str, Any] = {"batch_size": None, "pin_memory": self.device.type == "cuda"}
        if self.blocks.streaming:
            stream = StreamBatches(
                *shared, rank=self.rank, world=self.world, start=start, state=positions
            )
            return DataLoader(stream, num_workers=min(workers, 1), **options)
        steps = StepBatches(
            *shared, seed=config.seed, rank=self.rank, world=self.world, total=self.sequences
        )
        return DataLoader(steps, sampler=range(start, self.steps), num_workers=workers, **options)


def prepare_training(config: PretrainConfig) -> TrainingSetup:
    """Load, make and check everything; sets this process's CPU threads and random seed.

    Raises:
        UserError: something does not fit together. All processes raise it.
    """
    check_launch_backend()  # before any process waits for another
    config = replace(config, precision=launch_precision(config.precision))
    state, errors = meet(), SharedErrors()
    with errors.shared():
        check_same_settings(errors, vars(config))
        if state.device.type == "cpu":
            set_threads(config.threads)
        check_settings(config, state.num_processes)
        chosen = _choose_precision(config, state) if state.is_main_process else None
    precision, reason = errors.gather(chosen)[0]  # all processes must agree
    config = replace(config, precision=precision)
    accelerator = Accelerator(
        mixed_precision="bf16" if config.precision == "bf16" else "no",
        log_with=config.log_with,
        project_dir=config.output,
        fsdp_plugin=fsdp_plugin(config.precision),
    )
    with errors.shared():  # before a folder is made
        sharded = accelerator.distributed_type == DistributedType.FSDP
        able = compiles(config.compile, accelerator.device, sharded)
        set_seed(config.seed)
        tokenizer = load_tokenizer(locate(config.tokenizer))
        teacher = load_run_teacher(config, tokenizer)
        model = new_model(config, tokenizer, teacher, accelerator.device)
    blocks = _load_blocks(config, tokenizer, errors, accelerator.is_local_main_process)
    inputs = {
        "text": blocks.content_hash,
        "tokenizer": tokenizer_fingerprint(tokenizer),
        "teacher": model_fingerprint(teacher),
    }
    with errors.shared():
        for rank, others in enumerate(errors.gather(inputs)):
            if differing := [name for name in inputs if others[name] != inputs[name]]:
                raise UserError(
                    f"Processes {state.process_index} and {rank} have different {differing[0]}s.",
                    "Copy the same files to all machines.",
                )
    checkpoint, lock = None, None
    with errors.shared():
        steps, sequences = run_length(config, blocks)
        if accelerator.is_main_process:
            checkpoint, lock = open_run(config)
    checkpoint = broadcast_object_list([checkpoint])[0]

    optimizers = build_optimizers(
        model.to(accelerator.device),
        config.optimizer,
        config.learning_rate,
        config.weight_decay,
        (config.adam_beta1, config.adam_beta2),
        config.adam_eps,
    )
    name_layers(model)
    if teacher is not None:
        teacher = teacher.to(accelerator.device)
        if config.precision == "bf16":
            round_linear_maps(teacher, torch.bfloat16)
    fused: bool | Callable = config.fused
    graphs = config.compile == "graphs"
    if compiled := all(errors.gather(able)):  # each process has a compiler of its own
        compile_layers(model, teacher, graphs=graphs)
        fused = fused and compiled_vocabulary_losses()
    model, *prepared = accelerator.prepare(model, *optimizers)
    if graphs:
        keep_gradients(model)
    progress = LinearByProgress(config.warmup_ratio) if config.time_limit else None
    warmup = max(round(config.warmup_ratio * steps), 1)
    loss = TripleLoss(config.alpha_ce, config.alpha_mlm, config.alpha_cos, config.temperature)
    return TrainingSetup(
        config=config,
        accelerator=accelerator,
        errors=errors,
        tokenizer=tokenizer,
        teacher=teacher,
        blocks=blocks,
        inputs=inputs,
        steps=steps,
        sequences=sequences,
        checkpoint=checkpoint,
        lock=lock,
        model=model,
        optimizers=prepared,
        schedules=[
            LambdaLR(o, progress) if progress else linear_schedule(o, warmup, steps)
            for o in optimizers
        ],
        progress=progress,
        step=DistillationStep(model, teacher, loss, config.soft_targets, fused),
        precision_reason=reason,
        compiled=compiled,
        graphs=graphs,
    )


def check_settings(config: PretrainConfig, world: int) -> None:
    """Raise `UserError` if a tracker is not installed, or processes are more than sequences."""
    trackers = [str(tracker) for tracker in get_available_trackers()]
    if config.log_with is not None and config.log_with not in trackers:
        raise UserError(
            f"The tracker {config.log_with!r} is unknown or not installed.",
            f"Installed: {', '.join(trackers) or 'none'}.",
            setting="log_with",
        )
    if config.batch_size < world:
        raise UserError(
            f"A batch of {config.batch_size} cannot be shared by {world} processes.",
            "Choose a larger batch.",
            setting="batch_size",
        )


def _choose_precision(config: PretrainConfig, state: PartialState) -> tuple[str, str]:
    """The precision, and why it was chosen if it was "auto"."""
    if config.precision != "auto":
        return config.precision, ""
    if saved := saved_precision(config):
        return saved, " (as the run was started)"
    precision, reason = choose_precision(state.device)
    return precision, f" ({reason})"


def _load_blocks(
    config: PretrainConfig,
    tokenizer: PreTrainedTokenizerFast,
    errors: SharedErrors,
    makes_cache: bool,
) -> Blocks:
    """The main process of each machine makes the cache; then the others read it."""
    source = (config.corpus, tokenizer, config.block_size, config.streaming)
    with errors.shared():
        if makes_cache:
            blocks = load_blocks(*source)
    with errors.shared():
        if not makes_cache:
            blocks = load_blocks(*source)
        train = blocks.train
        if not isinstance(train, BlockStream) and len(train) < config.batch_size:
            raise UserError(
                f"The corpus gives {len(train)} blocks of {config.block_size} tokens, "
                f"less than a batch of {config.batch_size}.",
                "Give more text, smaller batches or shorter blocks.",
                setting=("batch_size", "block_size"),
            )
    return blocks


def run_length(config: PretrainConfig, blocks: Blocks) -> tuple[int, int | None]:
    """(optimizer steps, sequences they read)."""
    if config.max_steps:
        return config.max_steps, None
    if isinstance(blocks.train, BlockStream):
        raise UserError(
            "A corpus that streams has no known length.",
            "Say how many steps to train.",
            setting="max_steps",
        )
    sequences = max(round(config.epochs * len(blocks.train)), 1)
    return math.ceil(sequences / config.batch_size), sequences


def measure_peak_flops(setup: TrainingSetup) -> float:
    """FLOP/s of matrix products over all processes, each measured while the others compute."""
    dtype = torch.bfloat16 if setup.config.precision == "bf16" else torch.float32
    mine = torch.tensor(matmul_ceiling(setup.device, dtype), device=setup.device)
    return setup.accelerator.reduce(mine, "sum").item()


def describe_run(setup: TrainingSetup, done: int) -> str:
    """The line that a program prints before it trains: so that nobody trains alone unknowingly."""
    config = setup.config
    parameters = sum(p.numel() for p in setup.accelerator.unwrap_model(setup.model).parameters())
    kind = f"BERT from {config.init_from or 'nothing'}"
    if setup.teacher is not None:
        kind = f"student of {config.teacher}"
    return (
        f"{kind}: {parameters:,} parameters; {setup.world} process(es) on {setup.device.type}"
        f"{', sharded' if setup.sharded else ''}{', compiled' if setup.compiled else ''}"
        f"{' in CUDA graphs' if setup.graphs and setup.device.type == 'cuda' else ''}, "
        f"{config.precision}{setup.precision_reason}, "
        f"{torch.get_num_threads()} thread(s) each; steps {done} to {setup.steps} of "
        f"{config.batch_size} x {config.block_size} tokens from {config.corpus}"
    )
