"""Fine-tune any checkpoint on a task, several times over, and keep what came of it.

    python -m distil_lib.finetune --model data/student --task doc-qa --seeds 5
    python -m distil_lib.finetune --model data/student --task doc-qa --distil_from runs/teacher-doc-qa/seed-0
    python -m distil_lib.finetune --model distilbert/distilbert-base-uncased-finetuned-sst-2-english --task sst2 --evaluate_only

Sanh et al. (2019), section 4 and Tables 1 and 2: the score after the last epoch, never the best one on the development set; the
median of the seeds. A seed decides the new head, the order of the examples and dropout. The result (see `results`) is written after
each seed: a call that was killed goes on at the next one.
"""

import datetime
import math
import os
import shlex
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from datasets import DatasetDict
from transformers import PreTrainedModel, PrinterCallback, TrainingArguments

from distil_lib.common.files import atomic_folder, write_result
from distil_lib.common.hardware import default_threads, describe_machine, probe_precision
from distil_lib.common.trainer import Progress, environment_kept
from distil_lib.errors import UserError
from distil_lib.finetune.config import FREE, FinetuneConfig
from distil_lib.finetune.features import Collator, Split, encode, predict, write_predictions
from distil_lib.finetune.models import (
    check_same_tokenizer,
    label_order,
    load_task_model,
    load_task_tokenizer,
    positions,
    weights_fingerprint,
)
from distil_lib.finetune.results import open_result, pack, read_result, summarize
from distil_lib.finetune.retention import retention
from distil_lib.finetune.trainer import TaskTrainer
from distil_lib.masking import random_stream
from distil_lib.tasks.registry import Task, find_task, fingerprint, load_task


def text_length(config: FinetuneConfig, task: Task, longest: int) -> int:
    """Tokens of a text: what was asked for, or the default of the task's kind, within what the model can read."""
    if config.max_length > longest:
        raise UserError(
            f"max_length is {config.max_length}; {config.model} reads {longest} tokens at most.",
            "Ask for no more than that.",
        )
    return config.max_length or min(
        384 if task.kind == "question answering" else 512 if task.name == "imdb" else 128, longest
    )


def _device() -> torch.device:
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


