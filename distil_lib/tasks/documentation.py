"""Six tasks of GLUE's and SQuAD's shapes from the documentation that is installed anyway: no network, labels that the text carries.

    splits = load("doc-same")                  # {"train": Dataset, "validation": ..., "test": ...}; made in seconds, then cached

- doc-acceptability (CoLA's shape): is the sentence as it was written, or has one word been changed or two neighbours swapped?
- doc-package (ten classes): of which of ten packages does a paragraph speak, all names blanked?
- doc-same (MRPC's shape): do two paragraphs follow one another in one docstring, or are they from two of one module?
- doc-signature (QNLI's shape): does a paragraph describe the function with these arguments, or another one of its module?
- doc-near (STS-B's shape): how much of their path have the modules of two paragraphs in common, from 0 to 5?
- doc-qa (SQuAD's shape): type, default or meaning of a parameter, found in the text of its parameter section

Test documents are those held out from the default teacher's pretraining (`documentation_sources`). `document` says where a row is from.
Negatives come from the same module, so that the topic alone does not give them away; in each split the labels are balanced.
"""

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pyarrow
import pyarrow.parquet
from datasets import Dataset

from distil_lib.common.files import MAKING
from distil_lib.common.paths import cache_folder
from distil_lib.errors import UserError
from distil_lib.masking import random_stream
from distil_lib.tasks.documentation_sources import (
    SHARES,
    Docstring,
    Module,
    argument_names,
    read_modules,
)
from distil_lib.text.documents import DOCUMENTED, documentation_version

FORMAT = 1  # raised whenever the same sources would give other examples: part of the cache's key
SEED = 0
SIZES = MappingProxyType(
    {"train": 3000, "validation": 600, "test": 800}
)  # at most; fewer where a split has less to give
PACKAGES = (
    "python",
    "torch",
    "sympy",
    "scipy",
    "transformers",
    "scikit-learn",
    "pandas",
    "matplotlib",
    "huggingface-hub",
    "fonttools",
)
NAMES = re.compile(  # any word with a package's name in it, also those of doc-near's other packages
    r"\b\w*(?:python|torch|sympy|scipy|transformers|scikit|sklearn|pandas|matplotlib|pyplot|mpl|hugging|fonttools|numpy|tensor"
    r"board|jupyter|sphinx|pytest|pydantic|docutils|tornado|pygments|datasets)\w*",
    re.I,
)
BLANK = "_"

Row = dict[str, object]
Maker = Callable[
    [Sequence[Module], np.random.Generator, int], list[Row]
]  # of them the first `size` rows are taken


# ---------------------------------------------------------------------------------------------------------- doc-acceptability
DETERMINERS = frozenset("a an the this these its each every any no".split())
PREPOSITIONS = frozenset("of in to for with from by on at as into".split())
MODALS = frozenset("can will must should may cannot could would".split())
FORMS = MappingProxyType(
    {
        "is": "are",
        "are": "is",
        "was": "were",
        "were": "was",
        "has": "have",
        "have": "has",
        "does": "do",
        "do": "does",
        "a": "an",
        "an": "a",
        "this": "these",
        "these": "this",
    }
)
PLAIN_WORD = re.compile(r"[A-Za-z][a-z'’-]*[,;:]?")


def sentences(paragraph: str) -> list[str]:
    """The sentences of 6 to 30 plain words, from a capital letter to a full stop."""
    parts = re.split(r"(?<=[.!?]) (?=[A-Z])", paragraph)
    fits = lambda words: (
        6 <= len(words) <= 30 and words[0][0].isupper() and all(map(PLAIN_WORD.fullmatch, words))
    )
    return [part for part in parts if part.endswith(".") and fits(part[:-1].split(" "))]


def damages(sentence: str) -> dict[str, list[tuple[str, str]]]:
    """Every local damage to a sentence: from "swap" and "form" to pairs (name of the edit, damaged sentence).

    "swap i" changes words i and i + 1 about, of which the first is an article, determiner or preposition. "form i" puts another form in
    the place of word i: is/are, a/an and their like, or an -s on the verb after can, will, must and their like.
    """
    words = sentence.split(" ")
    found: dict[str, list[tuple[str, str]]] = {"swap": [], "form": []}
    for i in range(1, len(words) - 1):
        word, after = words[i], words[i + 1]
        if (
            word in DETERMINERS | PREPOSITIONS
            and after.isalpha()
            and after != word
            and i + 2 < len(words)
        ):
            found["swap"].append(
                (f"swap {i}", " ".join([*words[:i], after, word, *words[i + 2 :]]))
            )
        other = FORMS.get(word)
        if (
            words[i - 1] in MODALS
            and word.isalpha()
            and word not in ("not", "also", "only", "no", "be")
            and word[-1] not in "sy"
        ):
            other = word + "s"
        if other:
            found["form"].append((f"form {i}", " ".join([*words[:i], other, *words[i + 1 :]])))
    return {kind: edits for kind, edits in found.items() if edits}


