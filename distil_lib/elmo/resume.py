"""What a stopped pretraining of ELMo's goes on from: the Trainer's checkpoints, the run's settings, its lines of metrics.

A checkpoint counts if its last file, trainer_state.json, and its weights can be read; of several the newest. Everything else in it is
torch's own and is loaded by the Trainer with `weights_only`.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers import TrainerCallback

from distil_lib.common.files import atomic_write_text, write_result
from distil_lib.errors import UserError

SETTINGS = "settings.json"


class MetricsLine(TrainerCallback):
    """Each of the trainer's logs as a line of metrics.jsonl, and on the screen. What is there from before the step `begun` is kept."""

    def __init__(self, path: Path, begun: int):
        self.path, self.clock, self.before = path, time.perf_counter(), 0.0
        kept = []
        for line in path.read_text().splitlines() if begun else []:
            try:
                row = json.loads(line)
            except ValueError:  # a machine that went down while it was written
                break
            if row["step"] <= begun:
                kept.append(line)
                self.before = row["seconds"]
        atomic_write_text(path, "".join(line + "\n" for line in kept))

    def seconds(self) -> float:
        """Of training, in all calls up to now."""
        return self.before + time.perf_counter() - self.clock

    def on_train_begin(self, args, state, control, **kwargs):
        self.clock = time.perf_counter()

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs:
            row = {
                "step": state.global_step,
                "loss": float(logs["loss"]),
                "learning_rate": float(logs["learning_rate"]),
            }
            with self.path.open("a") as file:
                file.write(json.dumps(row | {"seconds": round(self.seconds(), 2)}) + "\n")
            print(
                f"step {state.global_step:,} of {state.max_steps:,}: loss {row['loss']:.3f}",
                flush=True,
            )


class Stop(TrainerCallback):
    """A signal's handler: the step that it comes in is finished, logged and saved, and is the last."""

    def __init__(self):
        self.number = 0

    def __call__(self, number: int, frame: object = None) -> None:
        self.number = number

    def on_step_end(self, args, state, control, **kwargs):
        if self.number:
            control.should_log = control.should_save = control.should_training_stop = True


def begin(
    folder: Path, settings: Mapping, resume: bool, free: Collection[str] = ()
) -> tuple[Path | None, int, dict]:
    """A run's checkpoint to go on from, its step, and the settings that it was begun with; of a new run None, 0 and `settings`.

    free: settings that may have changed. A setting "auto" stands for what it was found to be. Raises `UserError` if the folder of a new
    run is not empty, or if a run to go on with is finished, has no whole checkpoint, or was begun with other settings.
    """
    if not resume:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(
                f"{folder} is there already, and not empty.",
                "Go on (--resume), choose another --output, or delete it.",
            )
        return None, 0, dict(settings)
    if (folder / "model").exists():
        raise UserError(
            f"{folder} is finished: it has its model.",
            "Leave --resume out and choose another --output for a new run.",
        )
    steps = sorted(
        (int(path.name.rpartition("-")[2]) for path in folder.glob("checkpoint-*")), reverse=True
    )
    whole = next((step for step in steps if _is_whole(folder / f"checkpoint-{step}")), None)
    if whole is None or not (folder / SETTINGS).is_file():
        raise UserError(
            f"{folder} has no whole checkpoint.", "Delete it, and start anew without --resume."
        )
    if whole != steps[0]:
        print(
            f"checkpoint-{steps[0]} is damaged; going on from checkpoint-{whole}",
            file=sys.stderr,
            flush=True,
        )
    begun = json.loads((folder / SETTINGS).read_text())
    changed = [
        name
        for name in settings.keys() - {*free}
        if settings[name] not in (begun.get(name), "auto")
    ]
    if changed:
        was = ", ".join(f"{name} {begun.get(name)}" for name in sorted(changed))
        raise UserError(
            f"{folder} was begun with {was}.", "Go on with that, or start anew in another --output."
        )
    return folder / f"checkpoint-{whole}", whole, begun


def _is_whole(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / "trainer_state.json").read_text())
        with safe_open(checkpoint / "model.safetensors", "pt"):
            return True
    except (OSError, ValueError, SafetensorError):
        return False


def note(folder: Path, settings: Mapping, text: str, new: bool) -> None:
    """Write down what a new run is begun with; of an old one, look that its text is the same. Raises `UserError`.

    text: a fingerprint of what is read. The words of another text would have other numbers and classes than those that were learned.
    """
    path = folder / SETTINGS
    if new:
        try:
            write_result(path, {**settings, "text": text})
        except OSError as error:
            raise UserError(
                f"{folder} cannot be written ({error.strerror}).", "Choose another --output."
            ) from error
    elif json.loads(path.read_text())["text"] != text:
        raise UserError(
            f"The text has changed since {folder} was begun.",
            "Bring it back, or start anew in another --output.",
        )


@contextmanager
def full_disk_named(folder: Path, needed: int) -> Iterator[None]:
    """Neither torch nor safetensors says of a full disk what it is. needed: bytes that a checkpoint may take."""
    try:
        yield
    except (RuntimeError, SafetensorError) as error:
        if shutil.disk_usage(folder).free > needed:
            raise
        raise UserError(
            f"The disk is full: no checkpoint fits into {folder}.",
            "Free some space and go on with --resume.",
        ) from error


def clear(folder: Path) -> None:
    """What a finished run no longer needs."""
    for path in folder.glob("checkpoint-*"):
        shutil.rmtree(path)
    os.remove(folder / SETTINGS)
