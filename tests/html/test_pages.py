"""The built book, and proof that its checks see what they are meant to see.

`make html` builds the pages first. Each check is given a page with one fault, and a page without,
before it judges the book.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from browser import (
    FONTS,
    NARROW,
    WIDE,
    Browser,
    Visit,
    find_chromium,
    is_installed,
    missing_browser,
)
from bs4 import BeautifulSoup
from pages import check_site, page_files

from distil_lib import __version__

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
import launch  # noqa: E402

SITE = ROOT / "_build" / "html"
# Where the repository lives; "" where that is not known.
CONFIGURED = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]
ADDRESS = CONFIGURED or launch.origin(ROOT)
MISSING = missing_browser()
needs_chromium = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
# The longest line of code that a wide window must show whole. Longer ones scroll.
CODE_COLUMNS = 100
PARTS = 3  # in which all pages are visited, so that two workers can share them
OWN_FONTS = {"Source Sans 3", "Source Code Pro"}
SOUND = """<!doctype html><html><head><link rel="stylesheet" href="style.css">
<meta name="viewport" content="width=device-width">
</head><body><article class="bd-article"><h1 id="top">Title</h1>
<a href="#top">up</a> <a href="other.html#there">on</a>
<a href="https://example.org/paper">a paper</a>
<figure><img src="dot.svg" alt="A black dot"></figure>
<script>const ns = "http://www.w3.org/2000/svg";</script>%s</article></body></html>"""
DOT = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9">'
    '<circle cx="4" cy="4" r="3"/></svg>'
)


def make_site(folder: Path, fault: str = "", css: str = "body { color: black; }") -> Path:
    (folder / "page.html").write_text(SOUND % fault)
    (folder / "other.html").write_text('<html><body><p id="there">x</p></body></html>')
    (folder / "style.css").write_text(css)
    (folder / "dot.svg").write_text(DOT)
    return folder


# ---------------------------------------------------------------------------- the checks see faults
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
        (
            '<link rel="preload" as="font" href="https://fonts.example.org/f.woff2">',
            "fonts.example.org",
        ),
        ('<iframe src="https://video.example.org/1"></iframe>', "video.example.org"),
        (
            '<img srcset="https://img.example.org/1.png 2x" src="dot.svg" alt="some words">',
            "img.example.org",
        ),
        ("<script>import('https://esm.example.org/x.js')</script>", "esm.example.org"),
        ("<script>require.config({paths: {d3: '//d3.example.org/d3'}})</script>", "d3.example.org"),
        ("<style>@import 'https://css.example.org/a.css';</style>", "css.example.org"),
        ("<style>b { background: url(https://css.example.org/a.png) }</style>", "css.example.org"),
        ("<p style=\"background: url('//css.example.org/a.png')\">x</p>", "css.example.org"),
        ("<span style=\"background: url('//css.example.org/b.png')\">x</span>", "b.png"),
        ('<span class="k"><a href="gone.html">x</a></span>', "gone.html"),
        (
            '<meta http-equiv="refresh" content="0; url=https://away.example.org">',
            "away.example.org",
        ),
        ('<figure><img src="dot.svg"></figure>', "alt text"),
        ('<figure><img src="dot.svg" alt="../_images/0f3a.png"></figure>', "alt text"),
    ],
)
def test_a_fault_in_a_page_is_named(tmp_path, fault, named):
    problems = check_site(make_site(tmp_path, fault))
    assert len(problems) == 1 and problems[0].startswith("page.html: ") and named in problems[0]


@pytest.mark.parametrize(
    "css", ["@import url('https://css.example.org/a.css');", "b { src: url(gone.woff2); }"]
)
def test_a_fault_in_a_style_sheet_is_named(tmp_path, css):
    assert len(check_site(make_site(tmp_path, css=css))) == 1


@needs_chromium
def test_the_browser_sees_faults(tmp_path, browser):
    """What no reading of the files can show: requests of scripts, failing scripts, wide pages, cut
    text.
    """

    window = browser.window(NARROW)

    def visit(fault: str) -> Visit:
        make_site(tmp_path, fault)
        return window.open((tmp_path / "page.html").as_uri())

    sound = visit("")
    assert sound.problems == [] and sound.overflow == 0 and sound.characters > 10
    hidden = (
        "<script>const i = new Image(); i.src = 'https:' + '//cdn.' + 'example.org/i.png';"
        "document.body.append(i)</script>"
    )
    assert any("asks another host: https://cdn.example.org" in p for p in visit(hidden).problems)
    assert any("no_such_name" in p for p in visit("<script>no_such_name()</script>").problems)
    assert any("gone.js" in p for p in visit('<script src="gone.js"></script>').problems)
    assert any("oh no" in p for p in visit("<script>console.error('oh no')</script>").problems)
    wide = '<div style="width: 900px">wide</div>'
    assert visit(wide).overflow > 400
    boxed = visit(f'<div style="overflow-x: auto">{wide}</div>')
    assert boxed.overflow == 0 and boxed.cut == [] and len(boxed.silent) == 1
    folded = f'<details><div style="overflow: hidden">{wide}</div></details>'
    assert len(visit(folded).cut) == 1 and len(sound.cut) == 0
    code = visit(f"<pre style='overflow: auto'>short\n{'x' * 90}</pre><pre>short</pre>").code
    assert [c["columns"] for c in code] == [90, 5]
    assert code[0]["missing"] > 100 and code[1]["missing"] == 0


@needs_chromium
def test_the_browser_sees_formulas_that_fail(tmp_path, browser):
    window = browser.window()

    def visit(formula: str) -> Visit:
        script = (SITE / "_static/mathjax/tex-chtml.js").as_uri()
        span = rf'<span class="math notranslate">\({formula}\)</span>'
        page = make_site(tmp_path, f'{span}<script defer src="{script}"></script>')
        return window.open((page / "page.html").as_uri())

    sound = visit(r"\frac{1}{2}")
    assert (sound.formulas, sound.typeset, sound.errors) == (1, 1, 0)
    assert visit(r"\left(1").errors == visit(r"\nosuchcommand").errors == 1


@pytest.fixture(scope="module", params=FONTS)
def limited(request, playwright):
    """(name, browser): a browser that finds one family of installed fonts only."""
    if not is_installed(request.param):
        pytest.skip(f"the {request.param} fonts are not installed")
    with Browser(playwright, find_chromium(), fonts=request.param) as browser:
        yield request.param, browser


@needs_chromium
def test_a_limited_browser_draws_with_these_fonts_only(tmp_path, limited):
    """Chromium's own word on what it has drawn with, whatever the page asks for."""
    name, browser = limited
    faces = ("sans-serif", "monospace", "Arial", "Menlo", "DejaVu Sans", "Liberation Sans")
    (tmp_path / "page.html").write_text(
        "".join(f"<p style='font-family: {face}'>text</p>" for face in faces)
    )
    page = browser.window().page
    page.goto((tmp_path / "page.html").as_uri())
    devtools = page.context.new_cdp_session(page)
    for domain in ("DOM", "CSS"):
        devtools.send(f"{domain}.enable")
    root = devtools.send("DOM.getDocument")["root"]["nodeId"]
    body = devtools.send("DOM.querySelector", {"nodeId": root, "selector": "body"})
    used = devtools.send("CSS.getPlatformFontsForNode", body)["fonts"]
    assert used and all(font["familyName"].startswith(name) for font in used), used