def acceptability(modules: Sequence[Module], random: np.random.Generator, size: int) -> list[Row]:
    """Each sentence occurs once, as it is (1) or damaged (0); those that are as they are could have been damaged too."""
    places = {
        s: module.name
        for module in modules
        for text in _paragraphs(module, 0)
        for s in sentences(text)
    }
    rows = []
    for sentence in _shuffled([s for s in sorted(places) if damages(s)], random):
        row = {"text_a": sentence, "label": 1, "edit": "", "document": places[sentence]}
        if len(rows) % 2:
            edits = damages(sentence)
            kind = edits[sorted(edits)[random.integers(len(edits))]]
            row["edit"], row["text_a"] = kind[random.integers(len(kind))]
            row["label"] = 0
        rows.append(row)
    return rows


# ---------------------------------------------------------------------------------------------------------------- doc-package
def blanked(text: str, module: Module) -> str:
    """Without the names of packages (also within longer words) and the parts of the module's own path."""
    parts = sorted({part for part in module.path if len(part) > 1}, key=len, reverse=True)
    own = re.compile(
        r"(?<![A-Za-z0-9])(?:" + "|".join(map(re.escape, parts)) + r")(?![A-Za-z0-9])", re.I
    )
    return own.sub(BLANK, NAMES.sub(BLANK, text))


