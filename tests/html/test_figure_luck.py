"""Chapter 7's figure: its exact distribution against scipy's and against simulated systems."""

import numpy as np
import pytest
from figures_harness import needs_browser

from distil_lib.pages.figures import luck as drawn
from distil_lib.pages.luck import DEVELOPMENT_SETS, equally_good
from distil_lib.pages.paper_numbers import table


@needs_browser
def test_each_number_is_python_s(figure):
    live = figure("luck")
    for n, share in ((71, 0.28), (50, 0.02), (277, 0.6), (872, 0.13), (10_000, 0.45)):
        live.evaluate(f"(figure.set({{ n: {n}, share: {share} }}), null)")
        live.settle()
        points, probability = drawn.differences(n, share)
        shown, most = live.evaluate("figure.shown"), drawn.usual_range(n, share)
        assert np.allclose(shown["probability"], probability, atol=1e-9)
        assert np.allclose(100 * np.array(shown["ahead"]) / n, points)
        assert shown["points"] == pytest.approx(most)
        apart = probability[abs(points) > 150 / n].sum()
        says = live.status
        assert f"two examples or more {apart:.2f}" in says
        assert f"{float(f'{most:.3g}'):,g} points of accuracy" in says
        assert f"at most {round(most * n / 100)} example" in says


@needs_browser
def test_a_slider_and_a_dot_move_the_same_number(figure):
    live = figure("luck", width=360, dark=True)
    assert "of two examples or more 0.82" in live.status  # as chapter 7 says of WNLI
    live.page.click("text=MRPC")
    assert live.state["n"] == DEVELOPMENT_SETS["MRPC"] and "of 408 examples" in live.status
    live.slide("n", "End")
    assert live.state["n"] == 10_000
    dot = live.page.locator("circle[role=slider]")
    dot.press("PageDown")
    live.settle()
    assert live.state["n"] == 9_990 and dot.get_attribute("aria-valuenow") == "9990"
    strip = live.page.locator("svg").last.bounding_box()
    live.drag(dot, strip["x"] + (38 + strip["width"] - 20) / 2)  # its axis begins and ends there
    assert live.state["n"] == pytest.approx((50 * 10_000) ** 0.5, rel=0.03)  # halfway, in ratios
    assert live.page.get_attribute('[data-key="n"]', "aria-valuetext") == (
        f"{round(live.state['n'])} examples"
    )


def test_the_distribution_is_that_of_simulated_systems():
    """Runs that share a part of the answers and draw the rest, `distil_lib.pages.luck`."""
    simulated = equally_good(within=0.55, between=0.55, trials=20_000, runs=1)
    for task in ("WNLI", "SST-2"):
        p, n = table(1).loc["DistilBERT", task] / 100, DEVELOPMENT_SETS[task]
        points, probability = drawn.differences(n, 0.45 * 2 * p * (1 - p))
        exact = (probability @ points**2) ** 0.5
        column = list(DEVELOPMENT_SETS).index(task)
        assert simulated[:, column].std() == pytest.approx(exact, rel=0.03)


def test_the_alt_text_has_the_ranges_of_the_picture():
    for n in (71, 872):
        most = drawn.usual_range(n, 0.28)
        assert f"{most:.1f} points" in drawn.FIGURE.alt
        points, probability = drawn.differences(n, 0.28)
        assert probability[abs(points) <= most + 1e-6].sum() >= 0.95
        assert probability[abs(points) < most - 1e-6].sum() < 0.95  # the smallest such range
