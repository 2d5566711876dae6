"""Figures to drag, what holds for each: driven as a hand would, compared with Python."""

import pytest
from figures_harness import needs_browser

from distil_lib.errors import UserError
from distil_lib.pages import figures

pytestmark = needs_browser


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", figures.names())
def test_a_figure_fits_and_each_control_has_a_name(name, dark, figure):
    live = figure(name, width=1600, dark=dark)
    for width in (1600, 360):
        visit = live.window.measure(width=width)
        assert visit.overflow <= 0 and not visit.cut, width
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
    # What cannot be read is as in the beginning.
    assert live.state == {"outside": 0.2, "layers": 3, "format": "eager fp32"}
    live.slide("layers", "ArrowRight")
    assert live.page.url.endswith("#drag-amdahl?outside=0.2&layers=4&format=eager+fp32")


def test_a_notebook_gets_a_frame_and_no_warning(recwarn):
    assert "srcdoc=" in figures.drag("amdahl").data
    assert not recwarn.list  # IPython warns of a bare <iframe>


def test_an_address_opens_a_figure_far_down_a_page(browser, tmp_path):
    page = figures.standalone("amdahl").replace(
        "<body>", '<body><div style="height:9000px">Text</div>'
    )
    path = tmp_path / "page.html"
    path.write_text(page, encoding="utf-8")
    window = browser.window()
    window.page.goto(f"{path.as_uri()}#drag-amdahl?layers=3")
    window.page.wait_for_selector(".drag-live", timeout=10_000)
    window.page.wait_for_function("scrollY > 8000", timeout=10_000)
    assert window.page.input_value('[data-key="layers"]') == "3"
    window.page.context.close()


def test_an_unknown_figure_is_refused():
    with pytest.raises(UserError, match="no figure 'nothing'"):
        figures.find("nothing")
