"""Definitions of the glossary beside their links: a small book, built with the extension and the
book's own style, in headless Chromium.
"""

from pathlib import Path

import pytest
from browser import NARROW, WIDE, Window, missing_browser

from distil_lib.common.paths import PROJECT

MISSING = missing_browser()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
CONFIG = f"""
import sys
sys.path.insert(0, {str(PROJECT / "book" / "_ext")!r})
extensions = ["myst_parser", "sphinx-mathjax-offline", "glossary_hover", "offline"]
myst_enable_extensions = ["dollarmath"]
html_theme = "sphinx_book_theme"
html_static_path = [{str(PROJECT / "book" / "_static")!r}]
html_css_files = ["custom.css"]
html_context = {{"default_mode": "auto"}}
"""
GLOSSARY = """# Glossary

```{glossary}
soft target
  The *whole* [distribution](index.md) $t$ of the `teacher`.

  Page: [](index.md)

student
  Learns from a {term}`soft target`.
```
"""
PAGE = """# A page

A sentence of some words, and then as the last of its words, near the edge, {term}`soft target`.

- An item with *a {term}`student`*.

```{toctree}
glossary
```
"""
SOFT_TARGET, STUDENT = "The whole distribution t of the teacher.", "Learns from a soft target."


@pytest.fixture(scope="module")
def site(small_book) -> Path:
    return small_book({"conf.py": CONFIG, "index.md": PAGE, "glossary.md": GLOSSARY})


def definition(window: Window, term: str):
    """The link of a term, and its definition."""
    both = window.page.locator(".term").filter(has=window.page.get_by_text(term, exact=True))
    return both.first.locator("a"), both.first.get_by_role("tooltip", include_hidden=True)


def text_of(tooltip) -> str:
    """What it says; a formula as it is written, for it is typeset in glyphs without text."""
    return tooltip.evaluate("""(e) => {
        const copy = e.cloneNode(true);
        for (const math of copy.querySelectorAll(".math"))
          math.textContent = math.querySelector("mjx-assistive-mml, math")?.textContent
            ?? math.textContent.replace(/[\\\\()]/g, "");
        return copy.textContent.replace(/\\s+/g, " ").trim(); }""")


@pytest.mark.parametrize(
    ("width", "dark"), [(WIDE, False), (NARROW, True)], ids=["wide and light", "narrow and dark"]
)
def test_a_definition_appears_and_goes(browser, site, width, dark):
    window = browser.window(width=width, dark=dark)
    visit = window.open((site / "index.html").as_uri())
    assert visit.problems == [] and visit.overflow == 0 and visit.dark == dark
    for term, said in (("soft target", SOFT_TARGET), ("student", STUDENT)):
        link, tooltip = definition(window, term)
        assert text_of(tooltip) == said  # the first paragraph, and no more
        assert tooltip.locator("a").count() == 0 and not tooltip.is_visible()
        assert link.get_attribute("aria-describedby") == tooltip.get_attribute("id")
        assert link.get_attribute("href").startswith("glossary.html#term-")

        link.hover()
        assert tooltip.is_visible()
        box, place = tooltip.bounding_box(), link.bounding_box()
        text = link.evaluate("e => e.closest('p, li').getBoundingClientRect().left")
        assert box["x"] >= text >= 0 and box["x"] + box["width"] <= width, "within its text"
        assert 0 <= box["y"] - place["y"] - place["height"] / 2 < 30, "below its link, and near"
        window.page.mouse.move(0, 0)
        assert not tooltip.is_visible()

        link.focus()
        assert tooltip.is_visible()
        window.page.keyboard.press("Escape")
        assert not tooltip.is_visible()
        window.page.keyboard.press("Tab")
        window.page.keyboard.press("Shift+Tab")
        assert tooltip.is_visible(), "Escape puts it away once, not for good"
        window.page.keyboard.press("Tab")
        assert not tooltip.is_visible()
        window.page.evaluate("document.activeElement.blur()")
    assert window.measure().overflow == 0


def test_it_appears_without_scripts_and_leads_to_the_glossary(browser, site):
    window = browser.window(scripts=False)
    window.page.goto((site / "index.html").as_uri())
    link, tooltip = definition(window, "soft target")
    link.focus()
    assert tooltip.is_visible()
    link.click()
    assert window.page.url.endswith("glossary.html#term-soft-target")


def test_links_within_the_glossary_have_it_too(browser, site):
    window = browser.window()
    assert window.open((site / "glossary.html").as_uri()).problems == []
    link, tooltip = definition(window, "soft target")
    assert link.get_attribute("href") == "#term-soft-target"
    link.hover()
    assert tooltip.is_visible() and text_of(tooltip) == SOFT_TARGET
