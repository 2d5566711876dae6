"""Settings of ELMo's pretraining, and its command line."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from distil_lib.common.cli import (
    Fraction,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Precision,
    Program,
    Seed,
    Settings,
    Threads,
    Width,
    option,
)
from distil_lib.errors import UserError

# They change nothing of what is learned.
RESUMABLE_OVERRIDES = ("output", "resume", "threads", "log_every", "save_every", "eval_blocks")


@dataclass
class ElmoPretrainConfig(Settings):
    """Every setting of a run; by default a model that learns something within minutes."""

    output: str = option("runs/elmo-mini", "run folder to write: model/ and metrics.jsonl")
    corpus: str = option(
        "docs",
        '"docs" (installed documentation), a file or folder, or "hub:OWNER/NAME[:CONFIG[:SPLIT]]"',
    )
    vocabulary: Annotated[int, Field(ge=3, le=10**6)] = option(
        8192, "classes of the softmax: the most frequent words, and one for all others"
    )
    block_size: Width = option(32, "most words of a text; longer documents become several")
    max_characters: Annotated[int, Field(ge=4, le=1000)] = option(
        24, "of a word, its begin and end among them; what is longer is cut"
    )
    filters: Annotated[list[Width], Field(min_length=1)] = option(
        [16, 16, 32, 64, 128], "convolutions of widths 1, 2, ...: how many of each"
    )
    cell_size: Width = option(512, "cells of each LSTM")
    projection_size: Width = option(
        128, "numbers that they are projected to; a word's vector has twice as many"
    )
    encoder_size: Width = option(
        192, "of the baseline that a fine-tuning puts on top: its LSTM's cells in each direction"
    )
    classifier_size: Width = option(128, "of the baseline: its hidden layer")
    batch_size: PositiveInt = option(32, "texts of a step")
    epochs: Annotated[float, Field(ge=0, le=1e6)] = option(
        1.0, "passes over the training documents"
    )
    max_steps: NonNegativeInt = option(0, "steps, instead of passes; 0 to count those")
    learning_rate: PositiveFloat = option(1e-2, "at its highest, after the warm-up")
    warmup_ratio: Fraction = option(
        0.05, "fraction of the steps in which the learning rate rises; then it falls linearly to 0"
    )
    max_grad_norm: PositiveFloat = option(1.0, "gradients are clipped to this norm")
    seed: Seed = option(0, "of weights and order")
    precision: Precision = option(
        "auto", "fp32, bf16 (autocast), or auto: whichever is quicker on this machine, measured"
    )
    threads: Threads = option(0, "CPU threads; 0 for all cores")
    log_every: PositiveInt = option(50, "steps between two lines of metrics.jsonl")
    save_every: PositiveInt = option(
        250, "steps between two checkpoints; a signal has one written, too"
    )
    resume: bool = option(False, "resume from the newest complete checkpoint of the output folder")
    eval_blocks: PositiveInt = option(500, "held-out texts that are evaluated at the end")

    def check(self) -> None:
        """See `Settings.check`."""
        if len(self.filters) > self.max_characters:
            raise UserError(
                f"There are {len(self.filters)} widths of filters.",
                f"A word has {self.max_characters} characters: give no more.",
                setting="filters",
            )
        if not (self.max_steps or self.epochs):
            raise UserError(
                "Neither max_steps nor epochs is positive.",
                "Say how long to train.",
                setting=("max_steps", "epochs"),
            )


PROGRAM = Program(
    ElmoPretrainConfig,
    "python -m distil_lib.elmo.pretrain",
    "Pretrain ELMo's two language models (Peters et al. 2018, section 3.1).",
    codes="130 or 143 stopped by Ctrl-C or SIGTERM; --resume continues",
)
