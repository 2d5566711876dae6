"""doc-package, doc-same, doc-signature, doc-near: which paragraphs belong together."""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import zip_longest

import numpy as np

from distil_lib.tasks.documentation_sources import (
    Docstring,
    Row,
    SourceModule,
    argument_names,
    paragraphs_of,
    shuffled,
)

PACKAGES = tuple(
    "python torch sympy scipy transformers scikit-learn pandas matplotlib huggingface-hub "
    "fonttools".split()
)
# Any word with a package's name in it, also those of doc-near's other packages.
NAMES = re.compile(
    r"\b\w*(?:python|torch|sympy|scipy|transformers|scikit|sklearn|pandas|matplotlib|pyplot|mpl"
    r"|hugging|fonttools|numpy|tensorboard|jupyter|sphinx|pytest|pydantic|docutils|tornado|pygments"
    r"|datasets)\w*",
    re.I,
)
BLANK = "_"


# ----------------------------------------------------------------------------------- doc-package
def blanked(text: str, module: SourceModule) -> str:
    """A text without the names of packages, and without the parts of its module's own path.

    Names are found within longer words, too.
    """
    return _own_names(module.path).sub(BLANK, NAMES.sub(BLANK, text))


@cache  # a module is met many times, and `re` keeps 512 patterns
def _own_names(path: tuple[str, ...]) -> re.Pattern[str]:
    parts = sorted({part for part in path if len(part) > 1}, key=len, reverse=True)
    return re.compile(
        r"(?<![A-Za-z0-9])(?:" + "|".join(map(re.escape, parts)) + r")(?![A-Za-z0-9])", re.I
    )


def package(modules: Sequence[SourceModule], random: np.random.Generator, size: int) -> list[Row]:
    """Paragraphs of 10 words and more, with the package as the class.

    No package gives more than its tenth; those that have less give what they have.
    """
    names = [name for name in PACKAGES if any(module.package == name for module in modules)]
    found: dict[str, list[Row]] = {name: [] for name in names}
    for module in modules:
        if module.package in found:
            texts = dict.fromkeys(blanked(text, module) for text in paragraphs_of(module, 10))
            found[module.package] += [
                {"text_a": text, "label": PACKAGES.index(module.package), "document": module.name}
                for text in texts
            ]
    each = [shuffled(rows, random)[: max(size // len(PACKAGES), 1)] for rows in found.values()]
    # Round after round through the packages, so that the first so many rows are balanced too.
    return [row for one_each in zip_longest(*each) for row in one_each if row]


# -------------------------------------------------------------------- doc-same, doc-signature
def _pairs(
    module: SourceModule, docstrings: list[Docstring], random: np.random.Generator
) -> Iterator[tuple[Docstring, Docstring, int]]:
    """Each docstring with itself (1) or with the next one (0), half of a module's of each kind."""
    order = shuffled(docstrings, random)
    for i in range(len(order) - len(order) % 2 if len(order) > 1 else 0):
        yield order[i], order[i] if i % 2 else order[(i + 1) % len(order)], i % 2


def same_docstring(
    modules: Sequence[SourceModule], random: np.random.Generator, size: int
) -> list[Row]:
    """Any paragraph but the last, and the one after it (1) or one of another docstring (0).

    The other one also comes after some paragraph of its docstring: its place says nothing.
    """
    rows = []
    for module in modules:
        long = [d for d in module.docstrings if len(d.paragraphs) > 1]
        for first, second, label in _pairs(module, long, random):
            i = random.integers(len(first.paragraphs) - 1)
            j = random.integers(len(second.paragraphs) - 1)
            after = second.paragraphs[(i if label else j) + 1]
            row = {"text_a": first.paragraphs[i], "text_b": after}
            rows.append(row | {"label": label, "document": module.name})
    return _alternating(rows, random)


def signature(modules: Sequence[SourceModule], random: np.random.Generator, size: int) -> list[Row]:
    """A docstring's first paragraph, and the arguments of its function (1) or of another (0).

    The other function has other arguments; the names of functions are hidden.
    """
    rows = []
    for module in modules:
        functions = {
            argument_names(d.arguments): d
            for d in module.docstrings
            if d.arguments and d.paragraphs and len(d.arguments) <= 200
        }
        for first, second, label in _pairs(module, list(functions.values()), random):
            row = {"text_a": first.paragraphs[0], "text_b": f"{BLANK}({second.arguments})"}
            rows.append(row | {"label": label, "document": module.name})
    return _alternating(rows, random)


def _alternating(rows: list[Row], random: np.random.Generator) -> list[Row]:
    sides = [shuffled([row for row in rows if row["label"] == label], random) for label in (0, 1)]
    return [row for both in zip(*sides, strict=False) for row in both]


# -------------------------------------------------------------------------------------- doc-near
def path_similarity(a: Sequence[str], b: Sequence[str]) -> float:
    """5 times the share of two paths that agrees from the left.

    It is 0 for two packages, and near 5 for neighbours deep in one.
    """
    common = next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )
    return 5 * 2 * common / (len(a) + len(b))


def module_similarity(
    modules: Sequence[SourceModule], random: np.random.Generator, size: int
) -> list[Row]:
    """For each module in turn a partner from another package, from its own, or its nearest.

    A third of the pairs are from two packages; names are blanked.
    """
    modules = [module for module in modules if len(paragraphs_of(module, 8)) > 1]
    paths = [module.path for module in modules]
    rows: list[Row] = []
    met: set[frozenset[int]] = set()
    for turn in range(15):
        if turn % 3 == 0 and len(rows) > 1.2 * size:
            break
        for i in shuffled(range(len(modules)), random):
            others = [
                j
                for j in range(len(modules))
                if j != i and (paths[j][0] == paths[i][0]) == (turn % 3 > 0)
            ]
            if turn % 3 == 2 and others:
                scores = {j: path_similarity(paths[i], paths[j]) for j in others}
                others = [j for j in others if scores[j] == max(scores.values())]
            if not others:
                continue
            j = others[random.integers(len(others))]
            if frozenset((i, j)) in met:
                continue
            met.add(frozenset((i, j)))
            texts = {"text_a": _excerpt(modules[i], random), "text_b": _excerpt(modules[j], random)}
            document = f"{modules[i].name} {modules[j].name}"
            label = path_similarity(paths[i], paths[j])
            rows.append({**texts, "label": label, "document": document})
    apart, own = (
        shuffled([row for row in rows if bool(row["label"]) == same], random)
        for same in (False, True)
    )
    return [row for three in zip(apart, own[::2], own[1::2], strict=False) for row in three]


def _excerpt(module: SourceModule, random: np.random.Generator, words: int = 60) -> str:
    """Paragraphs from one drawn at random on, until there are about so many words."""
    texts = paragraphs_of(module, 8)
    start = random.integers(len(texts))
    text = " ".join([*texts[start:], *texts[:start]])
    return blanked(" ".join(text.split(" ")[:words]), module)
