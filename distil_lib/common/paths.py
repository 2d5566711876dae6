"""Where the project's own data lies, and where work is kept that need not be done twice.

    data_folder("teacher")    # .../data/teacher, from whatever folder a program is started in
    cache_folder("blocks")    # ~/.cache/distil_lib/blocks, or below DISTIL_CACHE

A `UserError` says what to do if a folder is missing or cannot be written.
"""

import errno
import os
from pathlib import Path

from huggingface_hub.constants import HF_HOME

from distil_lib.errors import UserError

PROJECT = Path(__file__).resolve().parents[2]


def data_folder(*parts: str) -> Path:
    """`data/<parts>` of the checkout. Raises `UserError` if it is not there."""
    folder = PROJECT.joinpath("data", *parts)
    if not folder.exists():
        raise UserError(
            f"{folder} does not exist.",
            "Install from a clone of the project (`pip install -e .`): the wheel holds no data.",
        )
    return folder


def locate(name: str) -> str:
    """The path of `data/...` wherever a program is started; any other name as it is."""
    return str(PROJECT / name) if name.startswith("data/") and not Path(name).exists() else name


def cache_folder(*parts: str) -> Path:
    """Where tokenized text is kept: `$DISTIL_CACHE`, or `distil_lib` in the user's cache folder.

    The folder is made. Raises `UserError` if it cannot be written.
    """
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "distil_lib")
    folder = Path(os.environ.get("DISTIL_CACHE") or default).expanduser().joinpath(*parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise UserError(
            f"The cache folder {folder} cannot be written ({error.strerror}).",
            "Name another folder in the environment variable DISTIL_CACHE.",
        ) from error
    return folder


def hub_cache_problem(error: BaseException) -> UserError | None:
    """What to say if an error is that the Hub's cache cannot be written; None if it is another."""
    if not isinstance(error, OSError) or error.filename is None:
        return None
    refused = (errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EROFS)
    if error.errno not in refused or not Path(error.filename).is_relative_to(HF_HOME):
        return None
    return UserError(
        f"The cache folder {HF_HOME} cannot be written ({error.strerror}).",
        "Name another folder in the environment variable HF_HOME.",
    )
