"""Sphinx extension: show the library's docstrings, which are plain text, as they are meant.

They are written to be read in the source: an indented block after an empty line is code, `name` is
code, and no other character has a meaning. reStructuredText wants "::" before a code block and
takes `*`, `|` and a trailing `_` for markup.
"""

import re

from sphinx.application import Sphinx

EMPHASIS = r"(?<![\w*])\*\w[\w ]*\*(?![\w*])"
PARTS = re.compile(rf"(`+.+?`+|{EMPHASIS})")


def to_rst(lines: list[str]) -> list[str]:
    """The lines of a docstring as reStructuredText."""
    out: list[str] = []
    text, in_code = "", False  # the last line of text, and whether a code block follows it
    for line in lines:
        if line.strip() and not line.startswith("    "):
            in_code = False
        elif line.strip() and not in_code and text and not out[-1]:
            out += ["::", ""]
            in_code = True
        if not in_code:
            text = line or text
            parts = PARTS.split(line)
            line = "".join(
                part if i % 2 else re.sub(r"([*|\\]|_\b)", r"\\\1", part)
                for i, part in enumerate(parts)
            )
        out.append(line)
    return out


def setup(app: Sphinx) -> dict[str, bool]:
    def process(
        app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
    ) -> None:
        if name.startswith("distil_lib"):
            lines[:] = to_rst(lines)

    app.connect("autodoc-process-docstring", process)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
