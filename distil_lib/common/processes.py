"""How a program runs and ends, alone or as one of several processes that train together.

    run_program(lambda: train(parse(arguments)))    # quiet, one message, exit codes

    with shared_refusal():                  # what one process refuses, all of them refuse
        config = parse(arguments)

Exit codes are 0, 2 after a `UserError`, 130 after Ctrl-C and 143 after SIGTERM.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil

from distil_lib.common.errors import exit_on_user_error
from distil_lib.errors import UserError

LAUNCHERS = {
    "accelerate",
    "accelerate.commands.launch",
    "torchrun",
    "torch.distributed.run",
    "distil_lib.launch",
}
QUIET = {
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime would tell its maker of each start
}


def quiet_libraries() -> None:
    """Keep progress bars and notes of other libraries out of a program's own lines."""
    for name, value in QUIET.items():  # read when a library is imported
        os.environ.setdefault(name, value)
    if "transformers" in sys.modules:
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
    if "datasets" in sys.modules:
        from datasets import disable_progress_bars

        disable_progress_bars()


NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT")
SWITCHES = {*"1 true yes y t on 0 false no n f off".split()}  # what Accelerate understands
# What a launcher gives to processes that train together.
TOGETHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def check_launcher_variables() -> None:
    """Refuse what only a half of a launcher leaves in the environment.

    The libraries below would end in a traceback, or wait for processes that nobody has started.

    Raises:
        UserError: that names the variable.
    """
    given = os.environ
    wrong = [n for n in NUMBERS if n in given and not (given[n].isascii() and given[n].isdigit())]
    switches = (n for n in given if n.startswith("ACCELERATE_USE_"))
    wrong += [n for n in switches if given[n].lower() not in SWITCHES]
    if wrong:
        raise UserError(
            f"The environment variable {wrong[0]} is {given[wrong[0]][:40]!r}.", "Unset it."
        )
    some = [name for name in TOGETHER[:3] if name in given]
    missing = [name for name in TOGETHER if name not in given]
    if some and missing:
        raise UserError(
            f"The environment has {some[0]} and no {missing[0]}.",
            f"A launcher sets all of {', '.join(TOGETHER)}: start with one, or unset {some[0]}.",
        )
    if some and int(given["RANK"]) >= int(given["WORLD_SIZE"]):
        raise UserError(
            f"RANK is {given['RANK']} and WORLD_SIZE {given['WORLD_SIZE']}.",
            "Ranks count from 0: start with a launcher.",
        )


def run_program(function: Callable[[], str | None], stopped: str = "stopped") -> None:
    """Call a function as a program: print what it returns, and end with the promised exit code.

    Args:
        function: the whole program.
        stopped: what is said after Ctrl-C (exit code 130) or SIGTERM (143).
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a locale that lacks a letter is no reason to end
            stream.reconfigure(errors="backslashreplace")
    quiet_libraries()
    with _interrupts_reported(stopped):
        try:
            with exit_on_user_error():
                check_launcher_variables()
                said = function()
        except SystemExit:
            _leave_processes()
            raise
        _leave_processes()
        if said:
            # In one write: with PYTHONUNBUFFERED, print makes two, and those of ranks interleave.
            print(f"{said}\n", end="", flush=True)


def _leave_processes() -> None:
    """Take leave of the other processes: gloo's threads abort a program that ends without."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


@contextlib.contextmanager
def _interrupts_reported(stopped: str) -> Iterator[None]:
    number = int(signal.SIGINT)

    def terminate(given: int, frame: object) -> None:
        nonlocal number
        number = given
        raise KeyboardInterrupt  # so that temporary folders are deleted on the way out

    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, terminate) if main else None
    try:
        yield
    except KeyboardInterrupt:
        if os.environ.get("LOCAL_RANK", "0") == "0":
            print(f"{stopped}.", file=sys.stderr, flush=True)
        sys.exit(128 + number)
    except BrokenPipeError as error:
        if error.filename is not None:
            raise
        # The reader of standard output has left, as `head` does: end silently, as others do.
        if sys.__stdout__ is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())
        sys.exit(141)
    finally:
        if main and signal.getsignal(signal.SIGTERM) is terminate:
            signal.signal(signal.SIGTERM, before)


class SharedErrors:
    """Lets every process raise the `UserError` that one of them meets.

    Else the others would wait for it at the next exchange. Their own exchange is patient, because
    the main process of a machine may read a large corpus for hours meanwhile. With one process
    nothing is exchanged.
    """

    group: Any = None  # of all processes, once they have met

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """A block that ends with a `UserError` in all processes if it does in one."""
        own = None
        try:
            yield
        except UserError as raised:
            own = raised
        for rank, (host, error) in enumerate(self.gather((socket.gethostname(), own))):
            if error is not None:
                where = f"Process {rank} on {host}: " if rank else ""
                found = type(error)(where + error.problem, error.remedy, error.settings)
                found.shared = True  # all know: one of each machine speaks
                raise found from own

    def gather(self, value: Any) -> list:
        """The values of all processes, by rank."""
        world = int(os.environ.get("WORLD_SIZE", 1))
        if world == 1:
            return [value]
        from torch import distributed

        from distil_lib.common.rendezvous import meet

        if self.group is None:
            meet()
            self.group = distributed.new_group(backend="gloo", timeout=timedelta(days=2))
        values: list = [None] * world
        distributed.all_gather_object(values, value, group=self.group)
        return values


def shared_refusal() -> contextlib.AbstractContextManager[None]:
    """`SharedErrors.shared` for a single block, which all processes must enter."""
    return SharedErrors().shared()


def end_with_launcher() -> None:
    """Ask this process to stop when the launcher that has started it is gone.

    `accelerate launch` does not hand signals on to a single process. Killed, it would leave a
    training behind, and the next start would meet it in the same folder.
    """
    if "WORLD_SIZE" not in os.environ and "ACCELERATE_MIXED_PRECISION" not in os.environ:
        return
    try:
        launcher = psutil.Process().parent()
        words = launcher.cmdline()[1:4] if launcher else []
    except psutil.Error:
        return
    # What `distil_lib.launch` starts alone has taken its place: its parent is no launcher.
    if launcher is None or not LAUNCHERS & {Path(word).name for word in words}:
        return

    def watch() -> None:
        while os.getppid() == launcher.pid:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="end_with_launcher", daemon=True).start()
