"""Opens built pages in headless Chromium, from file:// and without a network.

    with sync_playwright() as playwright, Browser(playwright, find_chromium()) as browser:
        visit = browser.visit(Path("_build/html/index.html").as_uri(), width=375, dark=True)
"""

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import ConsoleMessage, Page, Playwright, Request

HERE = Path(__file__).parent
# The fonts that a visit may be limited to, and a file that tells whether they are installed.
FONTS = {"DejaVu": "DejaVuSans.ttf", "Liberation": "LiberationSans-Regular.ttf"}
OWN_FONTS = "**/_static/fonts/*.woff2"
LOCAL = ("file:", "data:", "blob:", "about:")
# What the page looks like once everything has run and all that folds is open.
MEASURE = """async () => {
  if (window.MathJax && MathJax.startup && MathJax.startup.promise) await MathJax.startup.promise;
  for (const folded of document.querySelectorAll("details")) folded.open = true;
  for (const folded of document.querySelectorAll(".toggle-hidden"))
    folded.classList.remove("toggle-hidden");
  await document.fonts.ready;
  const root = document.documentElement, all = (selector) => [...document.querySelectorAll(selector)];
  const name = (e) => `<${e.localName} class="${e.className}"> ${e.textContent.trim().slice(0, 40)}`;
  const style = (e, property) => getComputedStyle(e).getPropertyValue(property);
  // What is wider inside than outside. Stretched symbols of formulas are cut on purpose.
  const wide = all("article *").filter((e) => e.clientWidth && e.scrollWidth > e.clientWidth + 1
    && !e.closest("svg") && !e.parentElement.closest("mjx-container"));
  const scrolls = (e) => ["auto", "scroll"].includes(style(e, "overflow-x"));
  return {
    formulas: all(".math.notranslate").length,
    typeset: all(".math.notranslate mjx-container").length,
    errors: all('mjx-merror, mjx-mtext[style*="red"]').length,  // red: an unknown command
    overflow: root.scrollWidth - root.clientWidth,
    cut: wide.filter((e) => !scrolls(e) && style(e, "overflow-x") !== "visible").map(name),
    silent: wide.filter((e) => scrolls(e) && !style(e, "background-attachment").includes("local")).map(name),
    code: all("article pre").filter((e) => e.clientWidth).map((e) => ({
      columns: Math.max(...e.textContent.split("\\n").map((line) => [...line].length)),
      missing: e.scrollWidth - e.clientWidth, text: e.textContent.slice(0, 40)})),
    characters: document.body.innerText.length,
    fonts: [...new Set([...document.fonts].filter((f) => f.status === "loaded")
      .map((f) => f.family.replaceAll('"', "")))],
    dark: root.dataset.theme === "dark"};
}"""


@dataclass
class Visit:
    """What happened while a page was opened."""

    # requests to other hosts, failed requests, errors in the console
    problems: list[str] = field(default_factory=list)
    formulas: int = 0
    typeset: int = 0
    errors: int = 0  # formulas that MathJax refused
    overflow: int = 0  # pixels by which the page is wider than its window
    cut: list[str] = field(default_factory=list)  # boxes of the article that hide a part of themselves
    silent: list[str] = field(default_factory=list)  # boxes that scroll and do not show it
    code: list[dict] = field(default_factory=list)  # boxes of code: columns, missing pixels, text
    characters: int = 0  # of visible text
    fonts: list[str] = field(default_factory=list)  # web fonts that were loaded
    dark: bool = False  # the theme that the page chose


def find_chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


def is_installed(fonts: str) -> bool:
    """Whether this machine has the fonts that `Browser(fonts=...)` would be limited to."""
    folders = (Path("/usr/share/fonts"), Path("/usr/local/share/fonts"))
    return any(True for folder in folders for _ in folder.rglob(FONTS[fonts]))


def watch(page: Page) -> list[str]:
    """A list that grows with each fault of the page.

    Left out are the fonts that `Browser.page` blocks.
    """
    problems: list[str] = []
    blocked = ".woff2" if getattr(page, "own_fonts_blocked", False) else "\0"

    def asked(request: Request) -> None:
        if not request.url.startswith(LOCAL):
            problems.append(f"asks another host: {request.url}")

    def failed(request: Request) -> None:
        if request.failure != "net::ERR_ABORTED" and not request.url.endswith(blocked):
            problems.append(f"request failed: {request.url} ({request.failure})")

    def said(message: ConsoleMessage) -> None:
        if message.type == "error" and not message.location["url"].endswith(blocked):
            problems.append(f"console: {message.text} {message.location['url']}")

    page.on("request", asked)
    page.on("requestfailed", failed)
    page.on("console", said)
    page.on("pageerror", lambda error: problems.append(f"script error: {error}"))
    return problems


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
            # A reader's window loses some pixels to its scroll bar, and so does this one.
            ignore_default_args=["--hide-scrollbars"],
        )

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *error: object) -> None:
        self.browser.close()

    def page(
        self, width: int = 1280, dark: bool = False, own_fonts: bool = True, scripts: bool = True
    ) -> Page:
        """An empty page in a window of its own. `own_fonts=False`: the book's fonts do not load."""
        context = self.browser.new_context(
            viewport={"width": width, "height": 900},
            is_mobile=width < 600,
            color_scheme="dark" if dark else "light",
            java_script_enabled=scripts,
        )
        context.set_default_timeout(60_000)
        page = context.new_page()
        if not own_fonts:
            page.route(OWN_FONTS, lambda route: route.abort())
            page.own_fonts_blocked = True
        return page

    def visit(self, url: str, **window: object) -> Visit:
        """Open a page in a new window (see `page`), let it finish, and say what happened."""
        page = self.page(**window)
        try:
            return visit(page, url)
        finally:
            page.context.close()


def visit(page: Page, url: str) -> Visit:
    """Open an address in this window, let the page finish, and say what happened."""
    problems = watch(page)
    page.goto(url)
    return Visit(problems=problems, **page.evaluate(MEASURE))
