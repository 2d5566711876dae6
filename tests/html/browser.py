"""Opens built pages in headless Chromium, from file:// and without a network.

    with sync_playwright() as playwright, Browser(playwright, find_chromium()) as browser:
        window = browser.window(dark=True)
        wide = window.open(Path("_build/html/index.html").as_uri())
        narrow = window.measure(width=375)

Pages are measured after their scripts have run, with all that folds open.
"""

import functools
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from playwright._impl._driver import compute_driver_executable
from playwright.sync_api import ConsoleMessage, Page, Playwright, Request

HERE = Path(__file__).parent
# The fonts that a visit may be limited to, and a file that tells whether they are installed.
FONTS = {"DejaVu": "DejaVuSans.ttf", "Liberation": "LiberationSans-Regular.ttf"}
OWN_FONTS = "**/_static/fonts/*.woff2"
LOCAL = ("file:", "data:", "blob:", "about:")
WIDE, NARROW = 1265, 375  # a window of 1,280 pixels less its scroll bar, and a telephone
# Everything has run, and all that folds is open.
READY = """async () => {
  if (window.MathJax && MathJax.startup && MathJax.startup.promise) await MathJax.startup.promise;
  for (const folded of document.querySelectorAll("details")) folded.open = true;
  for (const folded of document.querySelectorAll(".toggle-hidden"))
    folded.classList.remove("toggle-hidden");
  await document.fonts.ready;
}"""
MEASURE = """() => {
  const root = document.documentElement;
  const all = (selector) => [...document.querySelectorAll(selector)];
  const name = (e) => `${e.localName}.${e.className}: ${e.textContent.trim().slice(0, 40)}`;
  const style = (e, property) => getComputedStyle(e).getPropertyValue(property);
  // What is wider inside than outside. Stretched symbols of formulas are cut on purpose.
  const wide = all("article *").filter((e) => e.clientWidth && e.scrollWidth > e.clientWidth + 1
    && !e.closest("svg, input") && !e.parentElement.closest("mjx-container"));
  const scrolls = (e) => ["auto", "scroll"].includes(style(e, "overflow-x"));
  return {
    formulas: all(".math.notranslate").length,
    typeset: all(".math.notranslate mjx-container").length,
    errors: all('mjx-merror, mjx-mtext[style*="red"]').length,  // red: an unknown command
    overflow: root.scrollWidth - root.clientWidth,
    cut: wide.filter((e) => !scrolls(e) && style(e, "overflow-x") !== "visible").map(name),
    silent: wide.filter(scrolls)
      .filter((e) => !style(e, "background-attachment").includes("local")).map(name),
    code: all("article pre").filter((e) => e.clientWidth).map((e) => ({
      columns: Math.max(...e.textContent.split("\\n").map((line) => [...line].length)),
      missing: e.scrollWidth - e.clientWidth, text: e.textContent.slice(0, 40)})),
    characters: document.body.innerText.length,
    icons: all("i.fa-solid").length,
    fonts: [...new Set([...document.fonts].filter((f) => f.status === "loaded")
      .map((f) => f.family.replaceAll('"', "")))],
    dark: root.dataset.theme === "dark"};
}"""


@dataclass
class Visit:
    """What a page looks like, and what has happened since it was opened."""

    problems: list[str]  # requests to other hosts, failed requests, errors in the console
    formulas: int
    typeset: int
    errors: int  # formulas that MathJax refused
    overflow: int  # pixels by which the page is wider than its window
    cut: list[str]  # boxes of the article that hide a part of themselves
    silent: list[str]  # boxes that scroll and do not show it
    code: list[dict]  # boxes of code: columns, missing pixels, text
    characters: int  # of visible text
    icons: int
    fonts: list[str]  # web fonts that were loaded
    dark: bool  # the theme that the page chose


@functools.cache
def missing_browser() -> str | None:
    """Why no browser can be driven here; None where one can."""
    if find_chromium() is None:
        return "Chromium is not installed"
    node = compute_driver_executable()[0]
    done = subprocess.run([node, "--version"], capture_output=True, text=True)
    if done.returncode == 0:
        return None
    return f"Playwright's driver does not start ({done.stderr.strip()})"


def find_chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


def is_installed(fonts: str) -> bool:
    """Whether this machine has the fonts that `Browser(fonts=...)` would be limited to."""
    folders = (Path("/usr/share/fonts"), Path("/usr/local/share/fonts"))
    return any(True for folder in folders for _ in folder.rglob(FONTS[fonts]))


class Window:
    """A page of Playwright's, watched. `own_fonts=False`: the book's fonts are kept from it."""

    def __init__(self, page: Page, own_fonts: bool = True):
        self.page = page
        self.problems: list[str] = []
        self.blocked: tuple[str, ...] = ()
        if not own_fonts:
            self.blocked = (".woff2",)
            page.route(OWN_FONTS, lambda route: route.abort())
        page.on("request", self._asked)
        page.on("requestfailed", self._failed)
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.problems.append(f"script error: {error}"))

    def _asked(self, request: Request) -> None:
        if not request.url.startswith(LOCAL):
            self.problems.append(f"asks another host: {request.url}")

    def _failed(self, request: Request) -> None:
        if request.failure != "net::ERR_ABORTED" and not request.url.endswith(self.blocked):
            self.problems.append(f"request failed: {request.url} ({request.failure})")

    def _said(self, message: ConsoleMessage) -> None:
        url = message.location["url"]
        if message.type == "error" and not url.endswith(self.blocked):
            self.problems.append(f"console: {message.text} {url}")

    def open(self, url: str, width: int | None = None) -> Visit:
        """Open an address, in another width if one is given, and let the page finish."""
        self.problems.clear()
        self._set_width(width)
        self.page.goto(url)
        self.page.evaluate(READY)
        return self.measure()

    def measure(self, width: int | None = None) -> Visit:
        """Look at the open page again, in another width if one is given."""
        self._set_width(width)
        return Visit(problems=list(self.problems), **self.page.evaluate(MEASURE))

    def _set_width(self, width: int | None) -> None:
        if width and self.page.viewport_size["width"] != width:
            self.page.set_viewport_size({"width": width, "height": 900})


class Browser:
    """A headless Chromium, limited to one family of installed fonts if `fonts` names it."""

    def __init__(self, playwright: Playwright, program: str, fonts: str | None = None):
        environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        if fonts:
            environment["FONTCONFIG_FILE"] = str(HERE / f"fonts_{fonts.lower()}.conf")
        self.browser = playwright.chromium.launch(
            executable_path=program,
            env=environment,
            # No name resolves: whatever is not on this disk fails, and is noticed.
            args=["--host-resolver-rules=MAP * ~NOTFOUND"],
        )

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *error: object) -> None:
        self.browser.close()

    def window(
        self, width: int = WIDE, dark: bool = False, own_fonts: bool = True, scripts: bool = True
    ) -> Window:
        """An empty window, which shares nothing with the others."""
        context = self.browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if dark else "light",
            java_script_enabled=scripts,
        )
        context.set_default_timeout(60_000)
        return Window(context.new_page(), own_fonts)
