"""One Playwright for each file of tests, and a browser with the machine's own fonts."""

import pytest
from browser import Browser, find_chromium
from figures_harness import figure, pages, windows  # noqa: F401
from playwright.sync_api import sync_playwright


@pytest.fixture(scope="module")
def playwright():
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def browser(playwright):
    with Browser(playwright, find_chromium()) as browser:
        yield browser
