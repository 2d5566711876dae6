"""Pretrain ELMo's two language models on the text that the default teacher has read.

    python -m distil_lib.elmo_pretrain --output runs/elmo-mini            # one pass over the installed documentation
    python -m distil_lib.finetune --model runs/elmo-mini/model --task doc-package --learning_rate 1e-3

Peters et al. (2018), section 3.1: from the left the next word is predicted, from the right the one before, by LSTMs of their own and one
softmax for both. Here it is a full softmax over the most frequent words; all others are one class, and so are the two ends of a text.
Documents, and which of them are held out, are those of `pretrain` (`corpus`, `blocks.split_documents`); `transformers.Trainer` trains.
A run cannot be gone on with: one that is stopped has written its metrics and no model.
"""

import argparse
import json
import math
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import datasets
import numpy as np
import torch
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers import logging as transformers_logging

from distil_lib.blocks import split_documents
from distil_lib.checkpoint import whole_folder
from distil_lib.config import SettingsParser, option
from distil_lib.corpus import load_documents
from distil_lib.elmo import Elmo, ElmoConfig, ElmoPreTrainedModel, character_ids, ends
from distil_lib.elmo_tokenizer import new_tokenizer
from distil_lib.errors import UserError, exit_on_user_error
from distil_lib.finetune import environment_kept
from distil_lib.fused import fused_vocabulary_losses
from distil_lib.hardware import default_threads, describe_machine, probe_precision
from distil_lib.masking import IGNORED

PADDING, BEGIN, END, FIRST = range(4)  # numbers of words: none, a text's begin and end, and the first of the words proper
SIZES = ("max_characters", "filters", "cell_size", "projection_size", "encoder_size", "classifier_size")  # go into the `ElmoConfig`
UNKNOWN, EDGE = 0, 1  # classes: all that is rare, and a text's begin or end; then the frequent words


@dataclass
class ElmoPretrainConfig:
    """Every setting of a run; the sizes are those of a model that learns something within minutes."""

    output: str = option("runs/elmo-mini", "run folder to write: model/ and metrics.jsonl")
    corpus: str = option("docs", '"docs" (installed documentation), a file or folder, or "hub:OWNER/NAME[:CONFIG[:SPLIT]]"')
    vocabulary: int = option(8192, "classes of the softmax: the most frequent words, and one for all others")
    block_size: int = option(32, "most words of a text; longer documents become several")
    max_characters: int = option(24, "of a word, its begin and end among them; what is longer is cut")
    filters: list[int] = field(
        default_factory=lambda: [16, 16, 32, 64, 128], metadata={"help": "convolutions of widths 1, 2, ...: how many of each"}
    )
    cell_size: int = option(512, "cells of each LSTM")
    projection_size: int = option(128, "numbers that they are projected to; a word's vector has twice as many")
    encoder_size: int = option(192, "of the baseline that a fine-tuning puts on top: its LSTM's cells in each direction")
    classifier_size: int = option(128, "of the baseline: its hidden layer")
    batch_size: int = option(32, "texts of a step")
    epochs: float = option(1.0, "passes over the training documents")
    max_steps: int = option(0, "steps, instead of passes; 0 to count those")
    learning_rate: float = option(1e-2, "at its highest, after the warm-up")
    warmup: float = option(0.05, "share of the steps in which the learning rate rises; then it falls linearly to 0")
    max_grad_norm: float = option(1.0, "gradients are clipped to this norm")
    seed: int = option(0, "of weights and order")
    precision: str = option("auto", "fp32, bf16 (autocast), or auto: whichever is quicker on this machine, measured")
    threads: int = option(0, "CPU threads; 0 for all cores")
    log_every: int = option(50, "steps between two lines of metrics.jsonl")
    eval_blocks: int = option(500, "held-out texts that are evaluated at the end")

    def __post_init__(self):
        counts = ("block_size", "batch_size", "log_every", "eval_blocks", "cell_size", "projection_size", "encoder_size", "classifier_size")
        for name in (*counts, "learning_rate", "max_grad_norm"):
            if getattr(self, name) <= 0:
                raise UserError(f"{name} is {getattr(self, name)}.", "It must be positive.")
        for name in ("max_steps", "epochs", "seed", "threads"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} is {getattr(self, name)}.", "It must not be negative.")
        if not self.filters or min(self.filters) < 1 or len(self.filters) > self.max_characters:
            raise UserError(f"filters are {self.filters}.", f"Give 1 to {self.max_characters} positive numbers, one for each width.")
        if self.max_characters < 4 or self.vocabulary < 3:
            raise UserError(f"max_characters is {self.max_characters}, vocabulary {self.vocabulary}.", "At least 4 and 3 are needed.")
        if not (self.max_steps or self.epochs) or not 0 <= self.warmup < 1:
            raise UserError(f"epochs is {self.epochs}, warmup {self.warmup}.", "Ask for some training; the warm-up is a share of it.")
        if self.precision not in ("auto", "fp32", "bf16"):
            raise UserError(f"precision is {self.precision!r}.", "Choose one of auto, fp32, bf16.")


