"""The built book, and proof that its checks see what they are meant to see.

`make html` builds the pages first. Each check is given a page with one fault, and a page without, before it judges the book.
"""

import shutil
from pathlib import Path

import pytest
import yaml
from browser import Browser, find_chromium
from pages import check_site, page_files

SITE = Path(__file__).parents[2] / "_build" / "html"
CHROMIUM = find_chromium()
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
SOUND = """<!doctype html><html><head><link rel="stylesheet" href="style.css"><meta name="viewport" content="width=device-width">
</head><body><article class="bd-article"><h1 id="top">Title</h1><a href="#top">up</a> <a href="other.html#there">on</a>
<a href="https://example.org/paper">a paper</a> <figure><img src="dot.svg" alt="A black dot"></figure>
<script>const ns = "http://www.w3.org/2000/svg";</script>%s</article></body></html>"""
DOT = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><circle cx="4" cy="4" r="3"/></svg>'


def make_site(folder: Path, fault: str = "", css: str = "body { color: black; }") -> Path:
    (folder / "page.html").write_text(SOUND % fault)
    (folder / "other.html").write_text('<html><body><p id="there">x</p></body></html>')
    (folder / "style.css").write_text(css)
    (folder / "dot.svg").write_text(DOT)
    return folder


# ------------------------------------------------------------------------------------------------- the checks see faults
def test_a_sound_site_has_no_problems(tmp_path):
    assert check_site(make_site(tmp_path)) == []


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        ('<a href="gone.html">x</a>', "gone.html"),
        ('<a href="#nowhere">x</a>', "#nowhere"),
        ('<a href="other.html#nowhere">x</a>', "other.html#nowhere"),
        ('<img src="gone.png" alt="some words">', "gone.png"),
        ('<meta http-equiv="Refresh" content="0; url=gone.html">', "gone.html"),
        ('<script src="https://cdn.example.org/a.js"></script>', "cdn.example.org"),
        ('<script src="//cdn.example.org/a.js"></script>', "cdn.example.org"),
        ('<link rel="stylesheet" href="https://fonts.example.org/css">', "fonts.example.org"),
        ('<link rel="preload" as="font" href="https://fonts.example.org/f.woff2">', "fonts.example.org"),
        ('<iframe src="https://video.example.org/1"></iframe>', "video.example.org"),
        ('<img srcset="https://img.example.org/1.png 2x" src="dot.svg" alt="some words">', "img.example.org"),
        ("<script>import('https://esm.example.org/x.js')</script>", "esm.example.org"),
        ("<script>require.config({paths: {d3: '//d3.example.org/d3'}})</script>", "d3.example.org"),
        ("<style>@import 'https://css.example.org/a.css';</style>", "css.example.org"),
        ("<style>b { background: url(https://css.example.org/a.png) }</style>", "css.example.org"),
        ('<p style="background: url(\'//css.example.org/a.png\')">x</p>', "css.example.org"),
        ('<meta http-equiv="refresh" content="0; url=https://away.example.org">', "away.example.org"),
        ('<figure><img src="dot.svg"></figure>', "alt text"),
        ('<figure><img src="dot.svg" alt="../_images/0f3a.png"></figure>', "alt text"),
    ],
)
def test_a_fault_in_a_page_is_named(tmp_path, fault, named):
    problems = check_site(make_site(tmp_path, fault))
    assert len(problems) == 1 and problems[0].startswith("page.html: ") and named in problems[0]


@pytest.mark.parametrize("css", ["@import url('https://css.example.org/a.css');", "b { src: url(gone.woff2); }"])
def test_a_fault_in_a_style_sheet_is_named(tmp_path, css):
    assert len(check_site(make_site(tmp_path, css=css))) == 1


@pytest.fixture(scope="module")
def browser():
    with Browser(CHROMIUM) as browser:
        yield browser


@needs_chromium
def test_the_browser_sees_faults(tmp_path, browser):
    """What no reading of the files can show: requests that a script makes, scripts that fail, a page wider than its window."""

    def visit(fault: str):
        make_site(tmp_path, fault)
        return browser.visit((tmp_path / "page.html").as_uri(), width=375)

    sound = visit("")
    assert sound.problems == [] and sound.overflow == 0 and sound.characters > 10
    hidden = "<script>const i = new Image(); i.src = 'https:' + '//cdn.' + 'example.org/i.png'; document.body.append(i)</script>"
    assert any("asks another host: https://cdn.example.org" in p for p in visit(hidden).problems)
    assert any("no_such_name" in p for p in visit("<script>no_such_name()</script>").problems)
    assert any("gone.js" in p for p in visit('<script src="gone.js"></script>').problems)
    assert any("oh no" in p for p in visit("<script>console.error('oh no')</script>").problems)
    assert visit('<div style="width: 900px">wide</div>').overflow > 400


@needs_chromium
def test_the_browser_sees_formulas_that_fail(tmp_path, browser):
    def visit(formula: str):
        script = (SITE / "_static/mathjax/tex-chtml.js").as_uri()
        page = make_site(tmp_path, rf'<span class="math notranslate">\({formula}\)</span><script defer src="{script}"></script>')
        return browser.visit((page / "page.html").as_uri())

    sound = visit(r"\frac{1}{2}")
    assert (sound.formulas, sound.typeset, sound.errors) == (1, 1, 0)
    assert visit(r"\left(1").errors == visit(r"\nosuchcommand").errors == 1


# ------------------------------------------------------------------------------------------------------ the book is sound
def book_pages() -> list[Path]:
    """What a reader opens. The front address only sends her on to the first chapter."""
    return [page for page in page_files(SITE) if page.name != "index.html"]


def test_links_hosts_and_alternative_texts():
    assert len(book_pages()) >= 10, "run `make book` first"
    assert check_site(SITE) == []


def test_launch_buttons_need_an_address():
    """While `repository.url` of `_config.yml` is empty, a button could lead only to somebody else's page."""
    url = yaml.safe_load((SITE.parents[1] / "_config.yml").read_text())["repository"]["url"]
    for page in sorted((SITE / "book").glob("0*.html")):
        text = page.read_text(encoding="utf-8")
        assert ("launch-buttons" in text) == ("colab.research" in text) == url.startswith("https://github.com/"), page.name


@needs_chromium
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (375, True)], ids=["wide and light", "narrow and dark"])
def test_pages_in_a_browser_without_a_network(browser, width, dark):
    faults = []
    formulas = 0
    for page in book_pages():
        visit = browser.visit(page.as_uri(), width=width, dark=dark)
        name = page.relative_to(SITE)
        formulas += visit.formulas
        faults += [f"{name}: {problem}" for problem in visit.problems]
        if visit.formulas != visit.typeset or visit.errors:
            faults.append(f"{name}: {visit.formulas} formulas, {visit.typeset} typeset, {visit.errors} in error")
        if visit.overflow > 0:
            faults.append(f"{name}: {visit.overflow} pixels wider than a window of {width}")
        if visit.characters < 100:
            faults.append(f"{name}: shows nothing")
        if visit.dark != dark:
            faults.append(f"{name}: is not in the {'dark' if dark else 'light'} theme")
    assert faults == []
    assert formulas > 0, "no formula was found: has the class of Sphinx's formulas changed?"


def test_address_of_the_front_page(tmp_path):
    """The redirect of the front page is a link like any other, and is checked."""
    assert 'url=book/00_start_here.html"' in (SITE / "index.html").read_text(encoding="utf-8")
    shutil.copy(SITE / "index.html", tmp_path)
    assert len(check_site(tmp_path)) == 1  # alone, it leads nowhere
