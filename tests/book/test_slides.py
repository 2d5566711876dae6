"""The slides of the course. Oracle: the stored pages that they are made of."""

import base64
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from test_setup_and_packaging import ROOT

sys.path.insert(0, str(ROOT / "book" / "_ext"))
import slides

SOURCES = sorted((ROOT / "book" / "teachers" / "slides").glob("*.md"))
NAMED = re.compile(r"^\{([^\s?]+) ([^\s?]+)(?:\?(\S+))?\}$", re.MULTILINE)
PICTURES = ("figure", "drag")


class Pictures(HTMLParser):
    """The images of a page, the addresses that it loads, and the number of its slides."""

    def __init__(self, page: str):
        super().__init__()
        self.images: list[tuple[str, str]] = []
        self.addresses: list[str] = []
        self.slides = 0
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.slides += tag == "section"
        if tag == "img":
            self.images.append((found["src"], found["alt"]))
        self.addresses += [found[name] for name in ("src", "href", "srcset") if name in found]


def stored_figures() -> dict[str, tuple[bytes, str]]:
    """{figure: the bytes of its picture, its alternative text}, read anew from the notebooks."""
    found = {}
    for path in (ROOT / "book").glob("*.ipynb"):
        for cell in json.loads(path.read_text("utf-8"))["cells"]:
            shown = cell["metadata"].get("mystnb", {})
            if "figure" in shown and cell.get("outputs"):
                data = {k: v for out in cell["outputs"] for k, v in out.get("data", {}).items()}
                svg, png = (data.get(f"image/{kind}") for kind in ("svg+xml", "png"))
                if svg or png:
                    picture = "".join(svg).encode() if svg else base64.b64decode("".join(png))
                    found[shown["figure"]["name"]] = (picture, shown["image"]["alt"])
                elif dragged := Pictures("".join(data.get("text/html", ""))).images:
                    source, alt = dragged[0]
                    picture = base64.b64decode(source.partition("base64,")[2])
                    found[shown["figure"]["name"]] = (picture, alt)
    return found


FIGURES = stored_figures()


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_deck_shows_the_figures_that_it_names_and_asks_no_host(source):
    text = source.read_text("utf-8")
    page = slides.deck(source)
    read = Pictures(page)
    assert read.slides == len(re.split(r"^---$", text, flags=re.MULTILINE)) >= 20
    named = [name for kind, name, _ in NAMED.findall(text) if kind in PICTURES]
    shown = [(base64.b64decode(src.partition("base64,")[2]), alt) for src, alt in read.images]
    assert shown == [FIGURES[name] for name in named] and len(named) >= 6
    assert all(len(alt.split()) >= 5 for _, alt in shown)
    assert "CC BY 4.0" in page
    # No role or part of the sources is left as it was written.
    words = re.sub(r"<(style|script)>.*?</\1>|<math.*?</math>", "", page, flags=re.DOTALL)
    assert "{" not in words and "](" not in words

    # Whatever a browser would load is inside.
    style = re.findall(r"url\(\s*[\"']?([^)\"']*)", page)
    assert all(address.startswith("data:") for address in [*read.addresses, *style])
    assert not re.search(r"https?:|[\"'(]//|@import", page)


def test_each_figure_of_the_main_path_is_on_a_slide():
    named = {name for path in SOURCES for _, name, _ in NAMED.findall(path.read_text("utf-8"))}
    missing = {name for name in FIGURES if re.match(r"fig-\d\d-", name)} - named
    assert not missing and "fig-06-replay" in FIGURES  # those to be dragged are among them


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_figure_to_drag_is_linked_on_its_page_in_its_state(source):
    """Oracle: the element on the stored page, and the controls that the figure's script makes."""
    text = source.read_text("utf-8")
    links = [link for link in Pictures(slides.deck(source, site="..")).addresses if "#" in link]
    states = [state for kind, _, state in NAMED.findall(text) if kind == "drag"]
    assert len(links) == len(states) >= 2
    for link, state in zip(links, states, strict=True):
        page, name, given = re.fullmatch(r"\.\./(\w+)\.html#drag-(\w+)\?(.*)", link).groups()
        assert given == state
        assert f'id=\\"drag-{name}\\"' in (ROOT / "book" / f"{page}.ipynb").read_text("utf-8")
        script = (ROOT / "book" / "_static" / f"figure_{name}.js").read_text("utf-8")
        for key in filter(None, (part.partition("=")[0] for part in state.split("&"))):
            assert re.search(rf'figure\.\w+\("{key}"', script), f"{name} has no control {key}"
    assert "drag-" not in "".join(Pictures(slides.deck(source)).addresses)  # no page is near it


