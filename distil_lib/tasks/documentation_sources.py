"""Installed sources, parsed for the documentation's tasks: docstrings, signatures, parameters.

    modules = read_modules(("numpy", "scipy"))     # {"test": [SourceModule, ...], "train": ...}

Files are parsed with `ast` and never imported. Test modules are the documents held out from the
default teacher's pretraining; a paragraph that occurs in several modules is kept once, in the test
split before the others. (Only a share of the training documents is read here, so some test
paragraphs also occur in another document that the teacher has read.)
"""

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from distil_lib.text.docstrings import MARKUP, paragraphs, parse_source
from distil_lib.text.documentation import documentation_files
from distil_lib.text.documents import HELD_OUT_PER_MILLE, split_of

# Cumulated shares of all documents, in per mille. What is beyond the last is not read: quicker.
SHARES = {"test": HELD_OUT_PER_MILLE, "validation": 60, "train": 160}


Row = dict[str, Any]


@dataclass(frozen=True)
class Parameter:
    """An entry of a parameter section, without markup; `type` is "" where none is given."""

    name: str
    type: str
    description: str


@dataclass(frozen=True)
class Docstring:
    """What is said of a module (name ""), class or function (dotted name within its module).

    Attributes:
        name: "" for a module.
        arguments: a function's, as in its source but without annotations, `self` and `cls`; None
            for anything else.
        paragraphs: the prose.
        parameters: the entries of its parameter section.
    """

    name: str
    arguments: str | None
    paragraphs: tuple[str, ...]
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True)
class SourceModule:
    """A document, named as in `text.documents.documentation_files`, and its docstrings in order."""

    name: str
    docstrings: tuple[Docstring, ...]

    @property
    def package(self) -> str:
        """The distribution it is from."""
        return self.name.partition("/")[0]

    @cached_property
    def path(self) -> tuple[str, ...]:
        """Distribution, folders and module; a package's own `__init__` counts as the folder."""
        return tuple(
            part for part in PurePosixPath(self.name).with_suffix("").parts if part != "__init__"
        )


def paragraphs_of(module: SourceModule, words: int) -> list[str]:
    """The module's paragraphs of at least so many words."""
    return [text for d in module.docstrings for text in d.paragraphs if len(text.split()) >= words]


def shuffled(items: Sequence[Any], random: np.random.Generator) -> list[Any]:
    """The items in a random order."""
    return [items[i] for i in random.permutation(len(items))]


def suite_split(name: str, shares: dict[str, int] = SHARES) -> str | None:
    """The split of a document, a pure function of its name; None for those that are not read.

    "test" is what `text.documents.split_of` holds out from pretraining.
    """
    return next(
        (split for split, per_mille in shares.items() if split_of(name, per_mille) == "held_out"),
        None,
    )


def read_modules(
    packages: Sequence[str], shares: dict[str, int] = SHARES
) -> dict[str, list[SourceModule]]:
    """The documented modules of each split, sorted by name.

    Raises:
        UserError: if none of the packages is installed.
    """
    parts: dict[str, list[SourceModule]] = {}
    files = [(suite_split(row["name"], shares), row) for row in documentation_files(packages)]
    seen: set[str] = set()
    for split in shares:
        modules = (
            SourceModule(row["name"], tuple(_fresh(parse(Path(row["path"]).read_bytes()), seen)))
            for of, row in files
            if of == split and Path(row["path"]).is_file()
        )
        parts[split] = [module for module in modules if module.docstrings]
    return parts


def _fresh(docstrings: Sequence[Docstring], seen: set[str]) -> Iterator[Docstring]:
    """Without the paragraphs and the parameter sections that have been seen before."""
    for docstring in docstrings:
        section = " ".join(p.description for p in docstring.parameters).lower()
        parameters = docstring.parameters if section not in seen else ()
        fresh = [p for p in dict.fromkeys(docstring.paragraphs) if p.lower() not in seen]
        seen |= {section, *(p.lower() for p in fresh)}
        if fresh or parameters:
            yield Docstring(docstring.name, docstring.arguments, tuple(fresh), parameters)


