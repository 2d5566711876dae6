"""The forest plot shows Python's effects: oracle `distil_lib.pages.grid_results.judged`."""

import re

import numpy as np
import pytest
from figures_harness import needs_browser

from distil_lib.pages.figures import forest
from distil_lib.pages.grid_results import ARM_NAMES, DIGITS, FOUR, judged, with_half_width

pytestmark = needs_browser


def rows(live) -> dict[str, dict]:
    """Of each arm that is shown: what is read out, the whiskers, the mark, the cross."""
    return live.evaluate(
        """Object.fromEntries([...figure.body.querySelectorAll("[data-arm]")].map((row) => [
        row.dataset.arm, {said: row.ariaLabel, value: row.querySelectorAll("text")[1].textContent,
          line: row.querySelector("path").getAttribute("d"),
          seeds: [...row.querySelectorAll("circle[r='2']")].map((c) => c.cx.baseVal.value),
          mark: row.querySelector("circle[r='5']")?.cx.baseVal.value,
          cross: row.querySelector("path.student")?.getAttribute("d")}]))"""
    )


def choose(live, **values: str) -> None:
    for key, value in values.items():
        live.page.select_option(f'[data-key="{key}"]', value)
    live.settle()


def test_each_interval_and_each_star_is_pythons(figure):
    live = figure("forest", "zoom=1")
    for measure in forest.LABELS:
        effects = judged(measure)
        for correction in ("holm", "none"):
            choose(live, measure=measure, correction=correction)
            found = rows(live)
            assert list(found) == list(effects)
            for arm, e in effects.items():
                star = "*" if (e.p_holm if correction == "holm" else e.p) <= 0.05 else ""
                expected = with_half_width(e, DIGITS[measure]).rstrip("*") + star
                assert found[arm]["value"] == expected, arm
                assert ("not dist" in found[arm]["said"]) == (not star)
        # Marks, whiskers and seeds lie where Python's numbers lie, on one scale.
        values, places = [], []
        for arm, e in effects.items():
            line = [float(x) for x in re.findall(r"[MH](-?[\d.]+)", found[arm]["line"])[:2]]
            seeds = forest.data()["measures"][measure]["arms"][arm][5]
            values += [e.low, e.high, e.mean, *seeds]
            places += [*line, found[arm]["mark"], *found[arm]["seeds"]]
        slope, zero = np.polyfit(values, places, 1)
        assert np.abs(np.polyval([slope, zero], values) - places).max() < 0.01


def test_the_papers_values_are_marked_where_the_unit_is_the_same(figure):
    live = figure("forest", "measure=documentation&zoom=2&arms=paper")
    found = rows(live)
    assert list(found) == list(FOUR)
    marks = [found[arm]["mark"] for arm in FOUR[1:]]
    slope, zero = np.polyfit([judged("documentation")[arm].mean for arm in FOUR[1:]], marks, 1)
    for arm, value in forest.paper_effects().items():
        left = float(re.match(r"M(-?[\d.]+)", found[arm]["cross"])[1])
        assert (left + 5 - zero) / slope == pytest.approx(value, abs=1e-3)
        assert f"{ARM_NAMES[arm]} (paper {value:.2f})" in found[arm]["said"]
    choose(live, measure="kl")
    assert not any(row["cross"] for row in rows(live).values())


def test_the_limit_is_dragged_by_mouse_and_by_keys(figure):
    live = figure("forest", "measure=documentation", width=360)
    grip = live.page.locator("[role=slider]").last
    grip.press("PageUp")
    live.settle()
    assert live.state["limit"] == 2 and grip.get_attribute("aria-valuetext") == "2 points"
    live.drag(grip, by=40)
    limit, effects = live.state["limit"], judged("documentation").values()
    assert limit > 2.5  # 40 pixels to the right
    yes = sum(e.low >= limit or e.high <= -limit for e in effects)
    no = sum(-limit < e.low and e.high < limit for e in effects)
    assert f"{yes} say yes, {no} no; {19 - yes - no} leave it open" in live.status
    assert f"limit={limit:g}" in live.page.url


def test_what_the_picture_says_of_its_numbers():
    tasks = judged("documentation")
    said = [f"{tasks[arm].mean:.2f}" for arm in ("random-start", "without-ce")]
    said += [f"{value:.2f}" for value in forest.paper_effects().values()]
    assert all(number in forest.FIGURE.alt for number in said)
    assert [arm for arm in FOUR if tasks[arm].p_holm <= 0.05] == ["random-start"]


def test_what_the_caption_says_of_the_six_tasks():
    tasks = judged("documentation")
    unsure = [a for a, e in tasks.items() if not (abs(e.mean) > 2) and max(-e.low, e.high) >= 2]
    assert len(unsure) == 7  # none of them reaches two points with its whole interval
    assert (
        sum(e.p <= 0.05 for e in tasks.values()) - sum(e.p_holm <= 0.05 for e in tasks.values())
        == 2
    )