class Finetuning:
    """A configuration with everything loaded that its seeds share.

    Raises `UserError` for what is wrong before anything is trained.
    """

    def __init__(self, config: FinetuneConfig, progress: bool = False):
        self.config, self.progress = config, progress
        self.task = find_task(config.task)
        model = load_task_model(config.model, self.task, None if config.evaluate_only else 0)
        self.tokenizer = load_task_tokenizer(config.model)
        if len(self.tokenizer) > model.config.vocab_size:
            known = f"{config.model} knows {model.config.vocab_size} words and its tokenizer {len(self.tokenizer)}"
            raise UserError(
                f"{known}: they were not made for each other.",
                "Save the model's own tokenizer beside it.",
            )
        self.order = (
            label_order(model.config, self.task, config.model) if config.evaluate_only else []
        )
        self.weights = {"model": weights_fingerprint(config.model, model.config)}
        self.max_length = text_length(config, self.task, positions(model.config))
        self.teacher, self.teachers_order = None, []
        if config.distil_from:
            self._load_teacher(config.distil_from)
        self.collate = Collator(self.task, self.tokenizer)
        self._load_data()

    def _load_teacher(self, name: str) -> None:
        self.teacher = load_task_model(name, self.task)
        check_same_tokenizer(self.tokenizer, load_task_tokenizer(name), name)
        self.teachers_order = label_order(self.teacher.config, self.task, name)
        self.weights["teacher"] = weights_fingerprint(name, self.teacher.config)
        if self.max_length > positions(self.teacher.config):
            longest = positions(self.teacher.config)
            raise UserError(
                f"The teacher {name} reads {longest} tokens at most, not {self.max_length}.",
                f"Pass --max_length {longest}.",
            )

    def _load_data(self) -> None:
        config, task = self.config, self.task
        self.unlabelled = [split for split in task.splits if split.startswith("test")] or list(
            task.evaluation
        )
        reported = [*task.evaluation] if config.evaluate_only else ["train", *task.evaluation]
        wanted = [
            split
            for split in task.splits
            if split in reported or (config.predict and split in self.unlabelled)
        ]
        data = load_task(task, config.data_dir, wanted)[1]
        if config.predict and (
            missing := [split for split in self.unlabelled if split not in data]
        ):
            raise UserError(
                f"{task.name} lacks the split {', '.join(missing)} to predict.",
                "Add its file, or leave --predict away.",
            )
        if not config.evaluate_only and 0 < config.train_rows < len(data["train"]):
            rows = random_stream(0, 0, 0).permutation(len(data["train"]))[: config.train_rows]
            data["train"] = data["train"].select(sorted(rows.tolist()))
        self.data = {
            split: fingerprint(DatasetDict({split: data[split]}))
            for split in data
            if split in reported
        }
        splits = {
            split: Split(task, rows, encode(task, rows, self.tokenizer, self.max_length))
            for split, rows in data.items()
        }
        self.train, self.splits = splits.pop("train", None), splits

    def described(self, precision: str) -> dict:
        """All that decides what a seed computes, for the record."""
        settings = {name: value for name, value in asdict(self.config).items() if name not in FREE}
        return settings | {
            "precision": precision,
            "max_length": self.max_length,
            "weights": self.weights,
            "data": self.data,
        }

    def arguments(self, seed: int, folder: str, precision: str) -> TrainingArguments:
        """For `transformers.Trainer`: bias-corrected AdamW, warm-up, linear decay, no checkpoint and no evaluation on the way."""
        config = self.config
        steps = config.epochs * math.ceil(len(self.train.features) / config.batch_size)
        arguments = TrainingArguments(
            output_dir=folder,
            seed=seed,
            data_seed=seed,
            num_train_epochs=config.epochs,
            per_device_train_batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            lr_scheduler_type="linear",
            warmup_steps=round(config.warmup_ratio * steps),
            weight_decay=config.weight_decay,
            max_grad_norm=config.max_grad_norm,
            optim="adamw_torch_fused",
            bf16=precision == "bf16",
            train_sampling_strategy="group_by_length" if config.group_by_length else "random",
            length_column_name="length",
            save_strategy="no",
            eval_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            use_cpu=_device().type == "cpu",
            dataloader_pin_memory=_device().type == "cuda",
        )
        arguments.n_gpu
        arguments._n_gpu = 1  # with several, the Trainer would make the batches larger, and the teacher has one place only
        return arguments

    def fit(self, seed: int, precision: str) -> tuple[PreTrainedModel, dict]:
        """Train with one seed: the model after the last epoch, and what it took."""
        model = load_task_model(self.config.model, self.task, seed)
        if precision == "bf16" and _device().type == "cpu" and self.max_length <= 128:
            model.set_attn_implementation(
                "eager"
            )  # the same numbers; at short texts the fused backward pass is the slower one
        with tempfile.TemporaryDirectory() as folder, environment_kept():
            trainer = TaskTrainer(
                self.task,
                model=model,
                args=self.arguments(seed, folder, precision),
                train_dataset=self.train.features,
                data_collator=self.collate,
                teacher=self.teacher,
                order=self.teachers_order,
                alpha=self.config.alpha,
                temperature=self.config.temperature,
                callbacks=[Progress(f"{self.task.name}, seed {seed}", self.progress)],
            )
            trainer.remove_callback(PrinterCallback)
            begin = time.perf_counter()
            outcome = trainer.train()
            seconds = time.perf_counter() - begin
        tokens = self.config.epochs * sum(self.train.features["length"])
        took = {
            "steps": outcome.global_step,
            "training_loss": outcome.training_loss,
            "tokens": tokens,
        }
        return model, took | {
            "seconds": round(seconds, 2),
            "tokens_per_second": round(tokens / seconds),
        }

    def seed(self, seed: int, precision: str) -> dict:
        """Train (or only load), score, and write what was asked for: the record of one seed."""
        config = self.config
        if config.evaluate_only:
            model, took = load_task_model(config.model, self.task), {}
            model.to(_device())
        else:
            model, took = self.fit(seed, precision)
        run: dict[str, Any] = {"scores": {}} | took | {"predictions": {}}
        for name, split in self.splits.items():
            outputs = predict(model, split.features, self.collate, 2 * config.batch_size, precision)
            answers = split.answer(outputs, self.order)
            if name in self.task.evaluation:
                run["scores"][name] = self.task.compute(answers, split.truth)
                run["predictions"][name] = split.packed(answers)
            if config.predict and seed == 0 and name in self.unlabelled:
                write_predictions(split, answers, self.submission(name))
        if config.save:
            with atomic_folder(Path(config.save, f"seed-{seed}")) as beside:
                model.save_pretrained(beside)
                self.tokenizer.save_pretrained(beside)
        return run

    def labels(self) -> dict[str, str]:
        """The truth of each reported split, for the record; that of questions is in each answer's F1 already."""
        if self.task.kind == "question answering":
            return {}
        return {name: pack(self.splits[name].truth) for name in self.task.evaluation}

    def reported(self) -> dict[str, Split]:
        """The splits that a result depends on."""
        return ({"train": self.train} if self.train else {}) | {
            name: self.splits[name] for name in self.task.evaluation
        }

    def submission(self, split: str) -> Path:
        """Of MNLI two files, MNLI-m.tsv and MNLI-mm.tsv; of all others one."""
        file = Path(self.config.predict)
        suffix = {"test_matched": "-m", "test_mismatched": "-mm"}.get(split, "")
        return file.with_name(f"{file.stem}{suffix}{file.suffix}")

    def lacks(self, seed: int) -> bool:
        """Whether a file that was asked for is not there, so that a seed must be run although its scores are known."""
        missing = self.config.save and not Path(self.config.save, f"seed-{seed}").is_dir()
        return bool(
            missing
            or (
                self.config.predict
                and seed == 0
                and not all(self.submission(s).is_file() for s in self.unlabelled)
            )
        )