# -------------------------------------------------------------------------------- the book is sound
def test_links_hosts_and_alternative_texts():
    assert len(page_files(SITE)) >= 10, "run `make book` first"
    assert check_site(SITE) == []


def test_buttons_stand_where_there_is_an_address():
    """Without one, a button could lead only to somebody else's page."""
    for page in sorted((SITE / "book").glob("0*.html")):
        text = page.read_text(encoding="utf-8")
        assert ("colab.research" in text) == ADDRESS.startswith("https://github.com/"), page.name
        for name in ("mybinder.org", "/issues/new?", "source-edit-button"):
            assert (name in text) == bool(ADDRESS), (page.name, name)
        if ADDRESS:
            assert f"{ADDRESS}/edit/main/book/{page.stem}.ipynb" in text


def test_what_pages_serves():
    """Oracle for the sitemap and the page for wrong addresses: the files that are there.

    Both speak of the site's address, so they are made only where it is known.
    """
    assert "http-equiv" not in (SITE / "index.html").read_text(encoding="utf-8").lower()
    pages = {page.relative_to(SITE).as_posix() for page in page_files(SITE)}
    assert (SITE / "404.html").exists() == (SITE / "sitemap.xml").exists() == bool(ADDRESS)
    if not ADDRESS:
        return
    listed = re.findall("<loc>(.*?)</loc>", (SITE / "sitemap.xml").read_text(encoding="utf-8"))
    index = BeautifulSoup((SITE / "index.html").read_text(encoding="utf-8"), "html.parser")
    start = index.find("link", rel="canonical")["href"].removesuffix("index.html")
    made = {"genindex.html", "py-modindex.html", "search.html"}
    made |= {page for page in pages if page.startswith("_modules/")}
    assert {url.removeprefix(start) for url in listed} == pages - made
    prefix = urlsplit(start).path
    lost = BeautifulSoup((SITE / "404.html").read_text(encoding="utf-8"), "html.parser")
    for tag in lost.find_all(["a", "link", "script", "img"]):
        reference = urlsplit(tag.get("href") or tag.get("src") or "#")
        if not reference.scheme and reference.path:
            path = reference.path.removeprefix(prefix) or "index.html"
            assert reference.path.startswith(prefix) and (SITE / path).is_file(), reference
    picture = index.find("meta", property="og:image")["content"].removeprefix(start)
    assert (SITE / picture).is_file()