# -------------------------------------------------------------------------------------------------------------------------- text
@dataclass
class Words:
    """Documents as numbers of words.

    characters: (N, C) the character ids of each number's word, PADDING's all 0. classes: (N,) its class, IGNORED for PADDING.
    frequency: (classes,) how often each class occurs in the training documents. train, held_out: texts, (T,) each, without their ends.
    """

    characters: Tensor
    classes: Tensor
    frequency: np.ndarray
    train: list[np.ndarray]
    held_out: list[np.ndarray]


def load_words(config: ElmoPretrainConfig) -> Words:
    """The corpus in words. Raises `UserError` if it streams, or has too little to give."""
    documents = load_documents(config.corpus)
    if isinstance(documents, datasets.IterableDataset):
        raise UserError(f"{config.corpus} does not fit on the disk.", "Take a corpus that does: its words are counted beforehand.")
    numbers: dict[str, int] = {}
    split, texts = new_tokenizer().words, []
    for part in split_documents(documents):
        rows = (np.array([numbers.setdefault(word, FIRST + len(numbers)) for word in split(text)], np.int32) for text in part["text"])
        texts.append([row[start : start + config.block_size] for row in rows for start in range(0, len(row), config.block_size)])
    train, held_out = texts
    if not train or not held_out:
        raise UserError(f"{config.corpus} has no words to learn from or to hold out.", "Give more text.")
    count = np.bincount(np.concatenate(train), minlength=FIRST + len(numbers))
    frequent = np.argsort(-count[FIRST:], kind="stable")[: config.vocabulary - EDGE - 1] + FIRST
    frequent = frequent[count[frequent] > 0]
    classes = np.full(len(count), UNKNOWN)
    classes[PADDING], classes[[BEGIN, END]], classes[frequent] = IGNORED, EDGE, np.arange(len(frequent)) + EDGE + 1
    count[[BEGIN, END]] = len(train), 0  # of its two ends a text's one is predicted in each direction
    frequency = np.bincount(classes[1:], weights=count[1:], minlength=EDGE + 1 + len(frequent))
    C = config.max_characters
    characters = torch.cat([torch.zeros(1, C, dtype=torch.int64), ends(C), *character_ids([list(numbers)], C)]).to(torch.int16)
    return Words(characters, torch.from_numpy(classes), frequency, train, held_out)


class Batches:
    """Texts to what `ElmoForPreTraining` reads: each distinct word of a batch goes through the character encoder once."""

    def __init__(self, words: Words):
        self.words = words

    def __call__(self, texts: Sequence[np.ndarray]) -> dict[str, Tensor]:
        numbers = np.full((len(texts), max(map(len, texts)) + 2), PADDING)
        for row, text in zip(numbers, texts, strict=True):
            row[: len(text) + 2] = [BEGIN, *text, END]
        distinct, places = np.unique(numbers, return_inverse=True)
        places = torch.from_numpy(places.reshape(numbers.shape))
        characters = self.words.characters[torch.from_numpy(distinct)].long()
        return {"characters": characters, "places": places, "labels": self.words.classes[torch.from_numpy(numbers)]}


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
        directions = ((left[:, :-1], labels[:, 1:]), (right[:, 1:], labels[:, :-1].where(labels[:, 1:] != IGNORED, IGNORED)))
        weight = 0.5 / words.item()
        results = [
            fused_vocabulary_losses(states.flatten(0, 1), self.softmax.weight, self.softmax.bias, None, y.flatten(), mlm_weight=weight)
            for states, y in directions
        ]
        return {"loss": results[0][0] + results[1][0], "sums": torch.stack([result[2] for result in results]), "words": words}


@torch.no_grad()
def perplexities(model: ElmoForPreTraining, texts: Sequence[np.ndarray], batches: Batches, batch_size: int) -> tuple[float, float]:
    """Of the words of texts, from the left and from the right: e to the mean loss over all words, not over batches."""
    was_training = model.training
    model.eval()
    sums, words = torch.zeros(2, dtype=torch.float64), 0
    for start in range(0, len(texts), batch_size):
        outputs = model(**{k: v.to(model.device) for k, v in batches(texts[start : start + batch_size]).items()})
        sums, words = sums + outputs["sums"].cpu(), words + int(outputs["words"])
    model.train(was_training)
    return tuple((sums / words).exp().tolist())


def unigram_perplexity(words: Words, texts: Sequence[np.ndarray]) -> float:
    """Of a model that knows nothing but how often each class occurs (one more than it does, so that none is impossible)."""
    log_p = np.log((words.frequency + 1) / (words.frequency + 1).sum())
    losses = [log_p[words.classes.numpy()[text]].sum() + log_p[EDGE] for text in texts]
    return math.exp(-sum(losses) / sum(len(text) + 1 for text in texts))


# --------------------------------------------------------------------------------------------------------------------------- run
class MetricsLine(TrainerCallback):
    """Each of the trainer's logs as a line of metrics.jsonl, and on the screen."""

    def __init__(self, path: Path):
        self.path = path

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs:
            row = {"step": state.global_step, "loss": float(logs["loss"]), "learning_rate": float(logs["learning_rate"])}
            with self.path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(f"step {state.global_step:,} of {state.max_steps:,}: loss {row['loss']:.3f}", flush=True)


