"""Slides made of the book: its claims, questions, equations and figures as the pages store them.

    python book/_ext/slides.py _build/slides       # or `make slides`: one file a week, fonts inside

As a Sphinx extension it writes the same decks beside the built pages. `book/teachers/slides/*.md`
says what stands on each slide: slides are separated by `---`, and a line such as

    {figure fig-02-entropy}       {claim 02_temperature}        {equation eq-02-loss}
    {question quiz-02-1}          {take-away 02_temperature}    {answer quiz-02-1}
    {table 08_ablations}, the first of the page
    {predict 02_temperature} and {drag fig-02-drag?T=4}, of its section "Drag it"

is replaced by that part of the book, so that a slide cannot disagree with its page. A figure to
drag is a picture with a link to the live one, in the state that the deck names. A deck is one HTML
file that asks nothing of any host: pictures are inside, formulas are MathML.
"""

import base64
import functools
import json
import re
import sys
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import launch
import publish
from docutils.utils.math.latex2mathml import tex2mathml
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin
from rjsmin import jsmin
from sphinx.application import Sphinx

HERE = Path(__file__).resolve().parent
BOOK = HERE.parent
DECKS = BOOK / "teachers" / "slides"
FONTS = BOOK / "_static" / "fonts"
SITE_FONTS = "../../_static/fonts"  # from a deck among the built pages
FACES = {
    "400-normal": ("normal", 400),
    "400-italic": ("italic", 400),
    "600-normal": ("normal", 600),
}
PART = re.compile(
    r"^\{(claim|table|take-away|figure|question|answer|equation|predict|drag) "
    r"([\w-]+)(?:\?(\S+))?\}$",
    re.MULTILINE,
)
DRAG = re.compile(r'<div class="drag" id="(drag-\w+)".*?(<img [^>]*>)', re.DOTALL)
CHOICE = re.compile(
    r'<details class="quiz(?P<right> right)?" name="(?P<name>[\w-]+)"><summary>(?P<text>.*?)'
    r"</summary>(?P<why>.*?)</details>",
    re.DOTALL,
)
# What docutils' MathML does not know, and does without.
TEX = (
    (r"\\(tfrac|dfrac|frac)\s*(\d)\s*(\d|\w)", r"\\frac{\2}{\3}"),
    (r"\\(tfrac|dfrac)", r"\\frac"),
    (r"\\[bB]igg?[lr]?(?![a-z])|\\textstyle|\[1ex\]", ""),
    (r"\\dots(?![a-z])", r"\\ldots"),
    (r"\\(log|ln|max)(?![a-z])(?!_)\s*", r"\\\1\\,"),
)
# docutils sets the index of an accented letter below it instead of beside it.
ACCENTED = re.compile(
    r"<munderover>\s*(<mi>[^<]*</mi>)((?:(?!<munderover>).)*?)(<mo[^>]*>[ˆ¯]</mo>)\s*</munderover>",
    re.DOTALL,
)
ROLES = (
    (r"\s*\{cite(:\w)?\}`[^`]*`", ""),
    (r"\{term\}`([^`<]*?)\s*(<[^`]*)?`", r"\1"),
    (r"\{numref\}`[^`]*`", "the figure"),
    (r"\{eq\}`[^`]*`", "the equation"),
    (r"\[([^\]]+)\]\([^)]*\)", r"\1"),
)


@dataclass
class Book:
    """The parts of all pages that a slide may show, as HTML, by name."""

    titles: dict[str, str] = field(default_factory=dict)
    parts: dict[tuple[str, str], str] = field(default_factory=dict)
    pages: dict[tuple[str, str], str] = field(default_factory=dict)  # where each part comes from
    live: dict[str, str] = field(default_factory=dict)  # {figure to drag: its anchor on the page}


def formula(tex: str, block: bool = False) -> str:
    """LaTeX as MathML, with its source as alternative text."""
    label = f' aria-label="{escape(tex.strip())}"'
    for old, new in TEX:
        tex = re.sub(old, new, tex)
    mathml = tex2mathml(tex.strip(), as_block=block)
    mathml = ACCENTED.sub(r"<msub><mover>\1\3</mover>\2</msub>", mathml)
    return re.sub(r' xmlns="[^"]*"', lambda _: label, mathml, count=1)


