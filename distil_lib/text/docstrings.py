"""Docstrings to prose: what a Python source says in sentences."""

import ast
import gc
import inspect
import re
import warnings
from collections.abc import Iterator


def docstrings(source: bytes | str) -> list[str]:
    """Every docstring of a Python source, outermost first; the code is parsed and never run.

    Counted as docstrings are those of modules, classes and functions, and the strings handed to a
    function with "doc" in its name: compiled packages document themselves by such calls,
    `add_newdoc(name, (attribute, text))`. A source that does not parse has none.
    """
    if (tree := parse_source(source)) is None:
        return []
    found = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            found.append(ast.get_docstring(node) or "")
        elif isinstance(node, ast.Call) and "doc" in getattr(
            node.func, "attr", getattr(node.func, "id", "")
        ):
            found += [
                inspect.cleandoc(text) for argument in node.args for text in _strings(argument)
            ]
    return [text for text in found if text]


def parse_source(source: bytes | str) -> ast.Module | None:
    """The syntax tree of a Python source; None for one that does not parse.

    A tree is a great many objects that live: the garbage collector goes through them again and
    again and frees none, which takes as long as the parsing. It is off in between.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # doubtful escapes in foreign sources
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    finally:
        if collecting:
            gc.enable()


def _strings(node: ast.expr) -> Iterator[str]:
    """The string constants of an argument, also inside tuples and lists.

    As in `add_newdoc("numpy", "ndarray", ("T", "The transpose."))`.
    """
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, (ast.Tuple, ast.List)):
        for element in node.elts:
            yield from _strings(element)


MARKUP = (  # reStructuredText, Markdown and epytext marks -> their text
    (re.compile(r":[a-zA-Z:+-]+:`~?([^`<]*?)\s*(?:<[^`>]*>)?`"), r"\1"),  # :func:`text <target>`
    (re.compile(r":(?:obj|class|func|meth|attr|mod|ref):"), ""),
    (re.compile(r"\[([^\]]*)\]\([^)]*\)"), r"\1"),  # [text](address)
    (re.compile(r"`([^`<]*?)\s*<[^`>]*>`_*"), r"\1"),  # `text <address>`_
    (re.compile(r"\[\w+\]_|\[`?~?([\w.]+)`?\]"), r"\1"),  # [1]_ and [`Name`]
    (re.compile(r"`+|\*\*|(?<!\w)\*(?=\w)|(?<=\w)\*(?!\w)|\|(?=\w)|(?<=\w)\|"), ""),
    (re.compile(r"^\s*:\w+(?:\s+[\w*, .]+)?:\s*|^\s*@\w+(?:\s+\w+)?:\s*"), ""),  # :param x:
    (re.compile(r"^\s*(?:[-*+]|\d+[.)])\s+"), ""),  # list items
)


# a numpydoc parameter, "axis : int, optional"
NAME_AND_TYPE = re.compile(r"\*{0,2}\w[\w, *.]* : \S.*")


WORD = re.compile(r"[(\"']?[A-Za-z][a-z'’-]*[.,;:!?)\"']*$")


def paragraphs(docstring: str) -> list[str]:
    """The prose of a docstring: one string a paragraph.

    Markup, code, tables, signatures and headings are left out.
    """
    kept: list[str] = []
    lines: list[str] = []
    literal_indent = None
    for line in [*docstring.expandtabs().splitlines(), ""]:
        stripped = line.strip()
        indent = len(line) - len(line.lstrip())
        if literal_indent is not None and stripped and indent <= literal_indent:
            # The literal block introduced by "::" ends where the indentation does.
            literal_indent = None
        starts_block = stripped.startswith(
            (">>>", "...", "..", "```", "$ ", "|", "+-", "==", "--", "~~")
        )
        if (
            not stripped
            or starts_block
            or literal_indent is not None
            or NAME_AND_TYPE.fullmatch(stripped)
        ):
            # A blank line, a directive, code or a `name : type` line closes the paragraph before.
            kept += _prose(" ".join(lines))
            lines = []
            if stripped.startswith("..") and not stripped.startswith("..."):
                literal_indent = indent
        else:
            for pattern, replacement in MARKUP:
                stripped = pattern.sub(replacement, stripped)
            lines.append(stripped)
        if stripped.endswith("::"):
            literal_indent = indent
    return kept


def _prose(text: str) -> list[str]:
    """`[text]` if it reads as sentences, else `[]`."""
    text = re.sub(r"\s+", " ", text.replace("::", ":")).strip()
    words = text.split()
    if len(words) < 5 or not (text[-1] in ".!?:" or len(words) >= 10):
        return []
    return [text] if sum(bool(WORD.match(word)) for word in words) >= 0.7 * len(words) else []