def package(modules: Sequence[Module], random: np.random.Generator, size: int) -> list[Row]:
    """Paragraphs of 10 words and more; no package gives more than its tenth, and those that have less give what they have."""
    names = [name for name in PACKAGES if any(module.package == name for module in modules)]
    found: dict[str, list[Row]] = {name: [] for name in names}
    for module in modules:
        if module.package in found:
            texts = dict.fromkeys(blanked(text, module) for text in _paragraphs(module, 10))
            found[module.package] += [
                {"text_a": text, "label": PACKAGES.index(module.package), "document": module.name}
                for text in texts
            ]
    each = [_shuffled(rows, random)[: max(size // len(PACKAGES), 1)] for rows in found.values()]
    # Round after round through the packages, so that the first so many rows are balanced too.
    return [row for one_each in zip_longest(*each) for row in one_each if row]


# ------------------------------------------------------------------------------------------------------ doc-same, doc-signature
def _pairs(
    module: Module, docstrings: list[Docstring], random: np.random.Generator
) -> Iterator[tuple[Docstring, Docstring, int]]:
    """Each docstring with itself (1) or with the next one (0), half of a module's of each kind."""
    order = _shuffled(docstrings, random)
    for i in range(len(order) - len(order) % 2 if len(order) > 1 else 0):
        yield order[i], order[i] if i % 2 else order[(i + 1) % len(order)], i % 2


def same(modules: Sequence[Module], random: np.random.Generator, size: int) -> list[Row]:
    """(a paragraph but the last, the one after it), or a second one that comes after some paragraph of another docstring."""
    rows = []
    for module in modules:
        long = [d for d in module.docstrings if len(d.paragraphs) > 1]
        for first, second, label in _pairs(module, long, random):
            i, j = (
                random.integers(len(first.paragraphs) - 1),
                random.integers(len(second.paragraphs) - 1),
            )
            row = {
                "text_a": first.paragraphs[i],
                "text_b": second.paragraphs[(i if label else j) + 1],
            }
            rows.append(row | {"label": label, "document": module.name})
    return _alternating(rows, random)


def signature(modules: Sequence[Module], random: np.random.Generator, size: int) -> list[Row]:
    """A docstring's first paragraph, and the arguments of its function or of another with other arguments; function names are hidden."""
    rows = []
    for module in modules:
        functions = [
            d for d in module.docstrings if d.arguments and d.paragraphs and len(d.arguments) <= 200
        ]
        functions = list({argument_names(d.arguments): d for d in functions}.values())
        for first, second, label in _pairs(module, functions, random):
            row = {"text_a": first.paragraphs[0], "text_b": f"{BLANK}({second.arguments})"}
            rows.append(row | {"label": label, "document": module.name})
    return _alternating(rows, random)


def _alternating(rows: list[Row], random: np.random.Generator) -> list[Row]:
    sides = [_shuffled([row for row in rows if row["label"] == label], random) for label in (0, 1)]
    return [row for both in zip(*sides, strict=False) for row in both]


# ------------------------------------------------------------------------------------------------------------------- doc-near
def nearness(a: Sequence[str], b: Sequence[str]) -> float:
    """5 times the share of two paths that agrees from the left: 0 for two packages, near 5 for neighbours deep in one."""
    common = next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )
    return 5 * 2 * common / (len(a) + len(b))


def near(modules: Sequence[Module], random: np.random.Generator, size: int) -> list[Row]:
    """For each module in turn a partner from another package, from its own, or its nearest; a third are apart; names are blanked."""
    modules = [module for module in modules if len(_paragraphs(module, 8)) > 1]
    paths = [module.path for module in modules]
    rows, met = [], set()
    for turn in range(15):
        if turn % 3 == 0 and len(rows) > 1.2 * size:
            break
        for i in _shuffled(range(len(modules)), random):
            others = [
                j
                for j in range(len(modules))
                if j != i and (paths[j][0] == paths[i][0]) == (turn % 3 > 0)
            ]
            if turn % 3 == 2 and others:
                scores = {j: nearness(paths[i], paths[j]) for j in others}
                others = [j for j in others if scores[j] == max(scores.values())]
            if (
                not others
                or (pair := frozenset((i, j := others[random.integers(len(others))]))) in met
            ):
                continue
            met.add(pair)
            texts = {
                name: _excerpt(modules[k], random) for name, k in (("text_a", i), ("text_b", j))
            }
            document = f"{modules[i].name} {modules[j].name}"
            rows.append(texts | {"label": nearness(paths[i], paths[j]), "document": document})
    apart, own = (
        _shuffled([row for row in rows if bool(row["label"]) == same], random)
        for same in (False, True)
    )
    return [row for three in zip(apart, own[::2], own[1::2], strict=False) for row in three]


def _excerpt(module: Module, random: np.random.Generator, words: int = 60) -> str:
    """Paragraphs from one drawn at random on, until there are about so many words."""
    texts = _paragraphs(module, 8)
    start = random.integers(len(texts))
    text = " ".join([*texts[start:], *texts[:start]])
    return blanked(" ".join(text.split(" ")[:words]), module)


# --------------------------------------------------------------------------------------------------------------------- doc-qa
DEFAULT = re.compile(
    r"\bdefaults?(?: value)?(?: is| to|:| =|=)?[ =]+(?!is\b|to\b|value\b|the\b|a\b)([^\s,;()]*[\w\"'\]})])",
    re.I,
)
QUESTIONS = MappingProxyType(
    {
        "type": "What is the type of {parameter} in {function}?",
        "default": "What is the default of {parameter} in {function}?",
        "meaning": "What does {parameter} mean in {function}?",
    }
)
SECTION_WORDS = 150


def question_answering(
    modules: Sequence[Module], random: np.random.Generator, size: int
) -> list[Row]:
    """Up to five questions a parameter section, each about another parameter; the kinds of questions equally often."""
    kinds: dict[str, list[Row]] = {kind: [] for kind in QUESTIONS}
    for module in modules:
        for docstring in module.docstrings:
            context, answers = section(docstring)
            function = (
                docstring.name.removesuffix(".__init__").rpartition(".")[2] or module.path[-1]
            )
            for parameter in _shuffled(sorted(answers), random)[:5] if len(answers) > 1 else ():
                few = sorted(answers[parameter], key=lambda kind: (len(kinds[kind]), kind))
                start, text = answers[parameter][few[0]]
                row = {
                    "question": QUESTIONS[few[0]].format(parameter=parameter, function=function),
                    "context": context,
                    "kind": few[0],
                }
                name = hashlib.sha256(
                    f"{module.name} {docstring.name} {row['question']}".encode()
                ).hexdigest()[:16]
                kinds[few[0]].append(
                    row
                    | {
                        "id": name,
                        "answers": {"text": [text], "answer_start": [start]},
                        "document": module.name,
                    }
                )
    each = [
        _shuffled(list({row["id"]: row for row in rows}.values()), random)
        for rows in kinds.values()
    ]
    return [row for one_each in zip(*each, strict=False) for row in one_each]


def section(docstring: Docstring) -> tuple[str, dict[str, dict[str, tuple[int, str]]]]:
    """The text of a parameter section, and for each parameter and kind of question the answer's first character and the answer."""
    context, answers = "", {}
    for parameter in docstring.parameters:
        kind = f" : {parameter.type}" if parameter.type else ":"
        entry = f"{parameter.name}{kind}{'.' if parameter.type else ''} {parameter.description}"
        if len((context + entry).split()) > SECTION_WORDS:
            break
        begin = len(context) + (1 if context else 0)
        context = f"{context} {entry}".lstrip()
        spans = {
            "meaning": re.match(r"(.*?[.!?])(?= [A-Z]|$)|.*", parameter.description)[0].rstrip(".")
        }
        found = {"meaning": (begin + len(entry) - len(parameter.description), spans["meaning"])}
        if kind := re.split(r",? +(?:optional|default)|, *keyword", parameter.type)[0].rstrip(
            " ,."
        ):
            found["type"] = (begin + len(parameter.name) + 3, kind)
        if default := DEFAULT.search(entry, len(parameter.name)):
            found["default"] = (begin + default.start(1), default[1])
        answers[parameter.name] = {kind: span for kind, span in found.items() if span[1]}
    return context, {name: found for name, found in answers.items() if found}


# ------------------------------------------------------------------------------------------------------------ making and keeping
MAKERS: Mapping[str, Maker] = MappingProxyType(
    {
        "doc-acceptability": acceptability,
        "doc-package": package,
        "doc-same": same,
        "doc-signature": signature,
        "doc-near": near,
        "doc-qa": question_answering,
    }
)


def _shuffled(items: Sequence, random: np.random.Generator) -> list:
    return [items[i] for i in random.permutation(len(items))]


def _paragraphs(module: Module, words: int) -> list[str]:
    """The module's paragraphs of at least so many words."""
    return [text for d in module.docstrings for text in d.paragraphs if len(text.split()) >= words]


def make(name: str, modules: Mapping[str, Sequence[Module]]) -> dict[str, list[Row]]:
    """The rows of each split of a task. Raises `UserError` if the modules give none for one of them."""
    splits = {}
    for number, (split, part) in enumerate(modules.items()):
        size = SIZES[split]
        rows = MAKERS[name](part, random_stream(SEED, sorted(MAKERS).index(name), number), size)[
            :size
        ]
        if not rows:
            problem = f"The installed documentation gives no {split} example for {name}."
            raise UserError(problem, "Install more of its packages: `make book`.")
        splits[split] = rows
    return splits


def load(
    name: str,
    packages: Sequence[str] = DOCUMENTED,
    cache: Path | None = None,
    shares: Mapping[str, int] = SHARES,
) -> dict[str, Dataset]:
    """A task's splits, from the cache if they have been made before (all tasks are made together, within about half a minute).

    The cache's key is made of the packages' versions and this file's format; it is written beside and renamed.
    """
    key = json.dumps(
        [FORMAT, sorted(documentation_version(packages)), dict(shares), dict(SIZES), SEED]
    )
    folder = (
        (cache or cache_folder())
        / "documentation-tasks"
        / hashlib.sha256(key.encode()).hexdigest()[:16]
    )
    if not folder.is_dir():
        modules = read_modules(packages, dict(shares))
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=MAKING, dir=folder.parent) as beside:
            for task in MAKERS:
                Path(beside, "made", task).mkdir(parents=True)
                for split, rows in make(task, modules).items():
                    pyarrow.parquet.write_table(
                        pyarrow.Table.from_pylist(rows),
                        Path(beside, "made", task, f"{split}.parquet"),
                    )
            if not folder.is_dir():  # another process may have been quicker
                shutil.move(Path(beside, "made"), folder)
    # In the order of a reader's use, and not memory-mapped: all tasks together are a few megabytes.
    return {
        split: Dataset(pyarrow.parquet.read_table(folder / name / f"{split}.parquet"))
        for split in ("train", "validation", "test")
    }
