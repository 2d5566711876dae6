"""What an instructor shows and prints: the slides and the page to hand out, in a browser.

Oracle: Chromium's own layout and its PDF. `make html` builds the pages first.
"""

import re
from pathlib import Path

import pytest
from browser import NARROW, missing_browser

TEACHERS = Path(__file__).parents[2] / "_build" / "html" / "book" / "teachers"
WEEKS = ("slides_week_1", "slides_week_2", "slides_week_3")
MISSING = missing_browser()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
LARGER_THAN_WINDOW = """() => [...document.querySelectorAll("section")]
  .filter((s) => s.scrollHeight > innerHeight + 2).map((s) => s.id)"""


def pages_of(pdf: bytes) -> int:
    return len(re.findall(rb"/Type /Page\b", pdf))


@pytest.mark.parametrize("name", WEEKS)
def test_a_slide_fills_a_window_and_a_printed_page(browser, name):
    window = browser.window(1280)
    window.page.set_viewport_size({"width": 1280, "height": 720})
    visit = window.open((TEACHERS / f"{name}.html").as_uri())
    assert visit.problems == [] and visit.overflow == 0
    slides = window.page.locator("section").count()
    assert window.page.evaluate(LARGER_THAN_WINDOW) == []
    assert pages_of(window.page.pdf(prefer_css_page_size=True)) == slides
    window.page.emulate_media(media="print")
    window.page.set_viewport_size({"width": 1536, "height": 864})  # 16 by 9 inches
    assert window.page.evaluate(LARGER_THAN_WINDOW) == []
    pictures = "[...document.images].filter((i) => i.complete && i.naturalWidth).length"
    assert window.page.evaluate(pictures) == window.page.locator("img").count() > 5


def test_a_crowded_slide_is_seen(browser):
    window = browser.window(1280)
    window.open((TEACHERS / f"{WEEKS[0]}.html").as_uri())
    window.page.evaluate("document.querySelector('#slide-2 .content').style.height = '5000px'")
    window.page.evaluate("document.querySelector('#slide-2 .content').style.flex = 'none'")
    assert window.page.evaluate(LARGER_THAN_WINDOW) == ["slide-2"]


def test_keys_turn_the_slides(browser):
    page = browser.window(1280).page
    page.goto((TEACHERS / f"{WEEKS[0]}.html").as_uri())
    for key, slide in (
        ("ArrowRight", 2),
        ("PageDown", 3),
        (" ", 4),
        ("ArrowLeft", 3),
        ("Shift+ ", 2),
        ("Home", 1),
        ("ArrowLeft", 1),
    ):
        page.keyboard.press(key)
        assert page.evaluate("location.hash") == f"#slide-{slide}", key
        top = f"Math.round(document.getElementById('slide-{slide}').getBoundingClientRect().top)"
        page.wait_for_function(f"{top} === 0")


def test_a_slide_leads_to_the_figure_to_drag_in_its_state(browser):
    page = browser.window(1280).page
    page.goto((TEACHERS / f"{WEEKS[0]}.html").as_uri())
    page.click("a[href*='drag-temperature?T=4']")
    figure = page.locator("#drag-temperature")
    figure.locator(".drag-live output").first.wait_for()
    assert figure.locator(".drag-live output").first.inner_text().startswith("4")
    page.evaluate("MathJax.startup.promise")  # formulas above it are set, and it is still in sight
    top = "document.querySelector('#drag-temperature').getBoundingClientRect().top"
    page.wait_for_function(f"Math.abs({top}) < innerHeight / 2")


def test_without_scripts_the_slides_are_a_page(browser):
    window = browser.window(NARROW, scripts=False)
    window.page.goto((TEACHERS / f"{WEEKS[1]}.html").as_uri())
    assert window.page.locator("section").count() > 20
    assert window.page.locator("#slide-5 img").is_visible()


def test_the_page_to_hand_out_is_one_page(browser):
    window = browser.window(1280)
    window.open((TEACHERS / "one_page.html").as_uri())
    assert pages_of(window.page.pdf(prefer_css_page_size=True)) == 1
    window.open((TEACHERS / "syllabus.html").as_uri())
    assert pages_of(window.page.pdf(prefer_css_page_size=True)) > 1  # the count counts