# --------------------------------------------------------------------------------------- one source
def parse(source: bytes | str) -> list[Docstring]:
    """The docstrings of a Python source, outermost first; a source that does not parse has none."""
    tree = parse_source(source)
    return [] if tree is None else list(_walk(tree, ""))


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DEFINED = (ast.ClassDef, *FUNCTIONS)


def _walk(node: ast.AST, name: str) -> Iterator[Docstring]:
    if isinstance(node, (ast.Module, *DEFINED)) and (text := ast.get_docstring(node)):
        arguments = _arguments(node.args) if isinstance(node, FUNCTIONS) else None
        yield Docstring(name, arguments, tuple(paragraphs(text)), tuple(parameters(text)))
    for child in ast.iter_child_nodes(node):
        if isinstance(child, DEFINED):
            yield from _walk(child, f"{name}.{child.name}".lstrip("."))
        elif isinstance(child, (ast.If, ast.Try, ast.With)):
            yield from _walk(child, name)


def _arguments(arguments: ast.arguments) -> str:
    # Changed in place: nobody reads the tree again.
    for argument in ast.walk(arguments):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    for group in (arguments.posonlyargs, arguments.args):
        without_default = len(arguments.posonlyargs + arguments.args) - len(arguments.defaults)
        if group and group[0].arg in ("self", "cls") and without_default > 0:
            del group[0]
    return ast.unparse(arguments)


def argument_names(arguments: str) -> frozenset[str]:
    """The names in `Docstring.arguments`."""
    return frozenset(
        a.arg for a in ast.walk(ast.parse(f"def f({arguments}): pass")) if isinstance(a, ast.arg)
    )


# ------------------------------------------------------------------------------- parameter sections
NUMPYDOC = re.compile(r"^(?:Other )?Parameters\n-{4,}\n(.*?)(?=^\S[^\n]*\n-{3,}$|\Z)", re.M | re.S)
NUMPYDOC_ENTRY = re.compile(r"^(\*{0,2}\w+) ?:(?: +(\S.*))?$")
GOOGLE = re.compile(r"^(?:Args|Arguments|Parameters):\n((?:[ \t]+\S[^\n]*\n|[ \t]*\n)+)", re.M)
GOOGLE_ENTRY = re.compile(r"^`?(\*{0,2}\w+)`? ?(?:\((.*?)\))?:(?:\s+(\S.*))?$")


def parameters(docstring: str) -> list[Parameter]:
    """The entries of the parameter section of a docstring in numpydoc's or Google's form.

    There are none without such a section. Only entries with a description count, and of two
    with one name the first.
    """
    docstring = docstring.expandtabs()
    if found := NUMPYDOC.search(docstring):
        entries = _entries(found[1], NUMPYDOC_ENTRY, 0)
    elif found := GOOGLE.search(docstring + "\n"):
        indents = [len(line) - len(line.lstrip()) for line in found[1].splitlines() if line.strip()]
        entries = _entries(found[1], GOOGLE_ENTRY, min(indents, default=0))
    else:
        return []
    return list(
        {entry.name: entry for entry in reversed(list(entries)) if entry.description}.values()
    )[::-1]


def _entries(section: str, head: re.Pattern, indent: int) -> Iterator[Parameter]:
    """Heads stand at `indent`, descriptions further in; those end with their first paragraph."""
    name, kind, closed = "", "", False
    lines: list[str] = []
    for line in [*section.splitlines(), " " * indent + "end :"]:
        inside = line[indent:]
        if line.strip() and not line[:indent].strip() and not inside[:1].isspace():
            if name:
                yield Parameter(name, plain(kind).rstrip("."), plain(" ".join(lines)))
            found = head.match(inside.rstrip())
            name, kind = (found[1].lstrip("*"), found[2] or "") if found else ("", "")
            lines, closed = [found[3]] if found and found.re.groups == 3 and found[3] else [], False
        elif not line.strip() or line.strip().startswith((">>>", "..", "```", "- ", "* ")):
            closed = closed or bool(lines)
        elif not closed:
            lines.append(line.strip())


def plain(text: str) -> str:
    """Without markup, white space collapsed."""
    for pattern, replacement in MARKUP:
        text = pattern.sub(replacement, text)
    return re.sub(r"\s+", " ", text.replace("::", ":")).strip()
