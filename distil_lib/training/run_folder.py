"""The folder of a run: who may write into it, and whether a run may go on in it.

    checkpoint = open_run(config)            # None for a new run
    lock = lock_run(folder)                  # one run at a time; released when the process ends

A run leaves `config.yaml`, `metrics.jsonl`, `checkpoints/`, `model/` with its card, `curves.png`.
"""

import contextlib
import datetime
import json
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
from filelock import FileLock, Timeout
from safetensors import SafetensorError

from distil_lib.common.errors import StorageError
from distil_lib.common.files import read_json, read_yaml
from distil_lib.errors import UserError
from distil_lib.training.checkpoint import latest_valid_checkpoint, list_checkpoints
from distil_lib.training.config import FIELDS, RESUMABLE_OVERRIDES, PretrainConfig

PARTIAL = ".config.yaml.partial"
LOCK, HOLDER = ".lock", ".lock.json"
# All that a run writes, trackers included; `--overwrite` deletes nothing else.
WRITTEN = {"config.yaml", "metrics.jsonl", "checkpoints", "model", "curves.png", PARTIAL}
WRITTEN |= {".model.partial", "distil", "wandb"}
NO_RUN = {PARTIAL, LOCK, HOLDER}  # what a start that was killed may have left
# A run's model: an allowed name is not enough, because this is where people put exports.
MODEL_SUFFIXES = {".json", ".safetensors", ".txt", ".md", ".png"}
# Compared by their contents when the checkpoint is loaded: a folder may have been moved.
BY_CONTENT = {"teacher", "tokenizer", "corpus"}
ORPHAN_SECONDS = 30  # a killed process's data loader workers notice it within some seconds


def lock_run(folder: Path) -> FileLock:
    """Take the folder for this process. Raises `UserError` with the holder if another run has it.

    The kernel releases the lock of a process that ends, however it ends.
    """
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        holder = _holder(folder)
        here = holder.get("host") == socket.gethostname()
        try:
            if not here or psutil.pid_exists(holder["pid"]):
                raise
            lock.acquire(timeout=ORPHAN_SECONDS)  # its workers are about to end
        except Timeout:
            who = "process {pid} on {host}, since {since}".format_map(
                {"pid": "unknown", "host": "an unknown machine", "since": "an unknown time"}
                | holder
            )
            raise UserError(
                f"Another run is at work in {folder}: {who}.",
                "Wait for its end or stop it, or choose another folder.",
                setting="output",
            ) from None
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
    (folder / HOLDER).write_text(json.dumps(holder), encoding="utf-8")
    return lock


def _holder(folder: Path) -> dict:
    try:
        holder = read_json(folder / HOLDER)
    except UserError:
        return {}
    return holder if isinstance(holder.get("pid"), int) else {}


@contextlib.contextmanager
def saving(path: Path) -> Iterator[None]:
    """One message for whatever keeps a file from being written: quota, read-only, vanished."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0][:200]
        if isinstance(error, FileNotFoundError):
            reason = "its folder was deleted or moved"
        raise StorageError(f"{path} could not be written ({reason}).", "Repair that.") from error


def saved_settings(folder: Path) -> dict:
    """The settings in a run's `config.yaml`. Raises `UserError` if it is not a run's."""
    path = folder / "config.yaml"
    settings = read_yaml(path)
    if not isinstance(settings, dict) or not {"corpus", "tokenizer", "batch_size"} <= set(settings):
        raise UserError(
            f"{path} does not hold the settings of a run.", "Choose another folder.", "output"
        )
    return settings


def open_run(config: PretrainConfig) -> tuple[Path | None, FileLock]:
    """Make the run's folder, or check that the run in it can be resumed, and lock it.

    Returns:
        The checkpoint to resume from (None for a new run), and the lock.

    Raises:
        UserError: the folder holds another run, a run of other settings, or something else.
    """
    folder = Path(config.output)
    _check_folder(folder, config)  # before anything is written
    with saving(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = lock_run(folder)
    try:
        used = _check_folder(folder, config)  # again: another run may just have ended
        if used and config.overwrite:
            _delete_run(folder)
        elif used:
            if checkpoint := latest_valid_checkpoint(folder / "checkpoints"):
                return checkpoint, lock
            if list_checkpoints(folder / "checkpoints"):
                raise UserError(
                    f"No checkpoint in {folder} is complete.", "Start the run again.", "overwrite"
                )
        with saving(folder):
            config.save(folder / PARTIAL)
            (folder / PARTIAL).rename(folder / "config.yaml")
    except BaseException:
        lock.release()
        raise
    return None, lock


def _check_folder(folder: Path, config: PretrainConfig) -> bool:
    """Whether the folder holds a run. Raises `UserError` if this run may not use it."""
    try:
        names = {path.name for path in folder.iterdir()} - NO_RUN if folder.exists() else set()
    except OSError as error:  # a file, or a folder that may not be read
        raise UserError(
            f"{folder} cannot be made ({error.strerror}).", "Choose another folder.", "output"
        ) from error
    if not names:
        if config.resume:
            raise UserError(
                f"There is no run in {folder} to resume.", "Start one without that.", "resume"
            )
        return False
    if "config.yaml" not in names:
        raise UserError(
            f"{folder} is not empty and holds no run.", "Choose another folder.", "output"
        )
    saved = saved_settings(folder)
    if config.overwrite:
        _check_deletable(folder, names)
    elif not config.resume:
        raise UserError(
            f"{folder} holds a run already.",
            "Resume it, overwrite it, or choose another folder.",
            setting=("resume", "overwrite", "output"),
        )
    else:
        _check_settings(folder, saved, config)
    return True


def _check_settings(folder: Path, saved: dict, config: PretrainConfig) -> None:
    now = vars(config)
    # What a run does not say, it had by default: it is older than the setting.
    saved = {name: entry.default for name, entry in FIELDS.items()} | saved
    changed = [k for k in now if k not in RESUMABLE_OVERRIDES and now[k] != saved[k]]
    if config.precision == "auto" and "precision" in changed:
        changed.remove("precision")  # a resumed run keeps what it was started with
    changed = [k for k in changed if k not in BY_CONTENT or None in (now[k], saved[k])]
    if changed:
        difference = ", ".join(f"{k} was {saved[k]!r} and is {now[k]!r}" for k in changed)
        raise UserError(
            f"{folder} was started with other settings: {difference}.",
            "Resume with the same, or choose another folder.",
            setting="output",
        )


def _check_deletable(folder: Path, names: set[str]) -> None:
    """Raise `UserError` if the folder holds anything that no run has written."""
    foreign = sorted(names - WRITTEN)
    for path in (folder / "checkpoints").glob("*"):
        if not path.name.startswith(("step-", ".step-")):
            foreign.append(f"checkpoints/{path.name}")
    for path in (folder / "model").glob("*"):
        if path.is_dir() or path.suffix not in MODEL_SUFFIXES:
            foreign.append(f"model/{path.name}")
    if foreign:
        raise UserError(
            f"{folder} holds something that no run has written: {foreign[0]}.",
            "Move it away, or choose another folder.",
            setting="output",
        )


def _delete_run(folder: Path) -> None:
    """Delete what a run has written, its settings last: an interrupted deletion can be repeated."""
    with saving(folder):
        for path in sorted(folder.iterdir(), key=lambda path: path.name == "config.yaml"):
            if path.name not in (LOCK, HOLDER):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def saved_precision(config: PretrainConfig) -> str | None:
    """The precision that a run to be resumed was started with."""
    folder = Path(config.output)
    if not config.resume or not (folder / "config.yaml").is_file():
        return None
    return saved_settings(folder).get("precision")
