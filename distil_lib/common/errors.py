"""How a program ends: one message and exit code 2 for what the user asked for and cannot be done."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator

from distil_lib.errors import UserError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def other_process_lost(error: BaseException) -> bool:
    """Whether an exchange between processes failed because one of them is gone (the words are gloo's and NCCL's)."""
    words = (
        "Connection closed by peer",
        "Connection reset by peer",
        "Broken pipe",
        "NCCL",
        "Connection refused",
        "Timed out waiting",
    )
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


@contextlib.contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Turn a `UserError`, or a full disk, into one message on standard error and exit code 2; a lost process into one and code 1."""
    try:
        yield
    except UserError as error:
        _complain(error.problem, error.remedy, error.settings)
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        _complain(
            f"The disk is full: {error.filename or 'a file'} could not be written.",
            "Free some space and go on with --resume.",
        )
    except RuntimeError as error:
        if not other_process_lost(error):
            raise
        mine = f"process {os.environ.get('RANK', '0')}"
        print(
            f"error: {mine} has lost another process of this run ({str(error).splitlines()[0][:100]}).\n"
            "  what to do: look for what the other one said before it ended, then go on with --resume.",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)  # at once: what is left to tidy up would wait for the one that is gone


def _complain(problem: str, remedy: str, settings: tuple[str, ...] = ()) -> None:
    if settings:
        remedy = f"{remedy} ({', '.join(f'--{name}' for name in settings)})".lstrip()
    if (
        os.environ.get("RANK", "0") == "0"
    ):  # of several processes that met the same error, the first one speaks
        print(f"error: {problem}\n  what to do: {remedy}", file=sys.stderr, flush=True)
    sys.exit(2)