def test_the_slides_own_words_hold_no_results():
    """Results come from the pages, with their part of it; a number in a deck would grow old."""
    for path in SOURCES:
        own = NAMED.sub("", path.read_text("utf-8")).replace("95% interval", "interval")
        assert not re.findall(r"\d[.,]\d|\d ?%", own), path.name


def test_a_slide_changes_with_its_page(tmp_path):
    page = json.loads((ROOT / "book" / "02_temperature.ipynb").read_text("utf-8"))
    first = page["cells"][0]
    old = "".join(first["source"])
    assert "76%" in old
    first["source"] = old.replace("76%", "77%")
    (tmp_path / "02_temperature.ipynb").write_text(json.dumps(page), encoding="utf-8")
    deck = tmp_path / "week.md"
    deck.write_text("# Heat\n\n---\n\n{claim 02_temperature}\n", encoding="utf-8")
    changed = slides.deck(deck, book=slides.read_book(tmp_path))
    assert "77%" in changed and "76%" not in changed
    deck.write_text("# Heat\n\n---\n\n{figure fig-02-gone}\n", encoding="utf-8")
    with pytest.raises(KeyError, match="the book has no figure fig-02-gone"):
        slides.deck(deck)


def test_questions_do_not_give_their_answer_away():
    book = slides.read_book()
    for kind, name in book.parts:
        if kind == "question":
            question, answer = book.parts[kind, name], book.parts["answer", name]
            assert (
                "Right:" not in question
                and "Wrong:" not in question
                and "right" not in (re.findall(r'class="(.*?)"', question))
            )
            assert question.count("<li>") >= 2 and "Right:" in answer
            right = re.search(r'<p class="right">(.*?)</p>', answer)[1]
            assert f"<li>{right}</li>" in question


@pytest.mark.parametrize(
    ("tex", "parts"),
    [
        (r"\tfrac14", ["<mfrac>", "<mn>1</mn>", "<mn>4</mn>"]),
        (r"\hat z_i", ["<msub><mover>", "<mi>i</mi>"]),
        (r"\bigl( x \bigr)", ["<mi>x</mi>"]),
        (r"a, \dots, b", ["…"]),
    ],
)
def test_formulas_that_docutils_does_not_know(tex, parts):
    mathml = slides.formula(tex)
    assert all(part in mathml for part in parts), mathml


def test_make_slides_writes_a_file_for_each_week(tmp_path):
    written = slides.write_decks(tmp_path / "new", None, "../html/book")
    assert [path.name for path in written] == [f"slides_week_{n}.html" for n in (1, 2, 3)]
    text = (ROOT / "Makefile").read_text("utf-8")
    assert "book/_ext/slides.py _build/slides" in text
    linked = (ROOT / "book" / "teachers" / "syllabus.md").read_text("utf-8")
    assert all(f'href="{path.name}"' in linked for path in written)
    among_pages = slides.deck(SOURCES[0], slides.SITE_FONTS, "..")
    assert f'url("{slides.SITE_FONTS}/source-sans-3-latin-400-normal.woff2")' in among_pages
    for font in re.findall(r"fonts/([\w-]+\.woff2)", among_pages):
        assert (slides.FONTS / font).is_file()
    assert isinstance(written[0], Path)
