"""Pretrain ELMo's two language models on the text that the default teacher has read.

    python -m distil_lib.elmo.pretrain --output runs/elmo-mini            # one pass over the text
    python -m distil_lib.elmo.pretrain --output runs/elmo-mini --resume   # go on after a stop
    python -m distil_lib.finetune --model runs/elmo-mini/model --task doc-package

Documents, and which of them are held out, are those of `distil_lib.pretrain`. The Trainer of
`transformers` trains, saves and resumes: a run that was stopped ends with the weights and the
figures of one that was not. Optimizer and random states of a checkpoint (`optimizer.pt`,
`rng_state.pth`) are pickles that this program itself has written; the Trainer opens them with
`weights_only`.
"""

import json
import math
import shlex
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_model

from distil_lib.common.errors import resumable
from distil_lib.common.files import atomic_folder, locked, write_result
from distil_lib.common.hardware import (
    current_device,
    describe_machine,
    launch_precision,
    probe_precision,
    set_threads,
)
from distil_lib.common.trainer import environment_kept
from distil_lib.elmo.config import PROGRAM, ElmoPretrainConfig
from distil_lib.elmo.language_model import ElmoForPreTraining, perplexities
from distil_lib.elmo.model import ElmoConfig
from distil_lib.elmo.run_folder import (
    LOCK,
    SETTINGS,
    full_disk_named,
    latest_valid_checkpoint,
    open_run,
)
from distil_lib.elmo.tokenizer import new_tokenizer
from distil_lib.elmo.trainer import Recorder, diverged, new_trainer
from distil_lib.elmo.vocabulary import Words, load_words, unigram_perplexity
from distil_lib.errors import UserError
from distil_lib.model_folder import check_finite
from distil_lib.training.metrics_file import MetricsFile
from distil_lib.training.run_folder import saving
from distil_lib.training.sharding import check_alone

# Settings of the model.
SIZES = "max_characters filters cell_size projection_size encoder_size classifier_size".split()


def _steps(config: ElmoPretrainConfig, words: Words) -> int:
    return config.max_steps or max(round(config.epochs * len(words.train) / config.batch_size), 1)


def _new_model(config: ElmoPretrainConfig, words: Words) -> ElmoForPreTraining:
    torch.manual_seed(config.seed)
    sizes = {name: getattr(config, name) for name in SIZES}
    model = ElmoForPreTraining(ElmoConfig(**sizes, classes=len(words.frequency)))
    # How frequent the words are need not be learned: it is where the softmax starts.
    shares = (words.frequency + 1) / (words.frequency + 1).sum()
    model.softmax.bias.data = torch.from_numpy(np.log(shares)).float()
    return model


def pretrain(config: ElmoPretrainConfig, arguments: Sequence[str] = ()) -> dict:
    """Train, and write the model with its tokenizer and the record that is returned.

    SIGINT and SIGTERM end the training after the current step, with a checkpoint.

    Raises:
        UserError: for bad input, and for a loss that is not a number.
        SystemExit: (128 + the signal) where the training was stopped.
    """
    check_alone("ELMo is pretrained", "distil_lib.elmo.pretrain")
    config = replace(config, precision=launch_precision(config.precision))
    settings, folder = open_run(config), Path(config.output)
    set_threads(config.threads)
    words = load_words(config.corpus, config.vocabulary, config.block_size, config.max_characters)
    text = words.fingerprint()
    if settings.get("text", text) != text:
        raise UserError(
            f"The text has changed since {folder} was started.",
            "Bring it back, or start again in another folder.",
            setting=("corpus", "output"),
        )
    settings["text"] = text
    if settings["precision"] == "auto":
        settings["precision"] = probe_precision(current_device())
    size, unigram = sum(map(len, words.train)), unigram_perplexity(words, words.held_out)
    print(f"{size:,} words to learn from; held-out unigram perplexity {unigram:.1f}", flush=True)
    model = _new_model(config, words)
    with locked(folder, folder / LOCK):
        open_run(config)  # again: another run may just have ended
        if not config.resume:
            write_result(folder / SETTINGS, settings)
        with resumable(), saving(folder):
            seconds = _train(config, words, model, settings["precision"])
            trained, steps = _finished_model(folder), _steps(config, words)
            passes = steps * config.batch_size / len(words.train)
            record = {
                "command": shlex.join(["python", "-m", "distil_lib.elmo.pretrain", *arguments]),
                "configuration": asdict(config) | {"precision": settings["precision"]},
                "parameters": model.num_parameters(),
                "machine": describe_machine(),
                "steps": steps,
                "epochs": passes,
                "seconds": round(seconds),
                "words_per_second": round(passes * size / seconds),
                "perplexity": _evaluate(config, words, trained),
            }
            with atomic_folder(folder / "model") as beside:
                trained.save_pretrained(beside)
                new_tokenizer().save_pretrained(beside)
                (beside / "pretraining.json").write_text(
                    json.dumps(record, indent=1), encoding="utf-8"
                )
            for path in folder.glob("checkpoint-*"):  # a finished run no longer needs them
                shutil.rmtree(path)
            (folder / SETTINGS).unlink(missing_ok=True)
    return record


