"""Command lines: settings from a dataclass, one-line errors, "did you mean"."""

import difflib
from collections.abc import Iterable
from dataclasses import field
from typing import Any, NoReturn

from transformers import HfArgumentParser

from distil_lib.errors import UserError


def option(default: Any, help: str) -> Any:
    """A setting of a command line: its default, and what `--help` says of it."""
    return field(default=default, metadata={"help": help})


def unknown_setting(name: str, where: str, settings: Iterable[str]) -> UserError:
    """What to say of a setting that is none of `settings`: the nearest one that exists."""
    hint = difflib.get_close_matches(name, list(settings), 1)
    return UserError(
        f"{where} has an unknown setting {name!r}.",
        f"Did you mean {hint[0]!r}?" if hint else "See --help for all of them.",
    )


class SettingsParser(HfArgumentParser):
    """A command line whose mistakes are one `UserError`, where argparse prints its whole usage above its one line of news."""

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments: --"):
            name = message.split("--", 1)[1].split()[0].split("=")[0].replace("-", "_")
            raise unknown_setting(
                name, "The command line", [action.dest for action in self._actions]
            )
        raise UserError(
            f"The command line is not understood: {message}.", "See --help for all settings."
        )


def near(name: str, names: Iterable[str]) -> str:
    """ "Did you mean ...? " if a name is like one of the names, else nothing."""
    found = difflib.get_close_matches(str(name), list(names), 1)
    return f"Did you mean {found[0]!r}? " if found else ""
