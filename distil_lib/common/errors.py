"""How a program ends: one message and exit code 2 for what was asked for and cannot be done."""

import contextlib
import errno
import os
import re
import sys
from collections.abc import Iterator

from distil_lib.common.paths import hub_cache_problem
from distil_lib.errors import UserError

# What a disk says that does not take any more, and what to do about it.
STORAGE = {
    errno.ENOSPC: ("The disk is full", "Free some space"),
    errno.EDQUOT: ("The quota of the disk is used up", "Free some space, or ask for more"),
    errno.EFBIG: ("A file may not become so large", "Raise the limit (`ulimit -f`)"),
    errno.EROFS: ("The disk is read-only", "Make it writable"),
    errno.EIO: ("The disk fails", "Look into the system's log"),
}
NO_MEMORY = ("allocate memory", "out of memory")  # of a CPU, of a GPU
LOST = (
    "gloo/transport/",  # the source of whatever a connection of gloo dies of
    "Connection closed by peer",
    "Connection reset by peer",
    "No route to host",  # a machine without power or network, once TCP gives up
    "Network is unreachable",
    "Connection timed out",
    "Broken pipe",
    "Connection refused",
    "Timed out waiting",
    "remote process exited or there was a network error",
)


class StorageError(UserError):
    """The disk does not take what a program wants to write; what was saved before is complete."""


@contextlib.contextmanager
def resumable() -> Iterator[None]:
    """Mark what ends this block: by then there is a run, and the program has `--resume`."""
    try:
        yield
    except Exception as error:
        error.resumable = True  # type: ignore[attr-defined]
        raise


def storage_problem(error: BaseException | None) -> tuple[str, str] | None:
    """(problem, remedy) if an error is one of `STORAGE`, or was caused by one.

    safetensors and tokenizers wrap the system's error and keep its number in their text only.
    """
    while error is not None:
        number = error.errno if isinstance(error, OSError) else None
        if number is None and (found := re.search(r"(?:os error|code:) (\d+)", str(error))):
            number = int(found[1])
        if number in STORAGE:
            return STORAGE[number]
        error = error.__cause__ or error.__context__
    return None


def other_process_lost(error: BaseException) -> bool:
    """Whether an exchange between processes failed because one of them has ended.

    The words are gloo's and NCCL's. NCCL complains of much else, a wrong configuration for
    instance, which is not taken for a lost process.
    """
    return isinstance(error, RuntimeError) and any(word in str(error) for word in LOST)


@contextlib.contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Turn what a user can do something about into one message on standard error and an exit code.

    A `UserError`, a full disk and too little memory are code 2; a lost process is code 1.
    """
    try:
        yield
    except UserError as error:
        remedy = error.remedy
        if isinstance(error, StorageError):
            remedy = remedy.removesuffix(".") + _again(error)
        _complain(error.problem, remedy, error.settings, getattr(error, "shared", False))
    except (MemoryError, OSError, RuntimeError) as error:
        resume = _again(error)
        if (unwritable := hub_cache_problem(error)) is not None:
            _complain(unwritable.problem, unwritable.remedy)
        elif (found := storage_problem(error)) is not None:
            what = getattr(error, "filename", None) or "a file"
            _complain(f"{found[0]}: {what} could not be written.", found[1] + resume)
        elif isinstance(error, MemoryError) or any(word in str(error) for word in NO_MEMORY):
            _complain(
                "There is not enough memory.",
                "Close other programs, or choose a smaller batch or model" + resume,
            )
        elif other_process_lost(error):
            rank = os.environ.get("RANK", "0")
            reason = "\n  ".join(str(error).splitlines()[:5])
            happened = "has lost"
            remedy = f"look for what the other one said before it ended{resume}"
            if "connectFullMesh" in reason:  # they never met: a name stands for a wrong address
                happened = "does not reach"
                remedy = (
                    "let GLOO_SOCKET_IFNAME (on GPUs NCCL_SOCKET_IFNAME, too) name the network "
                    "interface\n  that joins the machines, on each (`ip address` lists them)."
                )
            say(f"process {rank} {happened} another process of this run:\n  {reason}", remedy)
            os._exit(1)  # at once: whatever tidies up would wait for the one that is gone
        else:
            raise


def _again(error: BaseException) -> str:
    """How a remedy ends: a run that has begun is resumed, anything else is started again."""
    if getattr(error, "resumable", False):
        return ", then go on with --resume: what was saved before is complete."
    return ", then start the same command again."


def _complain(
    problem: str, remedy: str, settings: tuple[str, ...] = (), shared: bool = False
) -> None:
    if settings:
        remedy = f"{remedy} ({', '.join(f'--{name}' for name in settings)})".lstrip()
    # Of several processes that all know of the error, the first one of each machine speaks.
    if not shared or os.environ.get("LOCAL_RANK", "0") == "0":
        say(problem, remedy)
    sys.exit(2)


def say(problem: str, remedy: str) -> None:
    """Print what is wrong, and what to do about it, as one message on standard error."""
    advice = f"\n  what to do: {remedy}" if remedy else ""
    print(f"error: {problem}{advice}", file=sys.stderr, flush=True)
