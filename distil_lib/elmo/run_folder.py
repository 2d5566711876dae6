"""The folder of an ELMo run: who may write into it, and which checkpoint it goes on from.

A checkpoint is the Trainer's; its last file, `run.json`, holds the SHA-256 of all others and what
the next line of metrics needs. A damaged or partial checkpoint is passed over.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distil_lib.common.errors import StorageError
from distil_lib.common.files import _sha256, check_writable, read_json, storage_named, write_result
from distil_lib.elmo.config import RESUMABLE_OVERRIDES, ElmoPretrainConfig
from distil_lib.errors import UserError

SETTINGS, RUN, LOCK = "settings.json", "run.json", ".lock"


def open_run(config: ElmoPretrainConfig) -> dict[str, Any]:
    """The settings of the run: the configuration's, or those that a resumed run was started with.

    Raises:
        UserError: the folder is in use, or does not hold a run that this configuration can resume.
    """
    folder, settings = Path(config.output), asdict(config)
    if not config.resume:
        if folder.exists() and (not folder.is_dir() or {*os.listdir(folder)} - {LOCK}):
            raise UserError(
                f"{folder} exists already, and is not empty.",
                "Resume it, choose another folder, or delete it.",
                setting=("resume", "output"),
            )
        check_writable(folder / "model" if folder.exists() else folder)
        return settings
    if (folder / "model").exists():
        raise UserError(
            f"{folder} is finished: it has its model.", "Choose another folder.", "output"
        )
    if not (folder / SETTINGS).is_file():
        raise UserError(
            f"There is no run in {folder} to resume.", "Start one without that.", "resume"
        )
    begun = read_json(folder / SETTINGS)
    kept = settings.keys() - {*RESUMABLE_OVERRIDES}
    changed = [name for name in kept if settings[name] not in (begun.get(name), "auto")]
    if changed:
        was = ", ".join(f"{name} {begun.get(name)}" for name in sorted(changed))
        raise UserError(
            f"{folder} was started with {was}.",
            "Resume with that, or choose another folder.",
            "output",
        )
    return settings | {name: begun[name] for name in (*kept, "text")}


def latest_valid_checkpoint(folder: Path) -> tuple[Path | None, dict[str, Any]]:
    """The newest checkpoint whose files are all as they were saved, and its `run.json`."""
    numbers = [path.name.removeprefix("checkpoint-") for path in folder.glob("checkpoint-*")]
    for step in sorted((int(number) for number in numbers if number.isdecimal()), reverse=True):
        path = folder / f"checkpoint-{step}"
        try:
            state = read_json(path / RUN)
            if state["step"] == step and state["sha256"] == _hashes(path):
                return path, state
        except (UserError, OSError, KeyError):
            pass
        print(f"{path.name} is damaged and passed over.", file=sys.stderr, flush=True)
    return None, {}


def complete_checkpoint(checkpoint: Path, state: dict[str, Any]) -> None:
    """Write `run.json`, with which a checkpoint of the Trainer counts."""
    write_result(checkpoint / RUN, state | {"sha256": _hashes(checkpoint)})


def _hashes(checkpoint: Path) -> dict[str, str]:
    return {path.name: _sha256(path) for path in sorted(checkpoint.iterdir()) if path.name != RUN}


@contextmanager
def full_disk_named(folder: Path, needed: int) -> Iterator[None]:
    """Name a full disk, of which torch does not say what it is; a checkpoint takes `needed`."""
    try:
        with storage_named(folder / "checkpoint"):
            yield
    except RuntimeError as error:
        full = folder.is_dir() and shutil.disk_usage(folder).free <= needed
        if not full and "inline_container" not in str(error):  # what writes torch's files
            raise
        problem = "The disk is full" if full else "A file may not become so large, or is gone"
        raise StorageError(
            f"{problem}: no checkpoint can be written into {folder}.",
            "Free some space, or raise the limit (`ulimit -f`).",
        ) from error
