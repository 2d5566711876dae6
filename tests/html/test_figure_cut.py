"""Chapter 4's figure against PyTorch: what a cut teacher answers, and the recorded figures."""

import re

import numpy as np
import pytest
from figures_harness import needs_browser, number
from scipy.special import softmax

from distil_lib.ablation.grid import read_grid
from distil_lib.ablation.records import read_records, values_by_seed
from distil_lib.common.paths import data_folder
from distil_lib.export.browser import stored_model
from distil_lib.initialization import select_layers
from distil_lib.pages.answers import SENTENCE, leading, logits
from distil_lib.pages.cuts import (
    ARMS,
    CUTS,
    EVERY,
    STEPS,
    all_cuts,
    grid_job,
    training_curves,
)
from distil_lib.pages.figures import cut

OTHER = "Return the ___ of the array along the given axis."


def rows(live) -> dict[str, list[float]]:
    """Of each word, what the whole teacher gives it and what the cut one."""
    found = live.evaluate(
        """[...figure.body.querySelectorAll("tbody tr")].map((row) =>
        [...row.querySelectorAll("th, span")].map((cell) => cell.textContent))"""
    )
    return {word: [number(x) for x in shares] for word, *shares in found}


def agrees(live, text: str, layers: list[int]) -> bool:
    whole, left = (softmax(logits("teacher", text, kept)) for kept in (range(6), layers))
    words = leading([left, whole], cut.WORDS)
    names, mine = stored_model("teacher")[1].convert_ids_to_tokens(words), rows(live)
    wanted = [[whole[w], left[w]] for w in words]
    return (
        list(mine) == names
        and np.allclose([*mine.values()], wanted, atol=6e-3)
        and np.allclose(live.bars(), np.ravel(wanted), atol=1e-4)
    )


@needs_browser
def test_recorded_and_live_answers_are_those_of_the_cut_model(figure):
    live = figure("cut", models=True)
    assert agrees(live, SENTENCE, [0, 2, 5]) and "number 40 of 63" in live.status
    live.page.get_by_role("button", name="layer 1", exact=True).click()
    live.settle()
    assert live.state["layers"] == "0125" and agrees(live, SENTENCE, [0, 1, 2, 5])
    assert not live.evaluate("Boolean(Figures.loaded.teacher)")
    live.type("text", OTHER)
    text = OTHER.replace("___", "[MASK]")
    assert agrees(live, text, [0, 1, 2, 5]) and not agrees(live, text, [0, 2, 5])
    live.page.get_by_role("button", name="first").press("Enter")
    live.settle()
    assert agrees(live, text, [0, 1, 2])


@needs_browser
@pytest.mark.parametrize("width, dark", [(1200, False), (360, True)])
def test_it_is_driven_by_mouse_and_keyboard(width, dark, figure):
    live, order = figure("cut", width=width, dark=dark), sorted(CUTS, key=all_cuts().get)
    names = ["".join(map(str, each)) for each in order]
    places = live.evaluate(
        "[...figure.body.querySelectorAll('circle:has(title)')].map("
        "(c) => [c.cx, c.cy].map((v) => v.baseVal.value))"
    )
    x, y = np.transpose(places)  # one scale for all 63 values, one row for each number of layers
    assert np.allclose(
        (x - x[0]) / (x[-1] - x[0]),
        [all_cuts()[c] / all_cuts()[order[-1]] for c in order],
        atol=1e-4,
    )
    assert [np.unique(-y, return_inverse=True)[1][n] + 1 for n in range(63)] == [
        len(c) for c in order
    ]
    strip, six = live.page.locator("svg [role=slider]").first, live.page.locator("circle").first
    live.drag(strip, six.bounding_box()["x"])
    assert live.state["layers"] == "012345" and "KL 0 nats: number 1 of 63" in live.status
    strip.press("ArrowRight")
    strip.press("PageUp")
    live.settle()
    assert live.state["layers"] == names[11] and f"number {12} of 63" in live.status
    assert f"{all_cuts()[order[11]]:.3g} nats" in strip.get_attribute("aria-valuetext")
    train = live.page.get_by_role("button", name="then 300 steps")
    assert train.is_disabled()  # only the strategies' cuts were trained
    live.page.emulate_media(reduced_motion="reduce")
    live.page.get_by_role("button", name="last").click()
    train.click()
    (run,) = (run for run in cut.trained_cuts() if run["strategy"] == "last")
    assert ", ".join(f"{kl:.2f}" for kl in run["kl"]) + " nats, three seeds" in live.status
    for n in (3, 4, 5):  # the last layer stays
        live.page.get_by_role("button", name=f"layer {n}", exact=True).click()
    assert live.status == "Keep one layer at least." and live.state["layers"] == "5"


