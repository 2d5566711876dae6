"""Settings and command lines: one dataclass says names, types, ranges, defaults and help.

    @dataclass
    class ExportConfig(Settings):
        model: str = option("data/student", "folder or Hub name of a checkpoint")
        batch_size: PositiveInt = option(32, "examples of a step")
        head: Literal["masked-lm", "classification"] | None = option(None, "kind of output layer")

    PROGRAM = Program(ExportConfig, "python -m distil_lib.export", "Write an ONNX file.")
    PROGRAM.parse(["--batch_size", "0"])         # UserError: batch_size is 0. It must be ...
    PROGRAM.run(lambda config, arguments: export(config))    # the whole program, exit codes too

pydantic checks the values, and in the same way from Python, YAML and a command line.
"""

import argparse
import dataclasses
import difflib
import functools
import os
import reprlib
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NoReturn, TypeVar, get_args, get_origin
from typing import get_type_hints as type_hints

from pydantic import Field, TypeAdapter, ValidationError

from distil_lib.common.files import read_yaml
from distil_lib.common.processes import run_program
from distil_lib.errors import UserError

# Numbers have upper bounds, so that a slip is refused here and not by the memory of the machine.
PositiveInt = Annotated[int, Field(ge=1, le=10**9)]
NonNegativeInt = Annotated[int, Field(ge=0, le=10**9)]
Width = Annotated[int, Field(ge=1, le=65_536)]
Layers = Annotated[int, Field(ge=1, le=1000)]
Threads = Annotated[int, Field(ge=0, le=4096)]
ThreadCounts = Annotated[list[Annotated[int, Field(ge=1, le=4096)]], Field(min_length=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Seeds = Annotated[int, Field(ge=1, le=10_000)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
# Beyond these, the losses of a softmax overflow, or nothing is left of it.
Temperature = Annotated[float, Field(ge=0.01, le=1000)]
Fraction = Annotated[float, Field(ge=0, lt=1)]  # of a whole that is never reached
Share = Annotated[float, Field(ge=0, le=1)]
Precision = Literal["auto", "fp32", "bf16"]

# What settings were called before: for "did you mean".
RENAMED = {
    "keep": "save_total_limit",
    "layers": "init_layers",
    "rungs": "backends",
    "start_from": "init_from",
    "tracker": "log_with",
    "workers": "dataloader_num_workers",
}
LONGEST_NAME = 255  # bytes of a file's name on all common file systems
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 2, 60, 60, 40


def show(value: Any) -> str:
    """A value for a message: on one line, and short whatever it is."""
    try:
        return " ".join(_SHORT.repr(value).split())
    except ValueError:  # Python prints no number of thousands of digits
        return "a huge number"


def option(default: Any, help: str) -> Any:
    """A setting of a command line: its default, and what `--help` says of it."""
    if isinstance(default, list):
        return dataclasses.field(default_factory=default.copy, metadata={"help": help})
    return dataclasses.field(default=default, metadata={"help": help})


def near(name: Any, names: Iterable[str]) -> str:
    """A question "Did you mean ...?" if a name is like one of the names, else nothing."""
    names = list(names)
    found = difflib.get_close_matches(str(name)[:100], names, 1)
    if (renamed := RENAMED.get(str(name))) in names:
        found = [renamed]
    return f"Did you mean {found[0]!r}? " if found else ""


def unknown_setting(name: Any, where: str, settings: Iterable[str]) -> UserError:
    """What to say of a setting that is none of `settings`: the nearest one that exists."""
    hint = near(name, settings).strip()
    return UserError(
        f"{where} has an unknown setting {show(name)}.", hint or "See --help for all of them."
    )


# ------------------------------------------------------------------------------------ values
@functools.cache
def _adapters(kind: type) -> dict[str, TypeAdapter]:
    """What checks each setting of a class."""
    hints = type_hints(kind, include_extras=True)
    return {field.name: TypeAdapter(hints[field.name]) for field in dataclasses.fields(kind)}


def checked(kind: type, name: str, value: Any, where: str = "", strict: bool = True) -> Any:
    """A value of a setting as its annotation has it. Raises `UserError`.

    Args:
        kind: the dataclass of settings.
        name: which of them.
        value: what was given.
        where: for the message, as " in mini.yaml".
        strict: whether "3" is no number. On a command line everything is text, and it is one.
    """
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    try:
        value = _adapters(kind)[name].validate_python(value, strict=strict)
    except ValidationError as error:
        remedy = error.errors()[0]["msg"].split(", unable to")[0]
        remedy = remedy.replace("Input should", "It must").replace("valid string", "text") + "."
        if isinstance(value, str) and strict and "number" in remedy:
            remedy += " YAML reads 5e-4 as text: write 5.0e-4."
        # What stands on a command line is a number without quotes, where a number was asked for.
        numeric = isinstance(value, str) and not strict and _is_number(value)
        shown = value if numeric else show(value)
        raise UserError(f"{name}{where} is {shown}.", remedy, setting=name) from None
    for text in value if isinstance(value, list) else [value]:
        if isinstance(text, str) and (reason := _unfit(text)):
            raise UserError(f"{name}{where} is {show(text)}.", reason, setting=name)
    if isinstance(value, float):
        value += 0.0  # -0.0 is 0.0, in hashes and records, too
    # What `--teacher "$TEACHER"` gives where the variable is not set. A default may be empty.
    if isinstance(value, str) and not value.strip() and value != getattr(kind, name, None):
        raise UserError(
            f"{name}{where} is an empty text.", "Leave it out, or give a value.", setting=name
        )
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return len(text) < 40 and text == text.strip()


def _unfit(text: str) -> str:
    """What is wrong with a text that may become the name of a file; nothing for a good one."""
    if not text.isprintable():
        return "It must not have control characters or bytes that are no text."
    if max(len(part.encode()) for part in text.split("/")) > LONGEST_NAME:
        return f"A name has {LONGEST_NAME} bytes at most."
    return ""


@dataclasses.dataclass
class Settings:
    """Base of the dataclasses of settings: every value is checked, then what they mean together."""

    def __post_init__(self) -> None:
        kind: type = type(self)
        for name in _adapters(kind):
            setattr(self, name, checked(kind, name, getattr(self, name)))
        self.check()

    def check(self) -> None:
        """Raise `UserError` for settings that do not fit together."""


def read_settings(kind: type, path: Path) -> dict[str, Any]:
    """The settings of a YAML file, names and values checked. Raises `UserError`."""
    settings = read_yaml(path)
    if not isinstance(settings or {}, dict):
        raise UserError(f"{path} holds no settings.", "Each line reads `setting: value`.")
    names = _adapters(kind)
    for name, value in (settings or {}).items():
        if name not in names:
            raise unknown_setting(name, str(path), names)
        settings[name] = checked(kind, name, value, f" in {path}")
    return settings or {}


def yaml_names(folder: Path) -> list[str]:
    """The names of the YAML files of a folder."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def find_yaml(kind: str, folder: Path, name: str | Path) -> Path:
    """The file of that name in the folder of all "preset"s or "grid"s, or any other file.

    Raises:
        UserError: there is neither.
    """
    path, names = Path(name), yaml_names(folder)
    if str(name) in names:
        return folder / f"{name}.yaml"
    if _unfit(str(name)) or not path.is_file():
        raise UserError(
            f"There is no {kind} and no file {show(str(name))}.",
            f"{near(name, names)}The {kind}s are {', '.join(names)}.",
            setting=kind,
        )
    return path


# ------------------------------------------------------------------------------ command line
class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one `UserError`; argparse would print its whole usage above it."""

    def error(self, message: str) -> NoReturn:
        message = "".join(c if c.isprintable() else "?" for c in message)
        if message.startswith("unrecognized arguments: --"):
            name = message.split("--", 1)[1].partition(" ")[0].partition("=")[0].replace("-", "_")
            known = [action.dest for action in self._actions]
            raise unknown_setting(name, "The command line", known)
        raise UserError(
            f"The command line is not understood: {message[:200]}.", "See --help for all settings."
        )


def _parts(hint: Any) -> Iterator[tuple[Any, tuple]]:
    """(what it is, what is in it) of an annotation and of all annotations inside it."""
    yield get_origin(hint) or hint, get_args(hint)
    for part in get_args(hint):
        yield from _parts(part)


Config = TypeVar("Config", bound=Settings)


@dataclasses.dataclass(frozen=True)
class Program(Generic[Config]):
    """A command line for a class of settings.

    Args:
        settings: the dataclass.
        name: how the program is called.
        description: one sentence on what it does.
        codes: what `--help` says of exit codes, beside 0 and 2.
        presets: a folder of YAML files that `--preset` may name.
        exclusive: settings of which only one may be given.
        flags: words with their help that are no settings: the program looks for them itself.
    """

    settings: type[Config]
    name: str
    description: str
    codes: str = ""
    presets: Path | None = None
    exclusive: Collection[str] = ()
    flags: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def preset_names(self) -> list[str]:
        """The names that `--preset` knows."""
        return yaml_names(self.presets) if self.presets else []

    def preset(self, name: str | Path) -> dict[str, Any]:
        """The settings of a preset's name or of a YAML file. Raises `UserError`."""
        assert self.presets is not None
        return read_settings(self.settings, find_yaml("preset", self.presets, name))

    def parser(self) -> argparse.ArgumentParser:
        """The command line: an option for each setting, whose value is left as text."""
        codes = f"Exit codes: 0 done, 2 bad input{self.codes and ', '}{self.codes}."
        presets = f"Presets: {', '.join(self.preset_names())}. " if self.presets else ""
        parser = _Parser(
            prog=self.name,
            usage="%(prog)s [--SETTING VALUE ...]",
            description=self.description,
            epilog=presets + codes,
            allow_abbrev=False,
            argument_default=argparse.SUPPRESS,
        )
        if self.presets:
            parser.add_argument("--preset", help="name of a preset, or a YAML file with settings")
        for flag, help in self.flags.items():
            parser.add_argument(f"--{flag}", action="store_true", help=help)
        hints = type_hints(self.settings, include_extras=True)
        for field in dataclasses.fields(self.settings):
            hint, help = hints[field.name], field.metadata["help"]
            factory = field.default_factory
            default = field.default if factory is dataclasses.MISSING else factory()
            shown = " ".join(map(str, default)) if isinstance(default, list) else default
            help += f" (default: {shown})"
            form: dict[str, Any] = {}
            kinds = dict(_parts(hint))
            if bool in kinds:
                form = {"nargs": "?", "const": "true"}
            elif list in kinds:
                empty = default is None or default == []
                form = {"nargs": "*" if empty else "+"}
            if Literal in kinds:
                form["metavar"] = f"{{{','.join(map(str, kinds[Literal]))}}}"
            parser.add_argument(f"--{field.name}", help=help.replace("%", "%%"), **form)
        return parser

    def parse(self, arguments: Sequence[str] | None = None) -> Config:
        """The settings of a command line: the preset's, then what is given. Raises `UserError`."""
        given: dict[str, Any] = vars(self.parser().parse_args(arguments))
        presets = self.presets and "preset" in given
        values = self.preset(given.pop("preset")) if presets else {}
        for name, text in given.items():
            if name not in self.flags:
                values[name] = checked(self.settings, name, text, strict=False)
        if len(both := [name for name in self.exclusive if name in given]) > 1:
            raise UserError(
                f"Both {both[0]} and {both[1]} are given.", "Choose one.", setting=tuple(both)
            )
        return self.settings(**values)

    def run(
        self,
        function: Callable[[Config, Sequence[str]], str | None],
        arguments: Sequence[str] | None = None,
        stopped: str = "stopped",
    ) -> None:
        """Parse the command line, call the function, print what it returns, and exit as promised.

        Args:
            function: of the settings and of the command line as it was given.
            arguments: the command line; by default the process's own.
            stopped: what is said after Ctrl-C or SIGTERM.
        """
        given = sys.argv[1:] if arguments is None else arguments
        run_program(lambda: function(self.parse(given), given), stopped)
