"""One Playwright for each file of tests, and a browser with the machine's own fonts."""

from pathlib import Path

import pytest
from browser import Browser, find_chromium
from figures_harness import figure, pages, windows  # noqa: F401
from playwright.sync_api import sync_playwright
from sphinx.application import Sphinx


@pytest.fixture(scope="module")
def playwright():
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def small_book(tmp_path_factory):
    """`small_book({file: content})` builds a book of these files, and returns its folder."""

    def build(files: dict[str, str]) -> Path:
        source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
        for name, text in files.items():
            (source / name).write_text(text, encoding="utf-8")
        doctrees = built / "doctrees"
        app = Sphinx(source, source, built, doctrees, "html", status=None, warning=None)
        app.build()
        assert app.statuscode == 0
        return built

    return build


@pytest.fixture(scope="module")
def browser(playwright):
    with Browser(playwright, find_chromium()) as browser:
        yield browser
