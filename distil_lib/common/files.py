"""Files and folders that are complete or absent: atomic writes, flushes, hashes."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from distil_lib.common.errors import DISK_FULL
from distil_lib.errors import UserError


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Write into the folder that is yielded; it takes the name `folder` only when all of it is on the disk."""
    beside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        yield beside
        for path in [*beside.iterdir(), beside]:
            _flush(path)
        shutil.rmtree(folder, ignore_errors=True)
        beside.rename(folder)
        _flush(folder.parent)
    except BaseException as error:
        shutil.rmtree(beside, ignore_errors=True)
        if "No space left" in str(error) or getattr(error, "errno", None) in DISK_FULL:
            raise UserError(
                f"The disk is full: {folder.name} could not be saved in {folder.parent}.",
                "Free some space and go on with --resume; checkpoints saved before are whole.",
            ) from error
        raise


def _flush(path: Path) -> None:
    if (
        os.name == "nt" and path.is_dir()
    ):  # Windows cannot open a folder, and keeps its names by itself
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def write_result(path: Path, record: Mapping) -> None:
    """The record as JSON, with `atomic_write_text`; its folder is made where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(path, json.dumps(record, indent=1) + "\n")


def atomic_write_text(path: Path, text: str) -> None:
    """Write beside, flush to the disk, rename: a call that is killed leaves the file of before, or this one."""
    beside = path.with_name(f".{path.name}.partial")
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def check_writable(path: Path, setting: str = "output") -> None:
    """Make the folder that a file or folder is to be written in, and try it: before hours of work.

    Raises:
        UserError: it cannot be written; `setting` names what the user may change.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}).", "Choose another place.", setting
        ) from error


MAKING = ".making-"  # how the name of blocks that are not finished begins


def _sweep(cache: Path) -> None:
    """Delete what runs that were killed while they made blocks have left behind: whatever is older than a day."""
    for path in cache.glob(f"{MAKING}*"):
        with contextlib.suppress(
            FileNotFoundError
        ):  # another process may have finished with it just now
            if time.time() - path.stat().st_mtime > 86_400:
                shutil.rmtree(path, ignore_errors=True)
