"""What drives a figure to drag in a test: the figure alone in headless Chromium.

live = figure("amdahl")            # open, alive; live.state, live.status, live.evaluate(...)
live.slide("layers", "End")        # keys on a control, as its reader would press them
figure("cut", models=True)         # with the models' weights, for sentences of one's own

`conftest.py` makes the fixtures known to every test of this folder. All figures of a file open one
after the other in the same window: they are ready sooner than in windows of their own.
"""

import pytest
from browser import WIDE, missing_browser

from distil_lib.pages import figures

MISSING = missing_browser()
needs_browser = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))


class Live:
    """An opened figure."""

    def __init__(self, window, name: str, address: str):
        self.window, self.page, self.name = window, window.page, name
        self.page.goto("about:blank")  # with another state alone, the page would stay as it is
        self.page.goto(address)
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

    def bars(self) -> list[float]:
        """How long each bar of the figure's tables is, as a share of its track."""
        return self.evaluate(
            """[...figure.body.querySelectorAll(".drag-track i")].map(
            (bar) => bar.offsetParent && parseFloat(bar.style.width) / 100)"""
        )

    def slide(self, key: str, *keys: str) -> None:
        for each in keys:
            self.page.press(f'[data-key="{key}"]', each)
        self.settle()

    def type(self, key: str, text: str) -> None:
        """Write into a line of text and press Enter; returns when the models have answered."""
        self.page.fill(f'[data-key="{key}"]', text)
        self.page.press(f'[data-key="{key}"]', "Enter")
        self.settle()
        self.page.wait_for_function(f"!/^Loading/.test(Figures.live.{self.name}.note)")
        self.settle()

    def drag(
        self, element, x: float | None = None, y: float | None = None, by: float | None = None
    ) -> None:
        """Press the mouse on an element, move it to a place of the window, and let go.

        `by`: so many pixels to the right instead.
        """
        element.scroll_into_view_if_needed()
        box = element.bounding_box()
        middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        if x is None:
            x = middle[0] + (by or 0)
        self.page.mouse.move(*middle)
        self.page.mouse.down()
        self.page.mouse.move(x, middle[1] if y is None else y, steps=4)
        self.page.mouse.up()
        self.settle()

    def drag_slider(self, key: str, share: float) -> None:
        """Drag a control to a share of its way."""
        control = self.page.locator(f'[data-key="{key}"]')
        control.scroll_into_view_if_needed()
        box = control.bounding_box()
        self.drag(control, box["x"] + share * box["width"])


def number(text: str) -> float:
    """What a figure shows: "−1.2e−4", "+3", "12%", "< 0.1%" (which is taken as half of it)."""
    if text.startswith("< "):
        return number(text[2:]) / 2
    plain = text.replace("−", "-").replace(",", "")
    return float(plain.rstrip("%")) / (100 if plain.endswith("%") else 1)


@pytest.fixture(scope="session")
def pages(tmp_path_factory):
    """The file of each figure alone, made when it is asked for."""
    folder, made = tmp_path_factory.mktemp("figures"), {}

    def page(name: str, models: bool = False):
        if (name, models) not in made:
            made[name, models] = folder / f"{name}{'-models' * models}.html"
            source = figures.standalone(name, models)
            made[name, models].write_text(source, encoding="utf-8")
        return made[name, models]

    return page


@pytest.fixture(scope="module")
def windows(browser):
    """The window that figures are opened in; empty, or gone, when a test has closed it."""
    return []


@pytest.fixture
def figure(browser, pages, windows):
    def live(
        name: str, state: str = "", width: int = WIDE, dark: bool = False, models: bool = False
    ) -> Live:
        if not windows or windows[-1].page.is_closed():
            windows.append(browser.window())
        window = windows[-1]
        window.page.set_viewport_size({"width": width, "height": 900})
        scheme = "dark" if dark else "light"
        window.page.emulate_media(color_scheme=scheme, reduced_motion="no-preference")
        address = pages(name, models).as_uri() + (state and f"#drag-{name}?{state}")
        return Live(window, name, address)

    yield live
    for window in windows:
        problems, window.problems = window.problems, []
        assert not problems  # no error, no other host
