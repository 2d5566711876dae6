"""Figures to drag, what holds for each: driven as a hand would, compared with Python."""

import functools
import importlib

import pytest
from figures_harness import needs_browser
from playwright.sync_api import expect

from distil_lib.common.paths import PROJECT
from distil_lib.errors import UserError
from distil_lib.export.browser import fill_blank, stored_model
from distil_lib.pages import figures
from distil_lib.pages.answers import page_model

pytestmark = needs_browser


MOST = 60_000  # bytes of all scripts of our own, as a reader loads them


def test_our_scripts_are_small_and_the_short_ones_do_the_same(browser, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(PROJECT / "book" / "_ext"))
    extension = importlib.import_module("figures")
    ours = {path for path in (PROJECT / "book").rglob("*.js") if "_build" not in path.parts}
    sizes = {path.stem: len(extension.jsmin(path.read_text("utf-8")).encode()) for path in ours}
    short = extension.short_scripts()
    assert set(sizes) - {name.removesuffix(".min.js") for name in short} == {
        "glossary_hover",
        "slides",
    }
    assert sum(sizes.values()) < MOST
    for file, source in short.items():
        (tmp_path / file).write_text(source, encoding="utf-8")
        name = file.replace(".min", "")
        (tmp_path / name).write_bytes((figures.STATIC / name).read_bytes())
    elements = '<meta charset="utf-8">'
    for name in figures.names():
        recorded = figures.find(name).data
        elements += f'<div class="drag" id="drag-{name}" data-name="{name}"'
        elements += f'{" data-recorded=yes" * bool(recorded)}><div class="drag-static"></div></div>'
        if recorded:
            data = figures.data_script(name)
            (tmp_path / f"figure_{name}_data.js").write_text(data, encoding="utf-8")
    for name in ("teacher", "student"):
        (tmp_path / f"fill_mask_{name}.js").write_text(stored_model(name)[2], encoding="ascii")
    window, said = browser.window(), {}  # as on a built page: each file when it is needed
    address = "#drag-cut?layers=012345&text=Return+the+___+of+it."
    for kind in ("js", "min.js"):
        page = tmp_path / f"page.{kind}.html"
        page.write_text(f'{elements}<script src="figures.{kind}"></script>', encoding="utf-8")
        window.page.goto(page.as_uri() + address)
        for name in figures.names():
            window.page.locator(f"#drag-{name}").scroll_into_view_if_needed()
            window.page.wait_for_function(f"Figures.live.{name}?.status.textContent")
        status = window.page.locator("#drag-cut .drag-status")
        expect(status).to_contain_text("The whole teacher says", timeout=60_000)
        said[kind] = window.page.locator(".drag-live").all_inner_texts()
    assert len(said["js"]) == len(figures.names()) and said["js"] == said["min.js"]
    word = fill_blank(page_model("teacher"), stored_model("teacher")[1], "Return the [MASK] of it.")
    assert f"“{word[0][0]}”" in status.inner_text() and not window.problems
    window.page.context.close()


@pytest.mark.parametrize("name", figures.names())
def test_a_figure_fits_and_each_control_has_a_name(name, figure):
    live = figure(name, width=1600, dark=True)
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


def test_the_picture_stays_where_scripts_are_off(browser, pages):
    window = browser.window(scripts=False)
    for name in figures.names():
        window.page.goto(pages(name).as_uri())
        assert window.page.is_visible(".drag-static img"), name
        assert len(window.page.get_attribute(".drag-static img", "alt")) > 20, name
    window.page.context.close()


def test_a_state_is_written_into_the_address_and_read_from_it(figure):
    live = figure("amdahl", "layers=3&outside=abc")
    # What cannot be read is as in the beginning.
    assert live.state == {"outside": 0.2, "layers": 3, "format": "eager fp32"}
    live.slide("layers", "ArrowRight")
    assert live.page.url.endswith("#drag-amdahl?outside=0.2&layers=4&format=eager+fp32")


def test_a_notebook_gets_a_frame_and_no_warning(recwarn):
    for name in ("amdahl", "temperature"):
        output = figures.drag(name).data
        assert "srcdoc=" in output and len(output) < 300_000  # the models are 16 MB
    assert not recwarn.list  # IPython warns of a bare <iframe>


def serve(bodies: list[str], route) -> None:
    """An output as a page of its own, from a host that is not the notebook's."""
    body = f'<meta charset="utf-8">{bodies[int(route.request.url[-1])]}'
    route.fulfill(body=body, content_type="text/html")


@pytest.mark.parametrize("apart", [False, True])
def test_one_output_brings_the_models_for_all_figures(apart, browser, tmp_path):
    """JupyterLab shows outputs side by side in its window, Colab each in one of another origin."""
    output = figures.drag("fill_in", models=True).data
    assert 15.5e6 < len(output) < 16.6e6  # as figures.js says
    window = browser.window(width=1000)
    for others in ([], [output]):
        bodies = [figures.drag("cut").data, *others]
        window.page.goto("about:blank")
        window.page.unroute_all()
        window.page.route("http://outputs.test/*", functools.partial(serve, bodies))
        frames = [f'<iframe src="http://outputs.test/{n}"></iframe>' for n in range(len(bodies))]
        page = tmp_path / "page.html"
        page.write_text("".join(frames if apart else bodies), encoding="utf-8")
        window.page.goto(page.as_uri())
        cut, *more = (f for f in window.page.frames if f.url == "about:srcdoc")
        for each in (cut, *more):
            each.wait_for_selector(".drag-live")
        cut.fill("[data-key=text]", "Return the ___ of it.")
        cut.press("[data-key=text]", "Enter")
        status = cut.locator(".drag-status")
        if others:
            expect(status).to_contain_text("The whole teacher says “", timeout=60_000)
            expect(status).not_to_contain_text("valueerror")
        else:
            expect(status).to_contain_text("only recorded answers")
            expect(status).to_contain_text('run drag("cut", models=True)')
    assert not [problem for problem in window.problems if "outputs.test" not in problem]
    window.page.context.close()


def test_a_frame_is_as_high_as_its_figure_and_as_dark_as_the_notebook(browser, tmp_path):
    page, window = tmp_path / "page.html", browser.window(width=1000)
    for color, theme in (("#111111", None), ("#eeeeee", "dark")):
        page.write_text(f'<body style="color:{color}">{figures.drag("amdahl").data}', "utf-8")
        window.page.goto(page.as_uri())
        window.page.frames[1].wait_for_selector(".drag-live")
        assert window.page.frames[1].get_attribute("html", "data-theme") == theme
        window.page.wait_for_function(
            """() => { const frame = document.querySelector("iframe");
            return frame.clientHeight == frame.contentDocument.documentElement.offsetHeight; }"""
        )
        assert window.page.locator("iframe").bounding_box()["height"] not in (0, 640)
    window.page.context.close()


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