def test_a_page_says_its_version_and_no_path_of_this_machine():
    for page in page_files(SITE):
        text = page.read_text(encoding="utf-8")
        deck = page.name.startswith("slides_")  # a document of its own, to be handed on
        assert deck or f"Version {__version__}." in text, page.name
        assert str(ROOT) not in text, page.name


@pytest.fixture(scope="module")
def listings(tmp_path_factory) -> Path:
    """One page with the articles of all listings of modules: they share everything else."""
    pages = [page for page in page_files(SITE) if "_modules" in page.parts]
    article = re.compile("(<article[^>]*>)(.*?)(</article>)", re.DOTALL)
    texts = {page: page.read_text(encoding="utf-8") for page in pages}
    articles = [article.search(text)[2] for text in texts.values()]
    assert all(len(re.sub("<[^>]*>", "", each).strip()) > 100 for each in articles)
    longest = max(pages, key=lambda page: len(page.as_posix()))  # it has the longest title
    gathered = article.sub(lambda m: m[1] + "".join(articles) + m[3], texts[longest], count=1)
    base = f'<head><base href="{longest.as_uri()}">'
    page = tmp_path_factory.mktemp("listings") / "listings.html"
    page.write_text(gathered.replace("<head>", base, 1), encoding="utf-8")
    return page


@needs_chromium
@pytest.mark.parametrize("own_fonts", [True, False], ids=["own fonts, light", "without them, dark"])
@pytest.mark.parametrize("part", range(PARTS))
def test_pages_in_a_browser_without_a_network(limited, listings, own_fonts, part):
    """With any fonts, in any width, in either theme: nothing fails and nothing is out of sight."""
    fonts, browser = limited
    window = browser.window(dark=not own_fonts, own_fonts=own_fonts)
    faults = []
    formulas = 0
    pages = [*(page for page in page_files(SITE) if "_modules" not in page.parts), listings]
    both = all(map(is_installed, FONTS))
    for number, page in enumerate(pages[part::PARTS]):
        # With the book's own fonts the installed ones draw a sign here and there: each page is
        # seen with one family of them.
        if own_fonts and both and fonts != list(FONTS)[number // 2 % len(FONTS)]:
            continue
        # Every other page is opened narrow and widened, which is a width less to lay out.
        first, second = (WIDE, NARROW) if number % 2 == 0 else (NARROW, WIDE)
        opened = {first: window.open(page.as_uri(), first)}
        opened[second] = window.measure(second)
        wide, narrow = opened[WIDE], opened[NARROW]
        formulas += wide.formulas
        faults += [f"{page.name}, wide: {fault}" for fault in faults_of(wide, own_fonts)]
        faults += [f"{page.name}, wide: {fault}" for fault in missing_code(wide)]
        faults += [f"{page.name}, narrow: {fault}" for fault in faults_of(narrow, own_fonts)]
    assert faults == [], "\n".join(faults)
    assert formulas > 0, "no formula was found: has the class of Sphinx's formulas changed?"


def faults_of(visit: Visit, own_fonts: bool) -> Iterator[str]:
    yield from visit.problems
    if visit.formulas != visit.typeset or visit.errors:
        yield f"{visit.formulas} formulas, {visit.typeset} typeset, {visit.errors} in error"
    if visit.overflow > 0:
        yield f"{visit.overflow} pixels wider than its window"
    yield from (f"cut: {box}" for box in visit.cut)
    yield from (f"scrolls and does not show it: {box}" for box in visit.silent)
    if visit.characters < 100:
        yield "shows nothing"
    if visit.dark == own_fonts:
        yield f"is in the {'dark' if visit.dark else 'light'} theme"
    loaded = OWN_FONTS & set(visit.fonts)
    if loaded and not own_fonts:
        yield f"has loaded {loaded}, which were blocked"
    if visit.icons and "Font Awesome 6 Free" not in visit.fonts:
        yield "has not loaded its icons"
    if own_fonts and "Source Sans 3" not in loaded:
        yield "has not loaded the book's fonts"
    if own_fonts and visit.code and "Source Code Pro" not in loaded:
        yield "has not loaded the book's font for code"


def missing_code(visit: Visit) -> Iterator[str]:
    for box in visit.code:
        if box["columns"] <= CODE_COLUMNS and box["missing"] > 0:
            yield f"{box['missing']} pixels of code are out of sight: {box['text']}"
