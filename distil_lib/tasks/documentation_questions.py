"""doc-qa: questions about the parameters of functions, answered in their parameter sections."""

import hashlib
import re
from collections.abc import Sequence
from types import MappingProxyType

import numpy as np

from distil_lib.tasks.documentation_sources import Docstring, Row, SourceModule, shuffled

DEFAULT = re.compile(
    r"\bdefaults?(?: value)?(?: is| to|:| =|=)?[ =]+"
    r"(?!is\b|to\b|value\b|the\b|a\b)([^\s,;()]*[\w\"'\]})])",
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
    modules: Sequence[SourceModule], random: np.random.Generator, size: int
) -> list[Row]:
    """Up to five questions a parameter section, each about another parameter.

    The kinds of questions occur equally often.
    """
    kinds: dict[str, list[Row]] = {kind: [] for kind in QUESTIONS}
    for module in modules:
        for docstring in module.docstrings:
            context, answers = section(docstring)
            function = (
                docstring.name.removesuffix(".__init__").rpartition(".")[2] or module.path[-1]
            )
            for parameter in shuffled(sorted(answers), random)[:5] if len(answers) > 1 else ():
                kind = min(answers[parameter], key=lambda kind: (len(kinds[kind]), kind))
                start, text = answers[parameter][kind]
                question = QUESTIONS[kind].format(parameter=parameter, function=function)
                place = f"{module.name} {docstring.name} {question}"
                kinds[kind].append(
                    {
                        "question": question,
                        "context": context,
                        "kind": kind,
                        "id": hashlib.sha256(place.encode()).hexdigest()[:16],
                        "answers": {"text": [text], "answer_start": [start]},
                        "document": module.name,
                    }
                )
    each = [
        shuffled(list({row["id"]: row for row in rows}.values()), random) for rows in kinds.values()
    ]
    return [row for one_each in zip(*each, strict=False) for row in one_each]


def section(docstring: Docstring) -> tuple[str, dict[str, dict[str, tuple[int, str]]]]:
    """The text of a parameter section and its answers.

    Returns:
        The text; and for each parameter, from the kind of question to the answer's first character
        and the answer.
    """
    context = ""
    answers: dict[str, dict[str, tuple[int, str]]] = {}
    for parameter in docstring.parameters:
        head = f"{parameter.name} : {parameter.type}." if parameter.type else f"{parameter.name}:"
        entry = f"{head} {parameter.description}"
        if len((context + entry).split()) > SECTION_WORDS:
            break
        begin = len(context) + (1 if context else 0)
        context = f"{context} {entry}".lstrip()
        first = re.search(r"^(.*?[.!?])(?= [A-Z]|$)|^.*", parameter.description)
        meaning = first[0].rstrip(".") if first else ""
        found = {"meaning": (begin + len(entry) - len(parameter.description), meaning)}
        if kind := re.split(r",? +(?:optional|default)|, *keyword", parameter.type)[0].rstrip(
            " ,."
        ):
            found["type"] = (begin + len(parameter.name) + 3, kind)
        if default := DEFAULT.search(entry, len(parameter.name)):
            found["default"] = (begin + default.start(1), default[1])
        if given := {kind: span for kind, span in found.items() if span[1]}:
            answers[parameter.name] = given
    return context, answers
