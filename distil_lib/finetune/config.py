"""The settings of a fine-tuning, and its command line.

    config = parse_arguments(["--model", "data/student", "--task", "doc-qa", "--seeds", "5"])

Values are checked when a configuration is made.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from distil_lib.common.cli import (
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Precision,
    Program,
    Seeds,
    Settings,
    Share,
    Temperature,
    Threads,
    option,
    show,
)
from distil_lib.errors import UserError


@dataclass
class FinetuneConfig(Settings):
    """Every setting of a fine-tuning."""

    model: str = option("data/student", "folder or Hub name of a checkpoint, with its tokenizer")
    task: Any = option("doc-qa", "name of a task, or a YAML file that declares one")
    seeds: Seeds = option(5, "how many times: seeds 0, 1, ...")
    output: str = option("", "result file; by default runs/results/MODEL/TASK.json")
    data_dir: str | None = option(None, "folder with the task's files, instead of the Hub")
    train_rows: NonNegativeInt = option(0, "train on so many examples, drawn at random; 0 for all")
    # What else is wanted
    evaluate_only: bool = option(False, "score a checkpoint that is fine-tuned already")
    predict: str | None = option(
        None,
        "file for the first seed's answers to the test split, in the format of GLUE (or SQuAD)",
    )
    save: str | None = option(None, "folder for the fine-tuned models: SAVE/seed-0, ...")
    compare_with: str | None = option(
        None, "the teacher's result file: print how much of its score is retained"
    )
    # Second distillation
    distil_from: str | None = option(
        None, "folder or Hub name of a teacher that is fine-tuned on this task"
    )
    alpha: Share = option(0.5, "weight of that teacher's answers; the labels have the rest")
    temperature: Temperature = option(2.0, "temperature of that teacher's answers")
    # Optimization
    epochs: Annotated[int, Field(ge=1, le=10_000)] = option(
        3, "passes over the training split; the score after the last one counts"
    )
    batch_size: PositiveInt = option(32, "examples, or windows, of a step")
    learning_rate: PositiveFloat = option(5e-5, "at its highest; small models like more")
    warmup_ratio: Fraction = option(
        0.1, "fraction of the steps in which the learning rate rises; then it falls linearly to 0"
    )
    weight_decay: NonNegativeFloat = option(0.01, "of AdamW, but for biases and LayerNorms")
    max_grad_norm: PositiveFloat = option(1.0, "gradients are clipped to this norm")
    max_length: Annotated[int, Field(ge=0, le=65_536)] = option(
        0,
        "tokens of a text; 0 for 384 in question answering, 512 in IMDb, else 128, or what the "
        "model can read",
    )
    group_by_length: bool = option(
        False,
        "make batches of texts of similar length: less padding, and batches that are less random",
    )
    precision: Precision = option(
        "auto", "fp32, bf16 (autocast), or auto: whichever is quicker on this machine, measured"
    )
    threads: Threads = option(0, "CPU threads; 0 for all cores")

    def check(self) -> None:
        """See `Settings.check`."""
        if not isinstance(getattr(self.task, "name", self.task), str):  # a `Task` has a name
            raise UserError(
                f"task is {show(self.task)}.", "It must be a name or a file.", setting="task"
            )
        if self.evaluate_only and self.distil_from:
            raise UserError(
                "Both evaluate_only and distil_from are given.",
                "What is only evaluated learns from no teacher: drop one.",
                setting=("evaluate_only", "distil_from"),
            )

    def result_file(self) -> Path:
        """Where the record is written: `output`, or runs/results/MODEL/TASK.json."""
        if self.output:
            return Path(self.output)
        kind = "-as-given" if self.evaluate_only else "-distilled" if self.distil_from else ""
        task = getattr(self.task, "name", self.task)  # a name, a YAML file, or a `Task`
        model = self.model.strip("/").rpartition("/")[2]
        return Path("runs", "results", model, f"{Path(task).stem}{kind}.json")


# Settings that change nothing of what a seed computes; `precision` is recorded as it was chosen.
FREE = frozenset({"seeds", "output", "predict", "save", "compare_with", "threads", "data_dir"})


PROGRAM = Program(
    FinetuneConfig,
    "python -m distil_lib.finetune",
    "Fine-tune a checkpoint on a task with several seeds (Sanh et al. 2019, section 4).",
    codes="130 or 143 stopped by Ctrl-C or SIGTERM; seeds that were finished are kept",
)
parse_arguments = PROGRAM.parse
