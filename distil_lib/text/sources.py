"""What the name of a corpus means: the one place that reads its grammar.

    docs                                          the installed documentation
    docs:numpy,pandas                             of these packages
    hub:OWNER/NAME[:CONFIG[:SPLIT]]               a dataset of the Hugging Face Hub
    any/other/name                                a file or a folder
    hub:wikimedia/wikipedia:20231101.en + docs    a mixture: all of both
    0.6 hub:owner/name + 0.4 docs                 a mixture with shares of the text

A mixture has spaces around each `+`. What exists as a file or a folder is a path, whatever its
name.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi

from distil_lib.common.hub import CLIENT_ERROR
from distil_lib.errors import UserError
from distil_lib.text.documentation import DOCUMENTED, documentation_version

WEIGHTED = re.compile(r"([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s+(\S.*)", re.DOTALL)
FORMS = 'Pass a file, a folder, "docs" or "hub:OWNER/NAME[:CONFIG[:SPLIT]]", or several with " + ".'


@dataclass(frozen=True)
class Source:
    """One part of a corpus.

    Args:
        kind: "docs", "hub" or "path".
        name: what was written for this part, without its weight.
        weight: its share of the text, relative to the other parts'; None: all of it is read.
    """

    kind: str
    name: str
    weight: float | None = None

    @property
    def packages(self) -> tuple[str, ...]:
        """Of "docs": the packages whose docstrings are read."""
        names = tuple(name.strip() for name in self.name[5:].split(",") if name.strip())
        return names or DOCUMENTED

    @property
    def repository(self) -> tuple[str, str | None, str]:
        """Of "hub": (OWNER/NAME, configuration or None, split)."""
        name, config, split = (*self.name[4:].split(":"), "", "")[:3]
        return name, config or None, split or "train"


def parse_corpus(corpus: str) -> list[Source]:
    """The parts of a corpus.

    Raises:
        UserError: where a part is empty, or only some parts have a weight.
    """
    corpus = str(corpus)
    if _exists(corpus):
        return [Source("path", corpus)]
    written = re.split(r"\s+\+\s+", corpus.strip())
    parts = [_part(text.strip(), corpus) for text in written]
    weights = [part.weight for part in parts]
    if len(parts) == 1 and weights[0] is not None:
        raise UserError(f"The corpus {corpus!r} has a weight and a single part.", "Leave it out.")
    if None in weights and any(weights):
        raise UserError(
            f"Only some parts of the corpus {corpus!r} have a weight.",
            "Give each part one, or none: 0.6 hub:OWNER/NAME + 0.4 docs.",
        )
    return parts


def _exists(name: str) -> bool:
    try:
        return bool(name) and Path(name).exists()
    except (OSError, ValueError):  # a name that no file system takes
        return False


def _part(text: str, corpus: str) -> Source:
    weight = None
    if not _exists(text) and (match := WEIGHTED.fullmatch(text)):
        weight, text = float(match[1]), match[2]
        if not 0 < weight < float("inf"):
            raise UserError(f"The weight {match[1]} of {text!r} is not above 0.", "Raise it.")
    if not text or text == "+" or text.startswith("+ ") or text.endswith(" +"):
        raise UserError(f"A part of the corpus {corpus!r} is empty.", FORMS)
    if text == "docs" or text.startswith("docs:"):
        return Source("docs", text, weight)
    if text.startswith("hub:"):
        name, *rest = text[4:].split(":")
        if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name) or len(rest) > 2:
            raise UserError(
                f"{text!r} does not name a dataset of the Hub.",
                "Write hub:OWNER/NAME, hub:OWNER/NAME:CONFIG or hub:OWNER/NAME:CONFIG:SPLIT.",
            )
        check_no_folder(name)
        return Source("hub", text, weight)
    return Source("path", text, weight)


def check_no_folder(name: str) -> None:
    """Raise `UserError` where `datasets` would read a folder here in place of the Hub's dataset."""
    if _exists(name):
        raise UserError(
            f"{name!r} is a name on the Hub, and a file or folder here, too.",
            "Start the program in another folder, or pass the path (./NAME) in place of the Hub's.",
        )


def corpus_fingerprint(corpus: str) -> list:
    """What the documents of a corpus depend on, as far as this machine knows it.

    Of "docs" the packages' versions, of files their sizes and times of change, of the Hub the name:
    its revision needs the network, see `hub_revisions`.
    """
    parts = parse_corpus(corpus)
    if len(parts) == 1:
        return _fingerprint(parts[0])
    return [[part.weight, part.kind, _fingerprint(part)] for part in parts]


def _fingerprint(source: Source) -> list:
    if source.kind == "docs":
        return documentation_version(source.packages)
    if source.kind == "hub":
        return [source.name]
    path = Path(source.name)
    try:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        return [
            [str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns] for f in files if f.is_file()
        ]
    except (OSError, ValueError) as error:
        raise UserError(f"{source.name} cannot be read ({error}).", "Check its rights.") from error


def hub_revisions(parts: Sequence[Source]) -> dict[str, str] | None:
    """The commit of each part that lies on the Hub; None if the Hub cannot be asked."""
    try:
        return {
            name: str(HfApi().dataset_info(name).sha)
            for name in sorted({part.repository[0] for part in parts if part.kind == "hub"})
        }
    except (CLIENT_ERROR, OSError, ValueError, RuntimeError):
        return None
