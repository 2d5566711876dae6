"""Which of several processes does a piece of work: claim files that outlive no process.

    with take(Path("data/results/ablation"), "3f2a") as mine:      # the claim, or None: another process has it
        if mine:
            ...

A claim is a file `.NAME.claim-N`, made by O_EXCL, which on every file system lets one process succeed. It says who made it: host, pid
and when that process began, since numbers of processes are used again. Once made, it is looked whether any other claim of that name
is alive, and if so it is withdrawn: of two processes that made claims, the later look sees both. So never two work; rarely neither, which
the next call mends.

A claim is dead if its process is gone, or, on another host, where processes cannot be looked up, if it has not been touched for
`PATIENCE` seconds; its owner touches it every `HEARTBEAT` seconds. Dead claims are taken over. Whoever wakes up from a longer sleep finds
his own file deleted (`held`).
"""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

HEARTBEAT, PATIENCE = 20.0, 600.0  # seconds


class Claim:
    """A claim of this process, which a thread keeps fresh."""

    def __init__(self, path: Path):
        self.path, self._end = path, threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        while not self._end.wait(HEARTBEAT):
            with contextlib.suppress(OSError):
                os.utime(self.path)

    @property
    def held(self) -> bool:
        """Whether nobody has taken this claim for dead."""
        return self.path.exists()

    def release(self) -> None:
        self._end.set()
        self.path.unlink(missing_ok=True)


def alive(path: Path) -> bool:
    """Whether the process that made this claim still runs."""
    try:
        age = time.time() - path.stat().st_mtime
        owner = json.loads(path.read_text())
    except FileNotFoundError:
        return False
    except ValueError:  # it is being written at this moment, or was never finished
        owner = {}
    if owner.get("host") != socket.gethostname():
        return age < PATIENCE
    try:
        process = psutil.Process(owner["pid"])
        return (
            abs(process.create_time() - owner["began"]) < 2
            and process.status() != psutil.STATUS_ZOMBIE
        )
    except psutil.NoSuchProcess:
        return False


def claims(folder: Path, name: str) -> list[Path]:
    """All claims of a name, dead or alive, the newest last."""
    return sorted(folder.glob(f".{name}.claim-*"), key=_number)


def _number(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


@contextlib.contextmanager
def take(folder: Path, name: str) -> Iterator[Claim | None]:
    """Claim `name` in `folder` for as long as the block runs: the claim, or None if another process has it."""
    claim = _claim(folder, name)
    try:
        yield claim
    finally:
        if claim is not None:
            claim.release()


def _claim(folder: Path, name: str) -> Claim | None:
    before = claims(folder, name)
    if any(map(alive, before)):
        return None
    path = folder / f".{name}.claim-{_number(before[-1]) + 1 if before else 0}"
    me = {"host": socket.gethostname(), "pid": os.getpid(), "began": psutil.Process().create_time()}
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return None
    with os.fdopen(descriptor, "w") as file:
        json.dump(me, file)
    if any(alive(other) for other in claims(folder, name) if other != path):
        path.unlink()
        return None
    for dead in before:
        dead.unlink(missing_ok=True)
    return Claim(path)
