"""Where the project's own data lies: found from this file, so that every page and program works from any folder.

data_folder("teacher")    # .../data/teacher
"""

import os
from pathlib import Path

from distil_lib.errors import UserError

PROJECT = Path(__file__).resolve().parents[2]


def data_folder(*parts: str) -> Path:
    """`data/<parts>` of the checkout that this library was installed from. Raises `UserError` if it is not there."""
    folder = PROJECT.joinpath("data", *parts)
    if not folder.exists():
        raise UserError(
            f"{folder} does not exist.",
            "Install from a clone of the project (`pip install -e .`): the wheel alone holds no data.",
        )
    return folder


def locate(name: str) -> str:
    """`data/...` means the project's data from wherever a program is started; any other name stays as it is."""
    return str(PROJECT / name) if name.startswith("data/") and not Path(name).exists() else name


def cache_folder() -> Path:
    """Where tokenized text is kept: `$DISTIL_CACHE`, or `distil_lib` in the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "distil_lib"
    return Path(os.environ.get("DISTIL_CACHE", default)).expanduser()