@functools.cache
def parser() -> MarkdownIt:
    """Markdown with formulas."""
    md = MarkdownIt("commonmark").enable("table")
    renderer = lambda tex, options: formula(tex, options["display_mode"])  # noqa: E731
    return md.use(dollarmath_plugin, renderer=renderer)


def plain(text: str) -> str:
    """MyST's roles and links as plain words: a slide has no other page to link to."""
    for old, new in ROLES:
        text = re.sub(old, new, text)
    return text


def markdown(text: str, whole: bool = True) -> str:
    """Markdown of a page as HTML; of a part of a line if it is not `whole`."""
    html = parser().render(plain(text)) if whole else parser().renderInline(plain(text))
    # No line begins with the mark that follows a formula.
    formulas = r'(<span class="math inline">|)(<math(?:(?!</math>).)*</math>)(</span>|)([?.,;:)])'
    return re.sub(formulas, r'<span class="whole">\2\4</span>', html, flags=re.DOTALL)


def inline(text: str) -> str:
    return markdown(text, whole=False)


def picture(cell: dict) -> str | None:
    """The picture that a cell has stored, as the address of an image."""
    for output in cell.get("outputs", ()):
        for kind, data in output.get("data", {}).items():
            if kind == "image/svg+xml":
                data = base64.b64encode("".join(data).encode()).decode()
            if kind in ("image/svg+xml", "image/png"):
                return f"data:{kind};base64,{''.join(''.join(data).split())}"
    return None


