"""From a configuration to everything that a training run consists of: processes, models, text, optimizers.

    run = TrainingSetup(load_preset("mini", output="runs/mine"))
    run.model, run.teacher, run.blocks, run.optimizers

`pretrain.Run` adds the loop.
"""

import contextlib
from collections.abc import Iterator
from datetime import timedelta

import torch
from accelerate import Accelerator, PartialState
from accelerate.tracking import get_available_trackers
from accelerate.utils import DistributedType, broadcast_object_list, set_seed
from torch.utils.data import DataLoader

from distil_lib.common.hardware import (
    default_threads,
    launch_precision,
    on_cpu,
    probe_precision,
)
from distil_lib.common.paths import locate
from distil_lib.distillation import DistillationStep
from distil_lib.errors import UserError
from distil_lib.initialization import initialize_student, skipped_positions, student_config
from distil_lib.losses import TripleLoss
from distil_lib.masking import DynamicMasking
from distil_lib.student import Student
from distil_lib.teacher import MaskedLM, check_vocabulary, load_teacher, new_teacher
from distil_lib.text.batches import StepBatches
from distil_lib.text.blocks import Blocks, load_blocks
from distil_lib.text.streaming import StreamBatches
from distil_lib.text.tokenizer import load_tokenizer
from distil_lib.training.config import PretrainConfig
from distil_lib.training.optimization import build_optimizers, linear_schedule
from distil_lib.training.run_folder import open_run, saved_precision
from distil_lib.training.sharding import name_layers, sharding


