"""The one exception that is meant for the person who typed the command.

    raise UserError("data/teachr is not a folder.", "Pass a folder that holds config.json and model.safetensors.")
"""

import contextlib
import sys
from collections.abc import Iterator


class UserError(ValueError):
    """Something the user asked for cannot be done.

    `problem` says what was found and what was expected, `remedy` what to do about it. Programs print both and exit with
    code 2 (`exit_on_user_error`); in a notebook the exception itself reads the same.
    """

    def __init__(self, problem: str, remedy: str):
        super().__init__(f"{problem} {remedy}")
        self.problem, self.remedy = problem, remedy


@contextlib.contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Turn a `UserError` into its message on standard error and exit code 2."""
    try:
        yield
    except UserError as error:
        print(f"error: {error.problem}\n  what to do: {error.remedy}", file=sys.stderr, flush=True)
        sys.exit(2)
