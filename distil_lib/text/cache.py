"""The cache of tokenized text: written whole or not at all, checked when it is read, emptied here.

    python -m distil_lib.text.cache                       # what it holds, how large and how old
    python -m distil_lib.text.cache --older_than 30       # delete what was not used for 30 days
    python -m distil_lib.text.cache --empty               # delete all of it

Beside the blocks stand a manifest with the size and SHA-256 of every file, as in a checkpoint.
"""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow
from datasets import Dataset, load_from_disk

from distil_lib.common.cli import NonNegativeFloat, Program, Settings, option
from distil_lib.common.files import MAKING, _flush, _sha256, read_json
from distil_lib.common.paths import cache_folder
from distil_lib.errors import UserError
from distil_lib.text.local_files import tell
from distil_lib.text.streaming import BlockStream

MANIFEST = "manifest.json"
ROOMS = ("blocks", "documentation", "documentation-tasks")  # all that is ever deleted
ALWAYS_HASHED = 256 << 20  # bytes; larger blocks are hashed only where a file's date has changed


@dataclass
class Blocks:
    """Text ready for training.

    Args:
        train: `input_ids` (block_size,) a row; a `BlockStream` when the corpus streams.
        held_out: the same, of documents that are not trained on.
        counts: (V,), how often each id occurs in `train`.
        cache_key: names what the blocks are made of: corpus, tokenizer and block size.
        content_hash: of the blocks themselves, in order, wherever they lie. (Of a stream, only
            what was read ahead counts.)
    """

    train: Dataset | BlockStream
    held_out: Dataset
    counts: np.ndarray
    cache_key: str
    content_hash: str

    @property
    def streaming(self) -> bool:
        """Whether `train` is read over the network."""
        return isinstance(self.train, BlockStream)


# ------------------------------------------------------------------------------------- writing
def write(
    beside: Path, folder: Path, parts: dict[str, Dataset], counts: np.ndarray, about: dict
) -> None:
    """Write blocks into `beside`, flush them, and give them the name `folder`."""
    made = beside / "made"
    for name, blocks in parts.items():
        blocks.save_to_disk(made / name)
    np.save(made / "counts.npy", counts)
    files = sorted(path for path in made.rglob("*") if path.is_file())
    manifest = about | {
        "made": datetime.now().astimezone().isoformat(timespec="seconds"),
        "files": {
            path.relative_to(made).as_posix(): [
                path.stat().st_size,
                _sha256(path),
                path.stat().st_mtime_ns,
            ]
            for path in files
        },
    }
    (made / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    for path in [*made.rglob("*"), made]:
        _flush(path)
    if folder.is_dir() and damage(folder) is None:
        return  # another process was quicker
    _remove(folder)
    with contextlib.suppress(FileExistsError):
        made.rename(folder)
    _flush(folder.parent)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


# ------------------------------------------------------------------------------------- reading
def read(folder: Path, vocab_size: int, block_size: int) -> Blocks | None:
    """The blocks of a folder; None if there are none, or if they are damaged, which is said."""
    if not os.path.lexists(folder):
        return None
    problem = damage(folder)
    if problem is None:
        try:
            train = load_from_disk(folder / "train")
            found = Blocks(
                train,
                load_from_disk(folder / "held_out"),
                np.load(folder / "counts.npy", allow_pickle=False),
                folder.name,
                str(_manifest(folder)["content_hash"]),
            )
            total = int(found.counts.sum())
            if found.counts.shape == (vocab_size,) and total == len(train) * block_size:
                with contextlib.suppress(OSError):
                    os.utime(folder)  # when it was last used
                return found
            problem = "its counts are of another text"
        except (OSError, ValueError, KeyError, TypeError, pyarrow.ArrowException) as error:
            problem = (str(error).splitlines() or [type(error).__name__])[0][:100]
    tell(f"The blocks in {folder} are damaged ({problem}): they are made again.")
    _remove(folder)
    return None


def damage(folder: Path) -> str | None:
    """What is wrong with a folder of blocks: sizes always, hashes where that takes no time."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = {folder / name: facts for name, facts in manifest["files"].items()}
        manifest["content_hash"]
        total = sum(size for size, _, _ in files.values())
        for path, (size, digest, changed) in files.items():
            name = path.relative_to(folder)
            status = path.stat()
            if status.st_size != size:
                return f"{name} has {status.st_size:,} bytes of {size:,}"
            hashed = total <= ALWAYS_HASHED or status.st_mtime_ns != changed
            if hashed and _sha256(path) != digest:
                return f"{name} has changed"
    except OSError as error:
        return f"{Path(error.filename or folder).name}: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"{MANIFEST} is no manifest"
    return None


def newest(folder: Path, key: str) -> str | None:
    """Of blocks of the same name and different revisions, those that were made last."""
    made = {path.name: made_on(path) for path in folder.glob(f"{key}-*") if damage(path) is None}
    return max(made, key=made.__getitem__) if made else None


def made_on(folder: Path) -> str:
    """When blocks were made."""
    return str(_manifest(folder).get("made", ""))


def _manifest(folder: Path) -> dict[str, Any]:
    """What is said of blocks beside them; nothing where that is missing or damaged."""
    try:
        return read_json(folder / MANIFEST)
    except UserError:
        return {}


# ------------------------------------------------------------------------------- command line
@dataclass
class CacheConfig(Settings):
    """Settings of the command line."""

    empty: bool = option(False, "delete all of it")
    older_than: NonNegativeFloat | None = option(None, "delete what was not used for so many days")


PROGRAM = Program(
    CacheConfig, "python -m distil_lib.text.cache", "Show the cache of tokenized text, or empty it."
)


def entries(cache: Path) -> list[tuple[Path, int, float]]:
    """(path, bytes, days since it was used) of all that the cache holds, the oldest first."""
    found = []
    for room in ROOMS:
        for path in (cache / room).iterdir() if (cache / room).is_dir() else ():
            with contextlib.suppress(OSError):
                files = path.rglob("*") if path.is_dir() else [path]
                size = sum(file.stat().st_size for file in files if file.is_file())
                found.append((path, size, (time.time() - path.stat().st_mtime) / 86_400))
    return sorted(found, key=lambda entry: -entry[2])


def _run(config: CacheConfig, arguments: Sequence[str]) -> str:
    days = 0.0 if config.empty else config.older_than
    cache, freed = cache_folder(), 0
    for path, size, age in entries(cache):
        # A folder that is being written is left alone, whatever is asked for.
        making = path.name.startswith(MAKING) and age < 1
        delete = days is not None and age >= days and not making
        made = _manifest(path)
        about = ""
        if {"corpus", "block_size"} <= made.keys():
            about = f"{made['corpus']}, blocks of {made['block_size']}"
        if delete:
            _remove(path)
            freed += size
            about = "deleted"
        print(f"{size / 1e6:10,.1f} MB {age:6.1f} days  {path.relative_to(cache)}  {about}")
    left = sum(size for _, size, _ in entries(cache))
    print(f"{left / 1e6:10,.1f} MB in {cache}, {freed / 1e6:,.1f} MB freed")
    hub = Path(datasets.config.HF_DATASETS_CACHE)
    files = [file for file in hub.rglob("*") if file.is_file()] if hub.is_dir() else []
    size = sum(file.stat().st_size for file in files)
    return f"{size / 1e6:10,.1f} MB in {hub}, kept by `datasets` for what comes from the Hub"


main = partial(PROGRAM.run, _run)

if __name__ == "__main__":
    main()
