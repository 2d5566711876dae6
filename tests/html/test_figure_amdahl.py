"""Chapter 9's figure: Amdahl's law, the number formats' records, and the pins of Table 3."""

import json

import pytest
from figures_harness import needs_browser

from distil_lib.common.paths import PROJECT
from distil_lib.pages.figures import amdahl

pytestmark = needs_browser
TIMING = PROJECT / "data" / "results" / "timing"


def test_the_law_in_the_page_is_python_s(figure):
    live = figure("amdahl")
    found = amdahl.measured_formats()
    assert found["eager fp32"]["teacher"] == 1.0
    for outside, layers, name in (
        (0.0, 6, "eager fp32"),
        (0.2, 6, "eager fp32"),
        (0.6, 1, "onnx int8"),
        (0.3, 12, "bf16 weights"),
        (0.25, 0, "openvino bf16"),
    ):
        values = f"{{ outside: {outside}, layers: {layers}, format: '{name}' }}"
        live.evaluate(f"(Object.assign(figure.state, {values}), figure.redraw())")
        expected = amdahl.speedup(outside, layers, factor=found[name]["teacher"])
        assert live.status.startswith(f"{expected:.3g} times as fast")
        shown = live.evaluate("figure.shown")
        assert shown["times"] == pytest.approx(expected, rel=1e-4)
        bars = live.page.locator("svg >> nth=0 >> rect").evaluate_all(
            "all => all.slice(0, 4).map((e) => e.getBoundingClientRect().width)"
        )
        assert sum(bars[2:]) / sum(bars[:2]) == pytest.approx(1 / expected, abs=0.01)


def test_hand_and_keys_move_the_time_outside(figure):
    live = figure("amdahl", width=360, dark=True)
    grip = live.page.locator("g[role=slider]")
    bars = live.page.locator("svg").first.bounding_box()
    live.drag(grip, bars["x"] + 0.5 * bars["width"])
    assert live.state["outside"] == pytest.approx(0.5, abs=0.011)
    grip.press("End")
    assert live.state["outside"] == 0.6
    grip.press("ArrowLeft")
    live.settle()
    assert live.state["outside"] == 0.59 and grip.get_attribute("aria-valuetext") == "59%"
    assert live.page.input_value('[data-key="outside"]') == "0.59"
    live.page.select_option('[data-key="format"]', "onnx int8")
    live.slide("layers", "Home", "ArrowRight")
    factor = amdahl.measured_formats()["onnx int8"]["teacher"]
    assert live.status.startswith(f"{amdahl.speedup(0.59, 1, factor=factor):.3g} times as fast")


def test_the_pins_are_the_paper_s_and_the_record_s(figure):
    live = figure("amdahl")
    record = json.loads((TIMING / "table3.json").read_text(encoding="utf-8"))
    ours = record["threads"]["1"]["summary"]["distilbert"]["speedup"]["median"]
    words = live.page.locator("svg >> nth=1").text_content()
    assert f"paper {668 / 410:.2f}" in words and f"ours {ours:.2f}" in words
    live.page.click("text=As in the paper")
    assert live.status.startswith("1.63 times as fast, 38.6% less time. 22.8%")
    places = live.page.locator("svg >> nth=1").evaluate(
        "svg => [svg.querySelector('circle'), [...svg.querySelectorAll('text')]"
        ".find((e) => e.textContent === '◆')].map((e) => e.getBoundingClientRect())"
        ".map((box) => box.x + box.width / 2)"
    )
    assert places[0] == pytest.approx(places[1], abs=1.5)  # the law's dot stands on the pin
    rows = json.loads((TIMING / "ladder-full.json").read_text("utf-8"))["threads"]["1"]["rows"]
    ms = {
        (r["role"], r["backend"]): r["ms"]["median"]
        for r in rows
        if r["batch"] == 1 and r["length"] == 32
    }
    live.page.select_option('[data-key="format"]', "onnx int8")
    live.settle()
    measured = ms["teacher", "eager fp32"] / ms["student", "onnx int8"]
    assert f"6 layers: {measured:.2f}" in live.page.locator("svg >> nth=1").text_content()


def test_the_alt_text_says_where_curve_and_pins_are():
    alt = amdahl.FIGURE.alt
    assert f"{amdahl.speedup(0.6, 6):.2f} times" in alt and f"{2 / amdahl.PAPER - 1:.2f}" in alt
    assert f"paper's {amdahl.PAPER:.2f}" in alt and "our 2.05" in alt
    assert amdahl.speedup(0, 6) < amdahl._data()["ours"][0] == pytest.approx(2.05, abs=0.005)
