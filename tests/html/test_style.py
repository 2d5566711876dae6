"""The book's style on a small page, in headless Chromium: captions and figures in both themes."""

from pathlib import Path

import pytest
from browser import missing_browser

from distil_lib.common.paths import PROJECT

MISSING = missing_browser()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
CONFIG = f"""
extensions = ["myst_parser"]
html_theme = "sphinx_book_theme"
html_static_path = [{str(PROJECT / "book" / "_static")!r}]
html_css_files = ["custom.css"]
html_context = {{"default_mode": "auto"}}
"""
PAGE = """# A page

A sentence.

```{figure} dot.svg
:alt: A black dot.

What the dot shows.
```
"""
DOT = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><circle r="9"/></svg>'


@pytest.fixture(scope="module")
def page(small_book) -> Path:
    return small_book({"conf.py": CONFIG, "index.md": PAGE, "dot.svg": DOT}) / "index.html"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_captions_are_as_strong_as_the_text_and_figures_suit_the_theme(browser, page, dark):
    """Oracle: the text beside it; an inverted white is black, so no white sheet stands there."""
    window = browser.window(dark=dark)
    window.page.goto(page.as_uri())

    def style(selector: str, name: str) -> str:
        found = window.page.locator(f"article {selector}").first
        return found.evaluate("(e, name) => getComputedStyle(e)[name]", name)

    assert style("figcaption p", "fontWeight") == style("section > p", "fontWeight") == "400"
    assert style("figcaption p", "color") == style("section > p", "color")
    assert ("invert(1)" in style("figure img", "filter")) == dark
