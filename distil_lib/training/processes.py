"""What the processes of one run agree on, and workers that outlive a signal.

    with errors.shared():                        # of `common.processes.SharedErrors`
        check_same_settings(errors, vars(config))
    batches = start_workers(loader)

A block that all processes enter raises the `UserError` of one of them in all.
"""

import multiprocessing
import os
import signal
from collections.abc import Iterator, Mapping
from multiprocessing import resource_tracker
from typing import Any

from torch.utils.data import DataLoader

from distil_lib.common.processes import SharedErrors
from distil_lib.errors import UserError

# What a machine may have otherwise than another: contents of inputs are compared, and the rest is
# only the first process's, or changes nothing of what is computed.
OF_A_MACHINE = frozenset(
    "corpus dataloader_num_workers log_with output overwrite precision resume teacher threads "
    "tokenizer".split()
)


def check_same_settings(errors: SharedErrors, settings: Mapping[str, Any]) -> None:
    """Raise `UserError` unless all processes were started with the same settings.

    Otherwise they would train with two learning rates, or wait for each other's last step.
    """
    mine = {name: settings[name] for name in settings.keys() - OF_A_MACHINE}
    for rank, others in enumerate(errors.gather(mine)):
        for name in sorted(name for name in mine if others.get(name) != mine[name]):
            raise UserError(
                f"{name} is {mine[name]!r} for process {os.environ['RANK']} and "
                f"{others.get(name)!r} for process {rank}.",
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
