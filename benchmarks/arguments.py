"""Arguments of the benchmarks: what cannot be measured with is refused before anything is."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from distil_lib.common.files import check_writable
from distil_lib.errors import UserError

FROM_ZERO = ("dropout", "seed", "workers")  # all other numbers are above zero


def parse(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None
) -> argparse.Namespace:
    """The arguments of a command line; bad ones end the program with one message and code 2.

    Numbers must be positive, a file to write must have a folder that can be written, and a
    device must be there.
    """
    options = parser.parse_args(arguments)
    for name, value in vars(options).items():
        for number in value if isinstance(value, list | tuple) else [value]:
            if type(number) not in (int, float):
                continue
            if not (number > 0 or (number == 0 and name in FROM_ZERO)):  # NaN fails, too
                parser.error(f"--{name} is {number}: it must be a positive number")
        if isinstance(value, Path) and name in ("json", "lines"):
            try:
                check_writable(value, name)
            except UserError as error:
                parser.error(f"--{name}: {error}")
    if "device" in options:
        try:
            torch.zeros(1, device=options.device)
        # What torch is built with decides which errors there are.
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            parser.error(f"--device {options.device} cannot be used here ({reason[:100]})")
    return options
