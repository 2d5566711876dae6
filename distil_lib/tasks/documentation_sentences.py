"""doc-acceptability: sentences as they were written, or with one local error.

    corruptions("The value is returned.")   # {"form": [("form 2", "The value are returned.")]}

Each pair is the name of the edit and the corrupted sentence.
"""

import re
from collections.abc import Sequence
from types import MappingProxyType

import numpy as np

from distil_lib.tasks.documentation_sources import Row, SourceModule, paragraphs_of, shuffled

DETERMINERS = frozenset("a an the this these its each every any no".split())
PREPOSITIONS = frozenset("of in to for with from by on at as into".split())
MODALS = frozenset("can will must should may cannot could would".split())
FORMS = MappingProxyType(
    {
        word: other
        for pair in "is/are was/were has/have does/do a/an this/these".split()
        for word, other in (pair.split("/"), pair.split("/")[::-1])
    }
)
PLAIN_WORD = re.compile(r"[A-Za-z][a-z'’-]*[,;:]?")


def sentences(paragraph: str) -> list[str]:
    """The sentences of 6 to 30 plain words, from a capital letter to a full stop."""
    parts = re.split(r"(?<=[.!?]) (?=[A-Z])", paragraph)
    return [part for part in parts if part.endswith(".") and _is_plain(part[:-1].split(" "))]


def _is_plain(words: list[str]) -> bool:
    """Whether a sentence has 6 to 30 words, all plain, after a capital letter."""
    return 6 <= len(words) <= 30 and words[0][0].isupper() and all(map(PLAIN_WORD.fullmatch, words))


def corruptions(sentence: str) -> dict[str, list[tuple[str, str]]]:
    """Every sentence that differs from a sentence by one local error.

    "swap i" exchanges words i and i + 1, of which the first is an article, determiner or
    preposition. "form i" puts another form in the place of word i: is/are, a/an and similar pairs,
    or an -s on the verb after can, will, must and other modals.

    Returns:
        From "swap" and "form" to pairs (name of the edit, corrupted sentence).
    """
    words = sentence.split(" ")
    found: dict[str, list[tuple[str, str]]] = {"swap": [], "form": []}
    for i in range(1, len(words) - 1):
        word, after = words[i], words[i + 1]
        movable = word in DETERMINERS | PREPOSITIONS and i + 2 < len(words)
        if movable and after.isalpha() and after != word:
            swapped = " ".join([*words[:i], after, word, *words[i + 2 :]])
            found["swap"].append((f"swap {i}", swapped))
        other = FORMS.get(word)
        verb = word.isalpha() and word not in ("not", "also", "only", "no", "be")
        if words[i - 1] in MODALS and verb and word[-1] not in "sy":
            other = word + "s"
        if other:
            found["form"].append((f"form {i}", " ".join([*words[:i], other, *words[i + 1 :]])))
    return {kind: edits for kind, edits in found.items() if edits}


def acceptability(
    modules: Sequence[SourceModule], random: np.random.Generator, size: int
) -> list[Row]:
    """Each sentence once, as it is (1) or corrupted (0); all of them can be corrupted."""
    places = {
        s: module.name
        for module in modules
        for text in paragraphs_of(module, 0)
        for s in sentences(text)
    }
    rows: list[Row] = []
    for sentence in shuffled([s for s in sorted(places) if corruptions(s)], random):
        row = {"text_a": sentence, "label": 1, "edit": "", "document": places[sentence]}
        if len(rows) % 2:
            edits = corruptions(sentence)
            kind = edits[sorted(edits)[random.integers(len(edits))]]
            row["edit"], row["text_a"] = kind[random.integers(len(kind))]
            row["label"] = 0
        rows.append(row)
    return rows
