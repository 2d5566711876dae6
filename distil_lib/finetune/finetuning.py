"""What the seeds of a fine-tuning share, loaded once, and what each of them does.

    work = Finetuning(config)
    run = work.seed(0, "fp32")          # {"scores": {...}, "predictions": {...}, "steps": ...}

Models are trained by the Trainer of `transformers` (`trainer.TaskTrainer`).
"""

import math
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict
from transformers import PreTrainedModel, PrinterCallback

from distil_lib.common.files import atomic_folder, check_writable
from distil_lib.common.hardware import current_device
from distil_lib.common.trainer import Progress, environment_kept, one_process, quick_attention
from distil_lib.errors import UserError
from distil_lib.finetune.config import FREE, FinetuneConfig
from distil_lib.finetune.features import (
    Collator,
    Split,
    encode,
    predict,
    text_length,
    write_predictions,
)
from distil_lib.finetune.models import (
    check_same_tokenizer,
    label_order,
    load_config,
    load_task_model,
    load_task_tokenizer,
    positions,
    weights_fingerprint,
)
from distil_lib.finetune.records import join_numbers
from distil_lib.finetune.trainer import TaskTrainer
from distil_lib.masking import random_stream
from distil_lib.tasks.registry import TASKS, find_task, fingerprints, load_task


def drawn_rows(rows: Dataset, number: int) -> Dataset:
    """So many rows, drawn at random, the same ones for all models; all of them for 0."""
    if not 0 < number < len(rows):
        return rows
    drawn = random_stream(0, 0, 0).permutation(len(rows))[:number]
    return rows.select(sorted(drawn.tolist()))


