"""Figures to drag, each alone in headless Chromium: driven as a hand would, compared with Python.

live = figure("amdahl")            # open, alive; live.state, live.status, live.evaluate(...)
live.slide("layers", "End")        # keys on a control, as its reader would press them
"""

import pytest
from browser import WIDE, Browser, missing_browser
from playwright.sync_api import sync_playwright

from distil_lib.errors import UserError
from distil_lib.pages import figures
from distil_lib.pages.figures import amdahl

MISSING = missing_browser()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))


class Live:
    """An opened figure."""

    def __init__(self, window, name: str, address: str):
        self.window, self.page, self.name = window, window.page, name
        window.open(address)
        self.page.wait_for_selector(".drag-live .drag-status", state="attached")
        self.page.wait_for_function(f"Figures.live.{name} && !Figures.live.{name}.pending")

    def evaluate(self, expression: str):
        """The value of an expression, in which `figure` is the figure."""
        return self.page.evaluate(f"(async (figure) => {expression})(Figures.live.{self.name})")

    @property
    def state(self) -> dict:
        return self.evaluate("figure.state")

    @property
    def status(self) -> str:
        self.settle()
        return self.page.inner_text(".drag-status")

    def settle(self) -> None:
        """Wait for the next frame."""
        self.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")

    def slide(self, key: str, *keys: str) -> None:
        for each in keys:
            self.page.press(f'[data-key="{key}"]', each)
        self.settle()


@pytest.fixture(scope="module")
def browser():
    from browser import find_chromium

    with sync_playwright() as playwright, Browser(playwright, find_chromium()) as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The file of each figure alone, made when it is asked for."""
    folder, made = tmp_path_factory.mktemp("figures"), {}

    def page(name: str):
        if name not in made:
            made[name] = folder / f"{name}.html"
            made[name].write_text(figures.standalone(name), encoding="utf-8")
        return made[name]

    return page


@pytest.fixture
def figure(browser, pages):
    opened = []

    def live(name: str, state: str = "", width: int = WIDE, dark: bool = False) -> Live:
        window = browser.window(width=width, dark=dark)
        opened.append(window)
        return Live(window, name, pages(name).as_uri() + (state and f"#drag-{name}?{state}"))

    yield live
    for window in opened:
        assert not window.problems  # no error, no other host
        window.page.context.close()


@pytest.mark.parametrize("width", [360, 1600])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", figures.names())
def test_a_figure_fits_and_each_control_has_a_name(name, width, dark, figure):
    live = figure(name, width=width, dark=dark)
    visit = live.window.measure()
    assert visit.overflow <= 0 and not visit.cut
    unnamed = live.evaluate(
        """[...document.querySelectorAll(".drag :is(input, select, button, [role=slider])")]
        .filter((e) => !(e.ariaLabel || e.textContent || e.labels?.[0]?.textContent || e.alt))
        .length"""
    )
    assert unnamed == 0
    assert live.page.is_hidden(".drag-static") and live.page.is_visible(".drag-live")


@pytest.mark.parametrize("name", figures.names())
def test_the_picture_stays_where_scripts_are_off(name, browser, pages):
    window = browser.window(scripts=False)
    window.page.goto(pages(name).as_uri())
    assert window.page.is_visible(".drag-static img")
    assert len(window.page.get_attribute(".drag-static img", "alt")) > 20
    window.page.context.close()


def test_a_state_is_written_into_the_address_and_read_from_it(figure):
    live = figure("amdahl", "layers=3&outside=abc")
    assert live.state == {"outside": 0.2, "layers": 3}  # what cannot be read is as in the beginning
    live.slide("layers", "ArrowRight")
    assert live.page.url.endswith("#drag-amdahl?outside=0.2&layers=4")


def test_an_unknown_figure_is_refused():
    with pytest.raises(UserError, match="no figure 'nothing'"):
        figures.find("nothing")


@pytest.mark.parametrize("outside, layers", [(0.0, 6), (0.2, 6), (0.6, 1), (0.3, 12)])
def test_amdahl(outside, layers, figure):
    live = figure("amdahl", f"outside={outside}&layers={layers}")
    assert live.status.startswith(f"{amdahl.speedup(outside, layers):.3g} times")
