"""Files and folders that are complete or absent, and files that are read with care.

    with atomic_folder(Path("runs/mine/model")) as folder:    # has its name only when all is there
        model.save_pretrained(folder)
    settings = read_yaml(Path("mine.yaml"))                   # or one UserError

Damaged files and files that are too large are refused with a `UserError`.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from distil_lib.common.errors import StorageError, storage_problem
from distil_lib.errors import UserError

MAX_YAML_BYTES = 1 << 18  # a hundred times what the longest file of settings here has
MAX_JSON_BYTES = 1 << 28
MAX_DEPTH = 20


# A folder that was deleted, replaced, or may no longer be written into.
REFUSED = (
    FileExistsError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)


def _partial(path: Path) -> Path:
    """Where a file or folder is written before it gets its name."""
    return path.with_name(f".{path.name}.partial")


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Write into the folder that is yielded; it gets the name `folder` when all is on the disk."""
    beside = _partial(folder)
    shutil.rmtree(beside, ignore_errors=True)
    try:
        with storage_named(folder):
            beside.mkdir(parents=True)
            yield beside
            for path in [*beside.rglob("*"), beside]:
                _flush(path)
            shutil.rmtree(folder, ignore_errors=True)
            beside.rename(folder)
            _flush(folder.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextmanager
def storage_named(path: Path) -> Iterator[None]:
    """Turn an error of the storage into a `StorageError`, also if a library has wrapped it.

    Of errors that other files may cause, too (no permission, a folder that is gone), those that
    name `path`, what is written for it, or a folder above it.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        found = storage_problem(error)
        if found is None and isinstance(error, REFUSED) and isinstance(error.filename, str):
            named = Path(error.filename)
            if any(map(named.is_relative_to, (path, _partial(path)))) or path.is_relative_to(named):
                found = f"{named} cannot be written ({error.strerror})", "Repair that"
        if found is None:
            raise
        problem, remedy = found
        raise StorageError(
            f"{problem}: {path.name} could not be saved in {path.parent}.", f"{remedy}."
        ) from error


def _flush(path: Path) -> None:
    # Windows cannot open a folder, and keeps its names by itself.
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def update(digest: "hashlib._Hash", path: Path) -> None:
    """Let a hash read a file."""
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    update(digest, path)
    return digest.hexdigest()


def write_result(path: Path, record: Mapping) -> None:
    """Write the record as JSON (`atomic_write_text`); make its folder where there is none."""
    with storage_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(path, json.dumps(record, indent=1) + "\n")


def atomic_write_text(path: Path, text: str) -> None:
    """Write beside, flush, rename: a program that is killed leaves the old file or the new one."""
    beside = _partial(path)
    with storage_named(path):
        try:
            with beside.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, lock: Path | None = None) -> Iterator[None]:
    """Keep other programs out of a file or folder while the block runs.

    The system releases the lock of a process that ends, however it ends. Where nothing can be
    locked (a folder that is only read, some network file systems), nothing is.

    Args:
        path: the file or folder.
        lock: the file that stands for it; by default a hidden one beside it. It is left there: a
            program that has opened a file which another one deletes would lock it all the same.

    Raises:
        UserError: another program is at work there.
    """
    file = FileLock(lock or path.with_name(f".{path.name}.lock"))
    with contextlib.suppress(OSError, NotImplementedError):
        Path(file.lock_file).parent.mkdir(parents=True, exist_ok=True)
        try:
            file.acquire(blocking=False)
        except Timeout:
            raise UserError(
                f"Another run is at work in {path}.",
                "Wait for its end, or choose another.",
                "output",
            ) from None
    try:
        yield
    finally:
        file.release()


def check_writable(path: Path, setting: str = "output", new: bool = False) -> None:
    """Make the folder that a file or folder is to be written in, and try it: before hours of work.

    Raises:
        UserError: it cannot be written, or has to be `new` and is there; `setting` names what the
            user may change.
    """
    if new and path.exists():
        raise UserError(f"{path} exists.", "Choose another name, or delete it.", setting)
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


# -------------------------------------------------------------------------------------- reading
def read_text(path: Path, limit: int) -> str:
    """The text of a file. Raises `UserError` if it is missing, too large, or not UTF-8."""
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for without end
            raise UserError(f"{path} cannot be read: it is no regular file.", "Check the name.")
        with path.open("rb") as file:
            content = file.read(limit + 1)
        if len(content) > limit:
            raise UserError(
                f"{path} has more than {limit:,} bytes.", "That is no file of this kind."
            )
        return content.decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).", "Check the name.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text in UTF-8.", "Save it as UTF-8.") from error


# YAML 1.1 reads 0100 as 64 and 1:30 as 90, without a word.
SURPRISING_NUMBER = re.compile(r"[-+]?(0[0-9_]+|[0-9][0-9_]*:.*)")


class _Loader(yaml.SafeLoader):
    """YAML without what only surprises: tags, anchors, names that are no text or come twice."""

    def construct_scalar(self, node: yaml.ScalarNode) -> Any:
        number = node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
        if number and SURPRISING_NUMBER.fullmatch(node.value):
            raise yaml.MarkedYAMLError(
                problem=f"{node.value:.40} is another number than it seems to be: write it without "
                "leading zeros or colons, or in quotation marks",
                problem_mark=node.start_mark,
            )
        return super().construct_scalar(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        names = [name.value for name, _ in node.value]
        for name, _ in node.value:
            if name.tag != "tag:yaml.org,2002:str":
                raise yaml.MarkedYAMLError(
                    problem=f"{name.value!r:.40} is no name", problem_mark=name.start_mark
                )
            if names.count(name.value) > 1:
                raise yaml.MarkedYAMLError(
                    problem=f"{name.value:.40} is there twice", problem_mark=name.start_mark
                )
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """What a small YAML file holds: mappings with names, lists, texts and numbers.

    Raises:
        UserError: it is missing, too large, no YAML, nested too deeply, or has anchors or tags.
    """
    text, depth = read_text(path, MAX_YAML_BYTES), 0
    try:
        for event in yaml.parse(text, yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise yaml.YAMLError("it is nested too deeply")
            if getattr(event, "anchor", None):  # a few of them can stand for billions of values
                raise yaml.YAMLError(f"anchors and aliases such as {event.anchor:.40} are not read")
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(
            f"{path} is no YAML that is understood ({reason[:150]}{line}).",
            "Each line reads `setting: value`.",
        ) from error


def read_json(path: Path, limit: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """The object in a JSON file of at most so many bytes.

    Raises:
        UserError: it is missing, too large, damaged, nested too deeply, or of another kind.
    """
    text = read_text(path, limit)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0][:150]
        raise UserError(f"{path} is no JSON ({reason}).", "It is damaged: replace it.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} does not hold an object.", "It is of another kind, or damaged.")
    return content


MAKING = ".making-"  # how the name of blocks that are not finished begins


def _sweep(cache: Path) -> None:
    """Delete what killed runs have left behind while they made blocks, once it is a day old."""
    for path in cache.glob(f"{MAKING}*"):
        # Another process may have finished with it just now.
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > 86_400:
                shutil.rmtree(path, ignore_errors=True)