class Finetuning:
    """A configuration with everything loaded that its seeds share.

    Raises:
        UserError: for what is wrong before anything is trained.
    """

    def __init__(self, config: FinetuneConfig, progress: bool = False) -> None:
        self.config, self.progress = config, progress
        self.task = find_task(config.task)
        self.tokenizer = load_task_tokenizer(config.model)
        model_config = load_config(config.model)
        if len(self.tokenizer) > model_config.vocab_size:
            raise UserError(
                f"{config.model} knows {model_config.vocab_size} words and its tokenizer "
                f"{len(self.tokenizer)}: they were not made for each other.",
                "Save the model's own tokenizer beside it.",
            )
        self.weights = {"model": weights_fingerprint(config.model, model_config)}
        longest = positions(model_config)
        self.max_length = text_length(config.max_length, self.task, longest, config.model)
        data = self._load_data()
        # The labels of some tasks are known only now.
        self.order = []
        if config.evaluate_only:
            self.order = label_order(model_config, self.task, config.model)
        self.teacher: PreTrainedModel | None = None
        self.teachers_order: list[int] = []
        if config.distil_from:
            self._load_teacher(config.distil_from)
        self.collate = Collator(self.task, self.tokenizer)
        self.splits = {
            name: Split(self.task, rows, encode(self.task, rows, self.tokenizer, self.max_length))
            for name, rows in data.items()
        }
        self._check_targets()

    def _load_data(self) -> DatasetDict:
        """The splits that are read, `train_rows` of the first; the task gets its labels."""
        config, task = self.config, self.task
        tests = [split for split in task.splits if split.startswith("test")]
        self.to_predict = (tests or list(task.evaluation)) if config.predict else []
        self.reported = [*([] if config.evaluate_only else ["train"]), *task.evaluation]
        wanted = [name for name in task.splits if name in {*self.reported, *self.to_predict}]
        self.task, data = load_task(task, config.data_dir, wanted)
        if missing := [split for split in self.to_predict if split not in data]:
            raise UserError(
                f"{task.name} lacks the split {', '.join(missing)} to predict.",
                "Add its file, or predict nothing.",
                setting="predict",
            )
        if "train" in data:
            data["train"] = drawn_rows(data["train"], config.train_rows)
        self.data = fingerprints({name: data[name] for name in data if name in self.reported})
        return data

    def _load_teacher(self, name: str) -> None:
        self.teacher = load_task_model(name, self.task)
        check_same_tokenizer(self.tokenizer, load_task_tokenizer(name), name)
        self.teachers_order = label_order(self.teacher.config, self.task, name)
        self.weights["teacher"] = weights_fingerprint(name, self.teacher.config)
        if self.max_length > (longest := positions(self.teacher.config)):
            raise UserError(
                f"The teacher {name} reads {longest} tokens at most, not {self.max_length}.",
                f"Choose {longest}.",
                setting="max_length",
            )

    def _check_targets(self) -> None:
        """Try what will be written after the training before it."""
        if self.config.save:
            check_writable(Path(self.config.save, ".probe"), "save")
        for split in self.to_predict:
            check_writable(self.submission(split), "predict")
            ids = self.splits[split].rows["id"][:] if self.task.kind == "question answering" else []
            if len(set(ids)) < len(ids):
                raise UserError(
                    f"Questions of the split {split!r} share an id, and a file of predictions has "
                    "one answer for each id.",
                    "Give each question an id of its own, or predict nothing.",
                    setting="predict",
                )

    def described(self, precision: str) -> dict:
        """All that decides what a seed computes, for the record."""
        # A declared task is no setting that JSON can hold.
        plain = replace(self.config, task=self.task.name)
        settings = {name: value for name, value in asdict(plain).items() if name not in FREE}
        if self.task.name not in TASKS:
            settings["declaration"] = {
                name: getattr(self.task, name)
                for name in ("kind", "text", "label", "labels", "metric", "source")
            }
        return settings | {
            "precision": precision,
            "max_length": self.max_length,
            "weights": self.weights,
            "data": self.data,
        }

    def fit(self, seed: int, precision: str) -> tuple[PreTrainedModel, dict]:
        """Train with one seed.

        Returns:
            The model after the last epoch; steps, mean loss, tokens and seconds.
        """
        config, train, device = self.config, self.splits["train"], current_device()
        model = load_task_model(config.model, self.task, seed)
        if precision == "bf16" and quick_attention(device, self.max_length) == "eager":
            model.set_attn_implementation("eager")
        steps = config.epochs * math.ceil(len(train.features) / config.batch_size)
        with tempfile.TemporaryDirectory() as folder, environment_kept():
            arguments = one_process(
                config,
                steps,
                precision,
                output_dir=folder,
                seed=seed,
                data_seed=seed,
                num_train_epochs=config.epochs,
                weight_decay=config.weight_decay,
                train_sampling_strategy="group_by_length" if config.group_by_length else "random",
                save_strategy="no",
            )
            trainer = TaskTrainer(
                self.task,
                model=model,
                args=arguments,
                train_dataset=train.features,
                data_collator=self.collate,
                teacher=self.teacher,
                order=self.teachers_order,
                alpha=config.alpha,
                temperature=config.temperature,
                callbacks=[Progress(f"{self.task.name}, seed {seed}", self.progress)],
            )
            trainer.remove_callback(PrinterCallback)
            begin = time.perf_counter()
            outcome = trainer.train()
            seconds = time.perf_counter() - begin
        tokens = config.epochs * sum(train.features["length"])
        return model, {
            "steps": outcome.global_step,
            "training_loss": outcome.training_loss,
            "tokens": tokens,
            "seconds": round(seconds, 2),
            "tokens_per_second": round(tokens / seconds),
        }

    def seed(self, seed: int, precision: str) -> dict:
        """Train (or only load), score, and write what was asked for: the record of one seed."""
        config = self.config
        took: dict[str, Any] = {}
        if config.evaluate_only:
            model = load_task_model(config.model, self.task)
            model.to(current_device())  # type: ignore[arg-type]  # its decorator hides the signature
        else:
            model, took = self.fit(seed, precision)
        run: dict[str, Any] = {"scores": {}} | took | {"predictions": {}}
        for name, split in self.splits.items():
            if name not in (*self.task.evaluation, *self.to_predict):
                continue
            outputs = predict(model, split.features, self.collate, 2 * config.batch_size, precision)
            answers = split.decode(outputs, self.order)
            if name in self.task.evaluation:
                run["scores"][name] = self.task.compute(answers, split.references)
                run["predictions"][name] = split.recorded(answers)
            if seed == 0 and name in self.to_predict:
                write_predictions(split, answers, self.submission(name))
        if config.save:
            with atomic_folder(Path(config.save, f"seed-{seed}")) as beside:
                model.save_pretrained(beside)
                self.tokenizer.save_pretrained(beside)
        return run

    def labels(self) -> dict[str, str]:
        """The right answers of each reported split, for the record.

        Those of questions are in each answer's F1 already.
        """
        if self.task.kind == "question answering":
            return {}
        return {name: join_numbers(self.splits[name].references) for name in self.task.evaluation}

    def submission(self, split: str) -> Path:
        """Of MNLI two files, MNLI-m.tsv and MNLI-mm.tsv; of all others one."""
        file = Path(str(self.config.predict))
        suffix = {"test_matched": "-m", "test_mismatched": "-mm"}.get(split, "")
        return file.parent / f"{file.stem}{suffix}{file.suffix}"  # "." has no name

    def lacks(self, seed: int) -> bool:
        """Whether a file is missing, so that a seed must run although its scores are known."""
        if self.config.save and not Path(self.config.save, f"seed-{seed}").is_dir():
            return True
        return seed == 0 and not all(self.submission(name).is_file() for name in self.to_predict)
