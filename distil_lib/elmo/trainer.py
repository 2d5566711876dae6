"""The Trainer for ELMo: losses that are numbers, lines of metrics, a stop after a signal."""

import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainerCallback

from distil_lib.common.trainer import one_process
from distil_lib.elmo.config import ElmoPretrainConfig
from distil_lib.elmo.language_model import ElmoForPreTraining
from distil_lib.elmo.run_folder import complete_checkpoint
from distil_lib.elmo.vocabulary import Words
from distil_lib.errors import UserError
from distil_lib.training.metrics_file import MetricsFile


class Recorder(TrainerCallback):
    """Lines of metrics, what a checkpoint needs of them, and the stop after a signal.

    Args:
        metrics: where the lines go.
        log_every: steps of a line, which is their mean loss.
        state: `run.json` of the checkpoint that is resumed, or nothing.
    """

    def __init__(self, metrics: MetricsFile, log_every: int, state: dict[str, Any]):
        self.metrics, self.log_every = metrics, log_every
        self.losses: list[float] = list(state.get("losses", ()))  # since the last line
        self.before, self.start = state.get("seconds", 0.0), time.perf_counter()
        self.signal = 0

    def __call__(self, number: int, frame: object = None) -> None:
        """A signal's handler: the step that is being computed becomes the last one."""
        self.signal = number

    @property
    def seconds(self) -> float:
        """Of training, in all processes of this run."""
        return self.before + time.perf_counter() - self.start

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        """Stop before NaN reaches the weights."""
        sums = [p.grad.sum() for p in model.parameters() if p.grad is not None]
        if not torch.isfinite(torch.stack(sums)).all():
            raise diverged(f"A gradient of step {state.global_step + 1}", "NaN or infinity")

    def on_step_end(self, args, state, control, lr_scheduler=None, **kwargs):
        """Write a line where one is due; stop and save after a signal."""
        if state.global_step % self.log_every == 0:
            loss = sum(self.losses) / len(self.losses)
            rate = float(lr_scheduler.get_last_lr()[0])
            row = {"step": state.global_step, "loss": loss, "learning_rate": rate}
            self.metrics.write(row | {"seconds": round(self.seconds, 2)})
            self.losses.clear()
            print(f"step {state.global_step:,} of {state.max_steps:,}: loss {loss:.3f}", flush=True)
        if self.signal:
            control.should_save = control.should_training_stop = True

    def on_save(self, args, state, control, **kwargs):
        """Complete the checkpoint with `run.json`."""
        length = self.metrics.sync()
        folder = Path(args.output_dir, f"checkpoint-{state.global_step}")
        content = {"step": state.global_step, "losses": self.losses, "seconds": self.seconds}
        complete_checkpoint(folder, content | {"metrics_bytes": length})


class ElmoTrainer(Trainer):
    """The Trainer with the losses of `ElmoForPreTraining`, each of which must be a number."""

    recorder: Recorder

    def compute_loss(  # type: ignore[override]
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """The loss of a batch. Raises `UserError` if it is NaN or infinite."""
        outputs = model(**inputs)
        value = outputs["loss"].item()
        if not math.isfinite(value):
            raise diverged(f"The loss of step {self.state.global_step + 1}", value)
        self.recorder.losses.append(value)
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]


def diverged(what: str, value: object) -> UserError:
    """What to say of a number that is none."""
    return UserError(
        f"{what} is {value}: the training has diverged.",
        "Start again with a smaller learning rate.",
        setting="learning_rate",
    )


def new_trainer(
    config: ElmoPretrainConfig, words: Words, model: ElmoForPreTraining, precision: str, steps: int
) -> ElmoTrainer:
    """The Trainer for so many steps, in one process: AdamW, warm-up and linear decay."""
    arguments = one_process(
        config,
        steps,
        precision,
        output_dir=config.output,
        seed=config.seed,
        max_steps=steps,
        adam_beta2=0.99,
        save_strategy="steps",
        save_steps=config.save_every,
        save_total_limit=2,
    )
    trainer = ElmoTrainer(
        model=model, args=arguments, train_dataset=words.train, data_collator=words.batch
    )
    trainer.remove_callback(PrinterCallback)
    trainer.model_accepts_loss_kwargs = False  # the loss is a mean over the batch
    return trainer