def _train(
    config: ElmoPretrainConfig, words: Words, model: ElmoForPreTraining, precision: str
) -> float:
    """Train up to the last step, whose checkpoint is kept. Returns the seconds of all processes."""
    folder = Path(config.output)
    checkpoint, state = latest_valid_checkpoint(folder) if config.resume else (None, {})
    metrics = MetricsFile(folder / "metrics.jsonl", state.get("metrics_bytes", 0))
    recorder = Recorder(metrics, config.log_every, state)
    handlers = {n: signal.signal(n, recorder) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        with environment_kept(), full_disk_named(folder, 16 * model.num_parameters()):
            trainer = new_trainer(config, words, model, precision, _steps(config, words))
            trainer.recorder = recorder
            trainer.add_callback(recorder)
            # Of a run that has all its steps the Trainer would take one more.
            if state.get("step", 0) < trainer.args.max_steps:
                trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
                if (step := trainer.state.global_step) < trainer.args.max_steps:
                    name = signal.Signals(recorder.signal).name
                    print(f"stopped by {name} and saved at step {step}; go on with --resume")
                    sys.exit(128 + recorder.signal)
        return recorder.seconds
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _finished_model(folder: Path) -> ElmoForPreTraining:
    """That of the last checkpoint, in float32, whatever the precision of the training was.

    So it does not matter whether this process has trained, or only found all steps done.
    """
    checkpoint, _ = latest_valid_checkpoint(folder)
    if checkpoint is None:
        raise UserError(f"{folder} has lost its last checkpoint.", "Start again.", "output")
    model = ElmoForPreTraining(ElmoConfig.from_pretrained(checkpoint))
    load_model(model, checkpoint / "model.safetensors")
    check_finite(checkpoint, model.state_dict())
    return model


def _evaluate(
    config: ElmoPretrainConfig, words: Words, model: ElmoForPreTraining
) -> dict[str, float]:
    """Perplexities on held-out texts from all over."""
    every = max(len(words.held_out) // config.eval_blocks, 1)
    held_out = words.held_out[::every][: config.eval_blocks]
    left, right = perplexities(model, words, held_out, config.batch_size)
    if not math.isfinite(left + right):
        raise diverged("The held-out perplexity after the last step", left + right)
    unigram = unigram_perplexity(words, held_out)
    return {"left": left, "right": right, "unigram": unigram, "texts": len(held_out)}


def _run(config: ElmoPretrainConfig, arguments: Sequence[str]) -> str:
    record = pretrain(config, arguments)
    found = ", ".join(
        f"{value:.1f} {name}" for name, value in record["perplexity"].items() if name != "texts"
    )
    speed = f"{record['words_per_second']:,} words/s"
    return f"held-out perplexity: {found}; {speed}; model in {config.output}/model"


main = partial(PROGRAM.run, _run)

if __name__ == "__main__":
    main()
