"""Settings of the comparison of backends, and its command line."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from distil_lib.common.cli import Program, Settings, ThreadCounts, Width, option
from distil_lib.errors import UserError
from distil_lib.timing.backends import BACKENDS, EAGER

Counts = Annotated[list[Width], Field(min_length=1)]
if TYPE_CHECKING:
    Backend = str
else:  # pydantic checks the names
    Backend = Literal[tuple(BACKENDS)]


@dataclass
class BackendComparisonConfig(Settings):
    """Settings of the command line."""

    teacher: str = option(
        "", "checkpoint with its tokenizer; by default a BERT-base with random weights"
    )
    student: str = option("", "the same; by default a DistilBERT with random weights")
    backends: list[Backend] = option([*BACKENDS], "what is compared")
    threads: ThreadCounts = option([1], "counts of threads, each in a process of its own")
    batches: Counts = option([1, 8], "texts in a batch")
    lengths: Counts = option([8, 32, 128], "tokens of a text")
    rounds: Annotated[int, Field(ge=1, le=10_000)] = option(
        9, "visits to every backend at every shape"
    )
    task: str = option("", "a task that both are fine-tuned on: the score of each backend")
    data_dir: str | None = option(None, "folder with the task's files, instead of the Hub")
    size: Literal["full", "small"] = option(
        "full", "of random models: full, or small: a try-out in seconds"
    )
    output: str = option("", "JSON file to write, with all samples")

    def check(self) -> None:
        """See `Settings.check`."""
        if self.task and not (self.teacher and self.student):
            raise UserError(
                "Random weights have learned no task.",
                "Give a teacher and a student that are fine-tuned on it, or no task.",
                setting=("teacher", "student", "task"),
            )
        # What all are compared to is always there.
        chosen = [name for name in BACKENDS if name in self.backends and name != EAGER]
        self.backends = [EAGER, *chosen]


PROGRAM = Program(
    BackendComparisonConfig,
    "python -m distil_lib.timing.backend_comparison",
    "The same models by every backend: latency, memory, size, and what the outputs lose.",
)