# -------------------------------------------------------------------------------------------------------------------- all seeds
def finetune(config: FinetuneConfig, arguments: Sequence[str] = (), progress: bool = False) -> dict:
    """Run the seeds that the result file does not have yet, and return the whole record.

    arguments: the command line, for the record. Raises `UserError` for bad input, before anything is written.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise UserError(
            "Fine-tuning runs in one process.",
            "Start it with `python -m distil_lib.finetune`, without a launcher.",
        )
    torch.set_num_threads(config.threads or default_threads())
    teacher = read_result(config.compare_with) if config.compare_with else None
    path, work = config.result_file(), Finetuning(config, progress)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{path.parent} cannot be made ({error.strerror}).", "Choose another --output."
        ) from error
    precision = config.precision
    if precision == "auto":  # what was measured once holds for all seeds
        saved = read_result(path)["configuration"].get("precision") if path.exists() else None
        precision = saved or probe_precision(_device())
    configuration, machine = work.described(precision), describe_machine()
    record = open_result(path, configuration) or {
        "task": config.task,
        "metric": work.task.main_metric,
        "split": work.task.evaluation[0],
        "command": shlex.join(["python", "-m", "distil_lib.finetune", *arguments]),
        "configuration": configuration,
        "rows": {name: len(split.rows) for name, split in work.reported().items()},
        "machine": machine,
        "labels": work.labels(),
        "summary": {},
        "seeds": {},
    }
    for seed in range(1 if config.evaluate_only else config.seeds):
        if str(seed) in record["seeds"] and not work.lacks(seed):
            continue
        begun = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        run = (
            work.seed(seed, precision)
            | {"begun": begun}
            | ({"machine": machine} if machine != record["machine"] else {})
        )
        record["seeds"] = dict(
            sorted({**record["seeds"], str(seed): run}.items(), key=lambda item: int(item[0]))
        )
        record["summary"] = summarize(record)
        write_result(path, record)
        if progress:
            _say(record, seed)
    if teacher is not None:
        print(_retained(retention(record, teacher), record, config.compare_with), flush=True)
    return record


def _say(record: dict, seed: int) -> None:
    run, split = record["seeds"][str(seed)], record["split"]
    scores = ", ".join(
        f"{metric} {score:.1f}"
        for name in run["scores"]
        for metric, score in run["scores"][name].items()
    )
    speed = (
        f"; {run['tokens_per_second']:,} tokens/s, {run['seconds']:.0f} s"
        if "seconds" in run
        else ""
    )
    middle = record["summary"][split][record["metric"]]
    over = f"; median of {len(record['seeds'])} {middle['median']:.1f} ({middle['q1']:.1f} to {middle['q3']:.1f})"
    print(f"{record['task']}, seed {seed}: {scores}{speed}{over}", flush=True)


def _retained(kept: dict[str, float], record: dict, teacher: str) -> str:
    return (
        f"{record['metric']} on {record['split']}: {kept['retention']:.1f}% of {teacher} ({kept['low']:.1f} to {kept['high']:.1f}); "
        f"difference {kept['difference']:+.1f} points ({kept['difference_low']:+.1f} to {kept['difference_high']:+.1f})"
    )
