"""The replay shows the lines of the log: oracle `metrics.jsonl` itself."""

import json

import pytest
from figures_harness import needs_browser

from distil_lib.common.paths import data_folder
from distil_lib.pages.figures import replay


@pytest.fixture(scope="module")
def log():
    lines = (data_folder("student") / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return (
        {row["step"]: row for row in rows if "loss" in row},
        {row["step"]: row for row in rows if "kl" in row},
    )


@needs_browser
def test_each_figure_is_that_of_the_log(log, figure):
    training, held_out = log
    live = figure("replay", "step=80")
    first, last = training[20], training[2600]
    grip = live.page.locator("[role=slider]").last
    for step, keys in ((80, []), (260, ["PageUp", "ArrowLeft"]), (20, ["Home"]), (2600, ["End"])):
        for key in keys:
            grip.press(key)
        live.settle()
        row, evaluated = training[step], held_out.get(step // 200 * 200)
        fallen = (first["ce"] - row["ce"]) / (first["ce"] - last["ce"])
        assert live.status.startswith(f"Step {step}: {fallen:.1%} of the fall")
        shown = live.evaluate(
            """Object.fromEntries([...figure.body.querySelectorAll("[data-name]")].map((e) =>
            [e.dataset.name, e.querySelector("b").textContent]))"""
        )
        for label, name in (("triple loss", "loss"), ("L_ce", "ce"), ("L_cos", "cos")):
            assert float(shown[label]) == pytest.approx(row[name], rel=6e-3)
        assert float(shown["L_mlm"]) == pytest.approx(row["mlm"], rel=6e-3)
        assert float(shown["gradient norm"]) == pytest.approx(row["norm"], rel=6e-3)
        assert float(shown["learning rate"]) == pytest.approx(row["lr"], rel=6e-3)
        assert float(shown["minutes"]) == pytest.approx(row["seconds"] / 60, abs=0.06)
        if evaluated:
            assert float(shown["held-out KL"]) == pytest.approx(evaluated["kl"], rel=6e-3)
            assert shown["right"] == f"{evaluated['accuracy']:.1%}"
            assert f"{evaluated['agreement']:.1%} of all cases" in live.status
        else:
            assert "first evaluation is at step 200" in live.status and shown["right"] == "–"


@needs_browser
def test_the_mark_is_dragged_and_moves_the_slider_with_it(figure):
    live = figure("replay", "step=20", width=360)
    live.drag(live.page.locator("[role=slider]").last, by=120)
    width = live.evaluate("figure.body.querySelector('svg').clientWidth")
    step = live.state["step"]
    assert step % 20 == 0  # from 38 to 14 before the edge are 2,600 steps
    assert step == pytest.approx(20 + 120 / (width - 52) * 2600, abs=20)
    assert live.page.input_value('[data-key="step"]') == str(step)


def test_what_the_picture_says_of_its_numbers(log):
    training, _ = log
    for name in ("ce", "mlm", "cos"):
        assert f"{100 * training[2600][name] / training[20][name]:.0f}%" in replay.FIGURE.alt
    half = (training[20]["ce"] + training[2600]["ce"]) / 2
    assert training[80]["ce"] < half and max(training) == 2600  # as the caption says
