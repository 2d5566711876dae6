"""What several processes of one run have to agree on before they train.

    errors = SharedErrors(rank, world)
    with errors.shared():        # a `UserError` of one process is raised by all
        teacher = load_teacher(...)

`errors.gather(value)` gives every process the values of all.
"""

import contextlib
import multiprocessing
import signal
import socket
from collections.abc import Iterator, Mapping
from datetime import timedelta
from multiprocessing import resource_tracker
from typing import Any

import torch
from torch.utils.data import DataLoader

from distil_lib.common.processes import first_refusal
from distil_lib.errors import UserError

# What a machine may have otherwise than another: contents of inputs are compared, and the rest is
# only the first process's, or changes nothing of what is computed.
OF_A_MACHINE = frozenset(
    "corpus dataloader_num_workers log_with output overwrite precision resume teacher threads "
    "tokenizer".split()
)


@contextlib.contextmanager
def known_to_all() -> Iterator[None]:
    """Mark a `UserError` that every process raises by itself: one of each machine prints it."""
    try:
        yield
    except UserError as error:
        error.shared = True  # type: ignore[attr-defined]
        raise


class SharedErrors:
    """Lets every process raise the `UserError` that one of them met.

    Otherwise the others would wait for it, and only the first process prints. The exchange is
    patient, because the main process of a machine may read a large corpus for hours meanwhile.
    """

    def __init__(self, rank: int, world: int):
        self.rank, self.world, self.group = rank, world, None
        if world > 1:
            self.group = torch.distributed.new_group(backend="gloo", timeout=timedelta(days=2))

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """A block that ends with a `UserError` in all processes if it does in one."""
        error = None
        try:
            yield
        except UserError as raised:
            error = raised
        found = first_refusal(self.gather((socket.gethostname(), error)))
        if found is not None:
            raise found from error

    def gather(self, value: Any) -> list:
        """The values of all processes, by rank."""
        if self.group is None:
            return [value]
        values: list = [None] * self.world
        torch.distributed.all_gather_object(values, value, group=self.group)
        return values


def check_same_settings(errors: SharedErrors, settings: Mapping[str, Any]) -> None:
    """Raise `UserError` unless all processes were started with the same settings.

    Otherwise they would train with two learning rates, or wait for each other's last step.
    """
    mine = {name: settings[name] for name in settings.keys() - OF_A_MACHINE}
    for rank, others in enumerate(errors.gather(mine)):
        for name in sorted(name for name in mine if others.get(name) != mine[name]):
            raise UserError(
                f"{name} is {mine[name]!r} for process {errors.rank} and {others.get(name)!r} for "
                f"process {rank}.",
                "Start the same command on all machines.",
                setting=name,
            )


def start_workers(loader: DataLoader) -> Iterator:
    """The loader's iterator, whose worker processes SIGINT and SIGTERM do not end.

    Batch systems and terminals signal a whole process group: the main process saves and stops, and
    needs its workers until then. What starts them, from Python 3.14 on a process of its own, must
    live as long as they do. All of these inherit the mask, from their start.
    """
    if multiprocessing.get_start_method() != "fork":
        resource_tracker.ensure_running()  # its start would end the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        return iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