def pretrain(config: ElmoPretrainConfig, arguments: Sequence[str] = ()) -> dict:
    """Train, and write the model with its tokenizer: the record that stands beside them. Raises `UserError` for bad input."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise UserError("ELMo is pretrained in one process.", "Start it with `python -m distil_lib.elmo_pretrain`, without a launcher.")
    folder = Path(config.output)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already, and not empty.", "Choose another --output, or delete it.")
    torch.set_num_threads(config.threads or default_threads())
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    precision = probe_precision(device) if config.precision == "auto" else config.precision
    torch.manual_seed(config.seed)
    words = load_words(config)
    size, unigram = sum(map(len, words.train)), unigram_perplexity(words, words.held_out)
    print(f"{size:,} words to learn from; held-out unigram perplexity {unigram:.1f} (loss {math.log(unigram):.3f})", flush=True)
    model = ElmoForPreTraining(ElmoConfig(**{name: getattr(config, name) for name in SIZES}, classes=len(words.frequency)))
    # How frequent the words are need not be learned: it is where the softmax starts.
    model.softmax.bias.data = torch.from_numpy(np.log((words.frequency + 1) / (words.frequency + 1).sum())).float()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made ({error.strerror}).", "Choose another --output.") from error
    steps = config.max_steps or max(round(config.epochs * len(words.train) / config.batch_size), 1)
    with environment_kept():
        trainer = Trainer(
            model=model, args=_arguments(config, steps, precision, device), train_dataset=words.train, data_collator=Batches(words),
            callbacks=[MetricsLine(folder / "metrics.jsonl")],
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.model_accepts_loss_kwargs = False  # the loss is a mean over the batch
        seconds = trainer.train().metrics["train_runtime"]
    held_out = words.held_out[:: max(len(words.held_out) // config.eval_blocks, 1)][: config.eval_blocks]  # from all over
    left, right = perplexities(model, held_out, trainer.data_collator, config.batch_size)
    read = steps * config.batch_size / len(words.train)  # passes
    record = {
        "command": shlex.join(["python", "-m", "distil_lib.elmo_pretrain", *arguments]),
        "configuration": asdict(config) | {"precision": precision}, "parameters": model.num_parameters(), "machine": describe_machine(),
        "steps": steps, "epochs": read, "seconds": round(seconds), "words_per_second": round(read * size / seconds),
        "perplexity": {"left": left, "right": right, "unigram": unigram_perplexity(words, held_out), "texts": len(held_out)},
    }  # fmt: skip
    with whole_folder(folder / "model") as beside:
        model.save_pretrained(beside)
        new_tokenizer().save_pretrained(beside)
        (beside / "pretraining.json").write_text(json.dumps(record, indent=1))
    return record


def _arguments(config: ElmoPretrainConfig, steps: int, precision: str, device: torch.device) -> TrainingArguments:
    arguments = TrainingArguments(
        output_dir=config.output, seed=config.seed, max_steps=steps, per_device_train_batch_size=config.batch_size, weight_decay=0.0,
        learning_rate=config.learning_rate, lr_scheduler_type="linear", warmup_steps=round(config.warmup * steps),
        max_grad_norm=config.max_grad_norm, optim="adamw_torch_fused", adam_beta2=0.99, bf16=precision == "bf16",
        use_cpu=device.type == "cpu", dataloader_pin_memory=device.type == "cuda", logging_steps=config.log_every, save_strategy="no",
        report_to="none", disable_tqdm=True, remove_unused_columns=False,
    )  # fmt: skip
    arguments.n_gpu  # noqa: B018  (looked up once, and then kept)
    arguments._n_gpu = 1  # as in fine-tuning
    return arguments


def parse_arguments(arguments: list[str] | None = None) -> ElmoPretrainConfig:
    """The configuration of a command line. Raises `UserError`."""
    parser = SettingsParser(
        ElmoPretrainConfig,
        prog="python -m distil_lib.elmo_pretrain",
        usage="%(prog)s [--SETTING VALUE ...]",
        description="Pretrain ELMo's two language models (Peters et al. 2018, section 3.1).",
        epilog="Exit codes: 0 done, 2 bad input, 130 stopped by Ctrl-C; what is stopped is lost.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    return ElmoPretrainConfig(**vars(parser.parse_args(arguments)))


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()
    with exit_on_user_error():
        config = parse_arguments(arguments)
        try:
            record = pretrain(config, arguments)
        except KeyboardInterrupt:
            print("stopped; there is no model.", file=sys.stderr, flush=True)
            sys.exit(130)
        told = ", ".join(f"{value:.1f} {name}" for name, value in record["perplexity"].items() if name != "texts")
        print(f"held-out perplexity: {told}; {record['words_per_second']:,} words/s; model in {config.output}/model", flush=True)


if __name__ == "__main__":
    main()