@needs_browser
def test_a_recorded_training_is_replayed_and_dragged(figure):
    live, runs = figure("cut"), {run["strategy"]: run for run in cut.trained_cuts()}
    assert [*runs] == ["spread", "alternate", "first", "last", "random 1", "random 2", "random 3"]
    for run in runs.values():
        live.page.get_by_role("button", name=run["strategy"], exact=True).click()
        live.settle()
        places = live.page.locator("svg path.third.wide").get_attribute("d")
        x, y = np.array(re.findall(r"[ML](\S+) ([\d.]+)", places), float).T
        assert np.allclose(np.diff(x), x[1] - x[0], atol=0.011)  # places have two decimals
        assert len(x) == len(run["curve"]) == 13
        high = np.log(run["curve"])
        slope, zero = np.polyfit(high, y, 1)
        assert slope < 0 and np.abs(slope * high + zero - y).max() < 0.02
    live.page.get_by_role("button", name="first", exact=True).click()
    first = runs["first"]
    mark = live.page.get_by_role("slider", name="Steps of training")
    mark.press("PageUp")
    live.settle()
    assert live.state["step"] == 250 and f"steps {first['curve'][10]:.3g}" in swap(live.status)
    box = live.page.locator("svg path.third.wide").bounding_box()
    live.drag(mark, box["x"] + box["width"] / 3)
    assert live.state["step"] == 100 and f"steps {first['curve'][4]:.3g}" in swap(live.status)
    live.page.get_by_role("button", name="then 300 steps").click()  # it plays by itself
    live.page.wait_for_function("Figures.live.cut.state.step === 300")
    assert f"{first['kl'][0]:.2f}, " in live.status
    assert live.page.url.endswith("step=300")


def swap(status: str) -> str:
    """Without what stands between the steps and the number."""
    return re.sub(r" \(batches.*?\):", "", status.replace("recorded ", ""))


def test_the_curves_are_those_of_the_grid():
    """Its arms with its settings: the ends are its records, to the digits that a log keeps."""
    grid = read_grid("mini")
    ends = values_by_seed(read_records(data_folder("results", "ablation"), grid), "kl")
    for (strategy, seed), curve in training_curves().items():
        job = grid_job(strategy, seed).pretraining
        assert job.init_layers == strategy and job.max_steps == STEPS == EVERY * (len(curve) - 1)
        assert curve[-1] == pytest.approx(ends[ARMS[strategy]][seed], abs=2e-6)
        # Before training it is the untrained cut, on other blocks of held-out text.
        untrained = all_cuts()[tuple(select_layers(6, 3, strategy, seed=seed))]
        assert curve[0] == pytest.approx(untrained, rel=0.1) and curve[0] > 2 * curve[-1]


def test_recorded_cuts_are_measured_again():
    """All layers are the teacher itself; one other is what this machine finds now."""
    recorded = all_cuts(live=[(1, 2, 4)])
    assert len(recorded) == 63 and abs(recorded[0, 1, 2, 3, 4, 5]) < 1e-6
    assert min(recorded, key=recorded.get) == (0, 1, 2, 3, 4, 5)


def test_what_the_picture_says():
    three = {cut: kl for cut, kl in all_cuts().items() if len(cut) == 3}
    best, worst = min(three, key=three.get), max(three, key=three.get)
    assert (best, worst) == ((1, 2, 4), (0, 4, 5)) and "0, 2, 5" in cut.FIGURE.alt
    assert all(f"{three[x]:.2f}" in cut.FIGURE.alt for x in (best, (0, 2, 5), worst))
    for (strategy, _), curve in training_curves().items():
        if strategy != "random":
            said = f"from {curve[0]:.2f} to {curve[1]:.2f}, and to {curve[-1]:.2f}"
            assert said in cut.FIGURE.alt.replace(" in 25 steps", "")
    ends = [f"{training_curves()['random', seed][-1]:.2f}" for seed in range(3)]
    assert "end at {}, {} and {}.".format(*ends) in cut.FIGURE.alt
