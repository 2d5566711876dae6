"""Pretrain ELMo's two language models on the text that the default teacher has read.

    python -m distil_lib.elmo.pretrain --output runs/elmo-mini            # one pass over the installed documentation
    python -m distil_lib.elmo.pretrain --output runs/elmo-mini --resume   # go on after a stop
    python -m distil_lib.finetune --model runs/elmo-mini/model --task doc-package --learning_rate 1e-3

Peters et al. (2018), section 3.1: from the left the next word is predicted, from the right the one before, by LSTMs of their own and one
softmax for both. Here it is a full softmax over the most frequent words; all others are one class, and so are the two ends of a text.
Documents, and which of them are held out, are those of `pretrain` (`corpus`, `blocks.split_documents`); `transformers.Trainer` trains,
and its checkpoints are what a run goes on from: it ends with the weights of a run that was never stopped.
"""

import json
import math
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from safetensors.torch import load_model
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainingArguments

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
from distil_lib.common.files import atomic_folder
from distil_lib.common.hardware import default_threads, describe_machine, probe_precision
from distil_lib.common.trainer import environment_kept
from distil_lib.elmo.model import Elmo, ElmoConfig, ElmoPreTrainedModel
from distil_lib.elmo.resume import MetricsLine, Stop, begin, clear, full_disk_named, note
from distil_lib.elmo.tokenizer import new_tokenizer
from distil_lib.elmo.vocabulary import Batches, load_words, unigram_perplexity
from distil_lib.errors import UserError
from distil_lib.fused_losses import fused_vocabulary_losses
from distil_lib.losses import IGNORED

SIZES = (
    "max_characters",
    "filters",
    "cell_size",
    "projection_size",
    "encoder_size",
    "classifier_size",
)  # go into the `ElmoConfig`
RESUMABLE_OVERRIDES = (
    "output",
    "resume",
    "threads",
    "log_every",
    "save_every",
    "eval_blocks",
)  # they change nothing of what is learned


@dataclass
class ElmoPretrainConfig(Settings):
    """Every setting of a run; the sizes are those of a model that learns something within minutes."""

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
parse_arguments = PROGRAM.parse