class TrainingSetup:
    """Everything that a training run consists of, made from its configuration. Raises `UserError` for what does not fit together.

    After it: `tokenizer`, `teacher` (or None), `model` and `optimizers` (prepared by `accelerator`), `schedules`, `step`, `blocks`,
    `steps` (how many), `checkpoint` (to resume from, or None), `rank` and `world`, `device`, `sharded`.
    """

    def __init__(self, config: PretrainConfig):
        self.config = config
        sharding("fp32")  # refuses what would be wrong before any process waits for another
        config.precision = launch_precision(config.precision)
        state = PartialState(cpu=on_cpu())
        if state.device.type == "cpu":
            torch.set_num_threads(config.threads or default_threads())
        precision = [config.precision]
        if config.precision == "auto":  # a resumed run keeps what it was started with
            precision = [saved_precision(config) or probe_precision(state.device)]
        config.precision = broadcast_object_list(precision)[0]  # all processes must agree
        trackers = [str(tracker) for tracker in get_available_trackers()]
        if config.log_with and config.log_with not in trackers:
            installed = ", ".join(trackers) or "none"
            raise UserError(
                f"The tracker {config.log_with!r} is unknown or not installed.",
                f"Installed: {installed}.",
            )
        self.accelerator = Accelerator(
            mixed_precision="bf16" if config.precision == "bf16" else "no",
            log_with=config.log_with,
            project_dir=config.output,
            fsdp_plugin=sharding(config.precision),
        )
        self.sharded = self.accelerator.distributed_type == DistributedType.FSDP
        self.rank, self.world = self.accelerator.process_index, self.accelerator.num_processes
        self.device = self.accelerator.device
        if config.batch_size < self.world:
            raise UserError(
                f"A batch of {config.batch_size} cannot be shared by {self.world} processes.",
                "Raise --batch_size.",
            )

        set_seed(config.seed)
        self.tokenizer = load_tokenizer(locate(config.tokenizer))
        self.teacher = self._load_teacher()
        model = self._new_model()
        self.blocks = self._load_blocks()
        self.steps, self.sequences = self._length()
        with self._main_process_decides():
            self.checkpoint = open_run(config) if self.accelerator.is_main_process else None
        self.checkpoint = broadcast_object_list([self.checkpoint])[0]

        betas = (config.adam_beta1, config.adam_beta2)
        optimizers = build_optimizers(
            model,
            config.optimizer,
            config.learning_rate,
            config.weight_decay,
            betas,
            config.adam_eps,
        )
        name_layers(model)
        self.model, *self.optimizers = self.accelerator.prepare(model.to(self.device), *optimizers)
        self.schedules = [
            linear_schedule(o, max(round(config.warmup_ratio * self.steps), 1), self.steps)
            for o in optimizers
        ]
        loss = TripleLoss(config.alpha_ce, config.alpha_mlm, config.alpha_cos, config.temperature)
        self.step = DistillationStep(
            self.model, self.teacher, loss, config.soft_targets, config.fused
        )

    def _load_teacher(self) -> MaskedLM | None:
        if self.config.teacher is None:
            return None
        teacher = load_teacher(
            locate(self.config.teacher), self.tokenizer, getattr(torch, self.config.teacher_dtype)
        )
        return teacher.to(self.device)

    def _new_model(self) -> Student | MaskedLM:
        config = self.config
        if self.teacher is None:
            if config.alpha_ce or config.alpha_cos:
                raise UserError(
                    "L_ce and L_cos need a teacher.",
                    "Pass --teacher, or set --alpha_ce 0 --alpha_cos 0 to pretrain a BERT.",
                )
            # On a CPU the backward pass of fused attention is slow where blocks are short (4 times at 64 tokens, bf16).
            attention = (
                "eager" if self.device.type == "cpu" and config.block_size <= 128 else "sdpa"
            )
            if config.init_from is not None:
                model = load_teacher(locate(config.init_from), self.tokenizer).to_training(
                    config.dropout, attention
                )
            else:
                shape = (config.hidden_size, config.hidden_layers, config.heads)
                model = new_teacher(
                    self.tokenizer, *shape, dropout=config.dropout, attention=attention
                )
            self._check_length(model)
            return model
        choice, layers = config.layer_choice(), self.teacher.config.num_hidden_layers
        if choice is None:
            model = Student(
                student_config(
                    self.teacher.config, config.student_layers or layers // 2, config.dropout
                )
            )
        else:
            model = initialize_student(
                self.teacher,
                choice,
                config.student_layers,
                copy_head=config.copy_head,
                dropout=config.dropout,
                seed=config.seed,
            ).float()
        check_vocabulary(model.config.vocab_size, self.tokenizer, config.teacher)
        self._check_length(model)
        if config.freeze_positions:
            model.distilbert.embeddings.position_embeddings.requires_grad_(False)
        return model

    def _check_length(self, model: Student | MaskedLM) -> None:
        longest = model.config.max_position_embeddings - skipped_positions(model.config)
        if (block := self.config.block_size) > longest:
            raise UserError(
                f"The model knows {longest} positions; a block has {block} tokens.",
                f"Choose a --block_size up to {longest}.",
            )

    def _load_blocks(self) -> Blocks:
        """The main process of each machine makes the cache; the others wait, then read it."""
        error = None
        # The first reading of a large corpus takes hours: longer than processes otherwise wait for each other.
        patient = (
            torch.distributed.new_group(backend="gloo", timeout=timedelta(days=2))
            if self.world > 1
            else None
        )
        for turn in (True, False):
            if self.accelerator.is_local_main_process == turn:
                try:
                    blocks = load_blocks(
                        self.config.corpus,
                        self.tokenizer,
                        self.config.block_size,
                        self.config.streaming,
                    )
                except (
                    UserError
                ) as raised:  # not before the others have been let go on, lest they wait for ever
                    error = raised
            if patient is not None:
                torch.distributed.barrier(patient)
        if error is not None:
            raise error
        if not blocks.streaming and len(blocks.train) < self.config.batch_size:
            raise UserError(
                f"The corpus gives {len(blocks.train)} blocks of {self.config.block_size} tokens, less than a batch of "
                f"{self.config.batch_size}.",
                "Give more text, or lower --batch_size or --block_size.",
            )
        return blocks

    def _length(self) -> tuple[int, int | None]:
        """(optimizer steps, sequences they read)."""
        config = self.config
        if config.max_steps:
            return config.max_steps, None
        if self.blocks.streaming:
            raise UserError(
                "A corpus that streams has no known length.",
                "Say how long to train by --max_steps.",
            )
        sequences = max(round(config.epochs * len(self.blocks.train)), 1)
        return -(-sequences // config.batch_size), sequences

    @contextlib.contextmanager
    def _main_process_decides(self) -> Iterator[None]:
        """Let every process raise the `UserError` that the main one met, lest the others wait for it for ever."""
        error = None
        try:
            yield
        except UserError as raised:
            error = raised
        error = broadcast_object_list([error])[0]
        if error is not None:
            raise error

    def _batches(self, start: int, positions: dict[str, dict] | None = None) -> DataLoader:
        """The steps from `start` on; `positions`: where a resumed run stood in its stream."""
        config = self.config
        sample = (
            config.soft_target_fraction
            if config.alpha_ce and config.soft_targets == "sample"
            else 0.0
        )
        words = (config.mlm_probability, config.mask_smoothing, config.seed, self.blocks.counts)
        masking = DynamicMasking(self.tokenizer, *words, sample)
        shared = (self.blocks.train, masking, config.batch_size, config.micro_batch_size)
        pin = self.device.type == "cuda"
        if self.blocks.streaming:
            batches = StreamBatches(
                *shared, rank=self.rank, world=self.world, start=start, positions=positions
            )
            return DataLoader(
                batches,
                batch_size=None,
                num_workers=min(config.dataloader_num_workers, 1),
                pin_memory=pin,
            )
        batches = StepBatches(
            *shared, seed=config.seed, rank=self.rank, world=self.world, total=self.sequences
        )
        return DataLoader(
            batches,
            batch_size=None,
            sampler=range(start, self.steps),
            num_workers=config.dataloader_num_workers,
            pin_memory=pin,
        )
