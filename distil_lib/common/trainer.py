"""What every use of transformers.Trainer here needs."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch
from tqdm import tqdm
from transformers import TrainerCallback, TrainingArguments

from distil_lib.common.hardware import current_device


class Progress(TrainerCallback):
    """A bar of steps with the time that is left."""

    def __init__(self, title: str, show: bool):
        self.title, self.show = title, show

    def on_train_begin(self, args, state, control, **kwargs):
        """Open the bar."""
        self.bar = tqdm(
            total=state.max_steps,
            desc=self.title,
            unit="step",
            disable=None if self.show else True,
            leave=False,
        )

    def on_step_end(self, args, state, control, **kwargs):
        """Count an optimizer step."""
        self.bar.update()

    def on_train_end(self, args, state, control, **kwargs):
        """Close the bar."""
        self.bar.close()


@contextlib.contextmanager
def environment_kept() -> Iterator[None]:
    """Hide the launcher's settings from the Trainer, and undo what it writes into the environment.

    `TrainingArguments` tell Accelerate their precision there, where the next program would read
    it; and a precision that is there already would win over theirs.
    """
    before = {name: value for name, value in os.environ.items() if name.startswith("ACCELERATE_")}
    try:
        for name in before:
            if name != "ACCELERATE_USE_CPU":
                del os.environ[name]
        yield
    finally:
        for name in [name for name in os.environ if name.startswith("ACCELERATE_")]:
            del os.environ[name]
        os.environ.update(before)


def one_process(config: Any, steps: int, precision: str, **settings: Any) -> TrainingArguments:
    """For the Trainer: AdamW, warm-up and linear decay over so many steps; nothing is reported."""
    device = current_device()
    arguments = TrainingArguments(
        per_device_train_batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=round(config.warmup_ratio * steps),
        max_grad_norm=config.max_grad_norm,
        optim="adamw_torch_fused",
        bf16=precision == "bf16",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=device.type == "cpu",
        dataloader_pin_memory=device.type == "cuda",
        **settings,
    )
    # With several GPUs the Trainer would make the batches larger, and a teacher is on one.
    arguments.n_gpu  # noqa: B018  (it counts them once, when it is first read)
    arguments._n_gpu = 1
    return arguments


def quick_attention(device: torch.device, tokens: int) -> str:
    """The attention of `transformers` that trains faster; the numbers are the same.

    For short texts on a CPU the fused backward pass is the slower one (4 times for 64 tokens in
    bf16).
    """
    return "eager" if device.type == "cpu" and tokens <= 128 else "sdpa"