# ------------------------------------------------------------------------------------------------------------------------- model
class ElmoForPreTraining(ElmoPreTrainedModel):
    """ELMo with the softmax that it was trained with, one for both directions (Peters et al. 2018, section 3.1)."""

    def __init__(self, config: ElmoConfig):
        super().__init__(config)
        self.elmo, self.softmax = Elmo(config), nn.Linear(config.projection_size, config.classes)
        self.post_init()

    def forward(self, characters: Tensor, places: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """`loss`, the mean of the two directions' mean loss to a word; `sums` (2,) its sum from the left and from the right; `words`.

        characters: (U, C) distinct words. places: (B, T + 2) which of them stands where, the ends too. labels: (B, T + 2) the classes
        of the words themselves, -100 at padding: each direction predicts that of the next word it will read.
        """
        vectors, lengths = self.elmo.characters(characters)[places], (labels != IGNORED).sum(1)
        left, right = self.elmo.bilm(vectors, lengths)[-1].chunk(2, -1)
        words = (lengths - 1).sum()
        directions = (
            (left[:, :-1], labels[:, 1:]),
            (right[:, 1:], labels[:, :-1].where(labels[:, 1:] != IGNORED, IGNORED)),
        )
        weight = 0.5 / words.item()
        results = [
            fused_vocabulary_losses(
                states.flatten(0, 1),
                self.softmax.weight,
                self.softmax.bias,
                None,
                y.flatten(),
                mlm_weight=weight,
            )
            for states, y in directions
        ]
        return {
            "loss": results[0][0] + results[1][0],
            "sums": torch.stack([result[2] for result in results]),
            "words": words,
        }


@torch.no_grad()
def perplexities(
    model: ElmoForPreTraining, texts: Sequence[np.ndarray], batches: Batches, batch_size: int
) -> tuple[float, float]:
    """Of the words of texts, from the left and from the right: e to the mean loss over all words, not over batches."""
    was_training = model.training
    model.eval()
    sums, words = torch.zeros(2, dtype=torch.float64), 0
    for start in range(0, len(texts), batch_size):
        outputs = model(
            **{k: v.to(model.device) for k, v in batches(texts[start : start + batch_size]).items()}
        )
        sums, words = sums + outputs["sums"].cpu(), words + int(outputs["words"])
    model.train(was_training)
    return tuple((sums / words).exp().tolist())


# --------------------------------------------------------------------------------------------------------------------------- run
def pretrain(
    config: ElmoPretrainConfig, arguments: Sequence[str] = (), stop: Stop | None = None
) -> dict:
    """Train, and write the model with its tokenizer: the record that stands beside them.

    Raises `UserError` for bad input, and `SystemExit` (128 + the signal) where `stop` was called and there is something to go on from.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise UserError(
            "ELMo is pretrained in one process.",
            "Start it with `python -m distil_lib.elmo.pretrain`, without a launcher.",
        )
    folder, stop = Path(config.output), stop or Stop()
    checkpoint, begun, settings = begin(folder, asdict(config), config.resume, RESUMABLE_OVERRIDES)
    torch.set_num_threads(config.threads or default_threads())
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    precision = settings["precision"]
    if precision == "auto":
        precision = settings["precision"] = probe_precision(device)
    torch.manual_seed(config.seed)
    words = load_words(config.corpus, config.vocabulary, config.block_size, config.max_characters)
    size, unigram = sum(map(len, words.train)), unigram_perplexity(words, words.held_out)
    print(
        f"{size:,} words to learn from; held-out unigram perplexity {unigram:.1f} (loss {math.log(unigram):.3f})",
        flush=True,
    )
    model = ElmoForPreTraining(
        ElmoConfig(**{name: getattr(config, name) for name in SIZES}, classes=len(words.frequency))
    )
    # How frequent the words are need not be learned: it is where the softmax starts.
    model.softmax.bias.data = torch.from_numpy(
        np.log((words.frequency + 1) / (words.frequency + 1).sum())
    ).float()
    note(folder, settings, words.fingerprint(), new=checkpoint is None)
    steps = config.max_steps or max(round(config.epochs * len(words.train) / config.batch_size), 1)
    metrics = MetricsLine(folder / "metrics.jsonl", begun)
    with environment_kept(), full_disk_named(folder, 16 * model.num_parameters()):
        trainer = Trainer(
            model=model,
            args=_arguments(config, steps, precision, device),
            train_dataset=words.train,
            data_collator=Batches(words),
            callbacks=[metrics, stop],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.model_accepts_loss_kwargs = False  # the loss is a mean over the batch
        if begun < steps:
            trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
        else:  # of a run that has all its steps the Trainer would take one more
            load_model(model, str(checkpoint / "model.safetensors"))
    seconds = metrics.seconds()
    if (done := trainer.state.global_step or begun) < steps:
        print(
            f"stopped by {signal.Signals(stop.number).name} and saved at step {done}; go on with --resume",
            flush=True,
        )
        sys.exit(128 + stop.number)
    held_out = words.held_out[:: max(len(words.held_out) // config.eval_blocks, 1)][
        : config.eval_blocks
    ]  # from all over
    left, right = perplexities(model, held_out, trainer.data_collator, config.batch_size)
    read = steps * config.batch_size / len(words.train)  # passes
    record = {
        "command": shlex.join(["python", "-m", "distil_lib.elmo.pretrain", *arguments]),
        "configuration": asdict(config) | {"precision": precision},
        "parameters": model.num_parameters(),
        "machine": describe_machine(),
        "steps": steps,
        "epochs": read,
        "seconds": round(seconds),
        "words_per_second": round(read * size / seconds),
        "perplexity": {
            "left": left,
            "right": right,
            "unigram": unigram_perplexity(words, held_out),
            "texts": len(held_out),
        },
    }
    with atomic_folder(folder / "model") as beside:
        model.save_pretrained(beside)
        new_tokenizer().save_pretrained(beside)
        (beside / "pretraining.json").write_text(json.dumps(record, indent=1))
    clear(folder)
    return record


def _arguments(
    config: ElmoPretrainConfig, steps: int, precision: str, device: torch.device
) -> TrainingArguments:
    arguments = TrainingArguments(
        output_dir=config.output,
        seed=config.seed,
        max_steps=steps,
        per_device_train_batch_size=config.batch_size,
        weight_decay=0.0,
        learning_rate=config.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=round(config.warmup_ratio * steps),
        max_grad_norm=config.max_grad_norm,
        optim="adamw_torch_fused",
        adam_beta2=0.99,
        bf16=precision == "bf16",
        use_cpu=device.type == "cpu",
        dataloader_pin_memory=device.type == "cuda",
        logging_steps=config.log_every,
        save_strategy="steps",
        save_steps=config.save_every,
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    arguments.n_gpu
    arguments._n_gpu = 1  # as in fine-tuning
    return arguments


def _run(config: ElmoPretrainConfig, arguments: Sequence[str]) -> str:
    stop = Stop()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    record = pretrain(config, arguments, stop)
    found = ", ".join(
        f"{value:.1f} {name}" for name, value in record["perplexity"].items() if name != "texts"
    )
    speed = f"{record['words_per_second']:,} words/s"
    return f"held-out perplexity: {found}; {speed}; model in {config.output}/model"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program. It ends by `SystemExit` where there is an error, or where it was stopped."""
    PROGRAM.run(_run, arguments)


if __name__ == "__main__":
    main()