@functools.cache
def read_book(folder: Path = BOOK) -> Book:
    """All that slides may show of the notebooks in a folder."""
    book = Book()
    for path in sorted(folder.glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        text = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
        found: dict[tuple[str, str], str] = {}
        title = re.match(r"# ([^\n]+)\n\n\*(.+?)\*\n", text, re.DOTALL)
        if title:
            book.titles[path.stem] = title[1]
            heading = f"<h2>{escape(title[1])}</h2>"
            found["claim", path.stem] = f'{heading}<p class="claim">{inline(title[2])}</p>'
            ends = text.partition("\n## Take away\n")[2].partition("\n\n**")[0]
            heading = f"<h2>Take away: {escape(title[1])}</h2>"
            found["take-away", path.stem] = heading + markdown(ends.strip())
        if asked := re.search(r"^## Drag it\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE):
            found["predict", path.stem] = markdown(asked[1].strip())
        if table := re.search(r"^\|.+\|$\n(^\|.+\|$\n?)+", text, re.MULTILINE):
            found["table", path.stem] = markdown(table[0])  # the first of the page
        found |= _quizzes(text)
        for label, tex in re.findall(r"```\{math\}\n:label: (\S+)\n(.*?)\n```", text, re.DOTALL):
            found["equation", label] = f'<div class="equation">{formula(tex, block=True)}</div>'
        for cell in cells:
            shown = cell["metadata"].get("mystnb", {})
            image = picture(cell)
            if image and "figure" in shown:
                alt = escape(shown["image"]["alt"])
                img = f'<img src="{image}" alt="{alt}">'
                found["figure", shown["figure"]["name"]] = _figure(img, shown)
            elif "figure" in shown and (drag := DRAG.search(_html(cell))):
                found["drag", shown["figure"]["name"]] = _figure(drag[2], shown)
                book.live[shown["figure"]["name"]] = drag[1]
        book.parts |= found
        book.pages |= dict.fromkeys(found, path.stem)
    return book


def _html(cell: dict) -> str:
    outputs = [output.get("data", {}) for output in cell.get("outputs", ())]
    return "".join(line for data in outputs for line in data.get("text/html", ()))


def _figure(img: str, shown: dict) -> str:
    caption = inline(shown["figure"]["caption"])
    return f"<figure>{img}<figcaption>{caption}</figcaption></figure>"


def _quizzes(text: str) -> dict[tuple[str, str], str]:
    """The question of each quiz with its choices, and its answer."""
    found: dict[tuple[str, str], str] = {}
    for name in dict.fromkeys(match["name"] for match in CHOICE.finditer(text)):
        choices = [match for match in CHOICE.finditer(text) if match["name"] == name]
        asked = re.findall(r"\*\*(.+?)\*\*", text[: choices[0].start()], re.DOTALL)[-1]
        right = next(match for match in choices if match["right"])
        items = "".join(f"<li>{match['text']}</li>" for match in choices)
        question = f'<p class="question">{inline(asked)}</p>'
        found["question", name] = f"{question}<ol class='choices'>{items}</ol>"
        found["answer", name] = (
            f'{question}<p class="right">{right["text"]}</p>{markdown(right["why"].strip())}'
        )
    return found


def slides(text: str, book: Book, site: str | None = None) -> list[str]:
    """The content of each slide of a deck; `site` is where the built pages of the book are."""
    made = []
    for source in re.split(r"^---$", text, flags=re.MULTILINE):
        kinds = {part[1] for part in PART.finditer(source)}
        before, *pieces = PART.split(source)  # text, then kind, name, state, text again and again
        html = markdown(before)
        pages = []
        named = (pieces[n::4] for n in range(4))
        for kind, name, state, rest in zip(*named, strict=True):
            if (kind, name) not in book.parts:
                raise KeyError(f"the book has no {kind} {name}")
            page = book.pages[kind, name]
            html += book.parts[kind, name]
            if kind == "drag" and site is not None:
                live = f"{site}/{page}.html#{book.live[name]}?{escape(state or '')}"
                html += f'<p class="live"><a href="{live}">Drag it on its page</a></p>'
            html += markdown(rest)
            pages.append(book.titles.get(page, ""))
        style = "drag" if "drag" in kinds else "figure" if "figure" in kinds else "plain"
        made.append(f'<div class="content {style}">{html}</div>' + _foot(pages))
    return made


def _foot(pages: list[str]) -> str:
    named = ", ".join(dict.fromkeys(page for page in pages if page))
    licence = "Distilling BERT · CC BY 4.0 · NUMBER"
    return f"<footer><span>{escape(named)}</span><span>{licence}</span></footer>"


def font_faces(fonts: str | None) -> str:
    """The style of the book's fonts, from an address or, with None, from inside the deck."""
    rules = []
    for name, (style, weight) in FACES.items():
        file = f"source-sans-3-latin-{name}.woff2"
        address = f"{fonts}/{file}"
        if fonts is None:
            packed = base64.b64encode((FONTS / file).read_bytes()).decode()
            address = f"data:font/woff2;base64,{packed}"
        rules.append(
            f'@font-face {{ font-family: "Source Sans 3"; font-style: {style}; '
            f'font-weight: {weight}; src: url("{address}") format("woff2"); }}'
        )
    return "\n".join(rules)


def deck(
    path: Path, fonts: str | None = None, site: str | None = None, book: Book | None = None
) -> str:
    """A deck as one HTML file.

    Args:
        path: what stands on its slides.
        fonts: the address of the book's fonts as seen from it; None puts them inside.
        site: the address of the book's pages, for links to figures to drag; None makes none.
        book: the parts of the pages; None reads them.
    """
    text = path.read_text(encoding="utf-8")
    title = re.match(r"\s*# (.+)", text)
    made = slides(text, book or read_book(), site)
    sections = "\n".join(
        f'<section id="slide-{n}" aria-label="Slide {n} of {len(made)}">'
        f"{html.replace('NUMBER', f'{n} / {len(made)}')}</section>"
        for n, html in enumerate(made, 1)
    )
    parts = {
        "TITLE": escape(title[1]) if title else path.stem,
        "STYLE": font_faces(fonts) + (HERE / "slides.css").read_text(encoding="utf-8"),
        "SLIDES": sections,
        "SCRIPT": jsmin((HERE / "slides.js").read_text(encoding="utf-8")),
    }
    page = (HERE / "slides.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], page)


def write_decks(folder: Path, fonts: str | None, site: str) -> list[Path]:
    """Write each deck into a folder, as `slides_week_1.html` and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for source in sorted(DECKS.glob("*.md")):
        written.append(folder / f"slides_{source.stem}.html")
        written[-1].write_text(deck(source, fonts, site), encoding="utf-8")
    return written


def finish(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        write_decks(Path(app.outdir, "book", "teachers"), SITE_FONTS, "..")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    # Decks to be handed on lead to the published pages; else to those built beside them.
    published = publish.site_address(launch.origin(BOOK.parent))
    pages = f"{published}book" if published else "../html/book"
    for path in write_decks(Path(sys.argv[1]), None, pages):
        print(path)
