"""The bug finder shows what Python measures: oracles are torch's own autograd and the checks."""

import math

import pytest
import torch
from figures_harness import needs_browser

from distil_lib.pages import bug_checks
from distil_lib.pages.bug_checks import CHECKS, Toy, caught_by, gradients_beside_right
from distil_lib.pages.bugs import BUGS, RIGHT
from distil_lib.pages.figures import bugs

pytestmark = needs_browser


def test_the_record_is_what_the_toys_do():
    recorded = bugs.data()
    assert [bug["name"] for bug in recorded["bugs"]] == [bug.name for bug in BUGS]
    for number in (2, 8):  # T² forgotten, labels without -100
        found, bug = recorded["bugs"][number], BUGS[number]
        for name, values in bugs.measured(bug.code).items():
            assert found[name] == pytest.approx(values, rel=2e-3), name
        assert found["caught_by"] == caught_by(bug.code)
    assert recorded["right"] == pytest.approx(bug_checks.training_curve(RIGHT), rel=2e-3)


def test_the_gradients_are_compared_as_vectors():
    assert gradients_beside_right(RIGHT, steps=2) == [pytest.approx((1, 1), abs=1e-12)] * 2
    student, teacher = Toy(1).eval(), Toy(0)  # at the start, by autograd alone
    vectors = []
    for code in (BUGS[11].code, RIGHT):
        loss = code.loss([code.answers(student, teacher, half) for half in bug_checks._halves()])
        parts = torch.autograd.grad(loss, list(student.parameters()))
        vectors.append(torch.cat([part.flatten() for part in parts]))
    wrong, right = vectors
    length, cosine = gradients_beside_right(BUGS[11].code, steps=1)[0]
    assert length == pytest.approx(float(wrong.norm() / right.norm()), rel=1e-9)
    assert cosine == pytest.approx(float(wrong @ right / wrong.norm() / right.norm()), rel=1e-9)


def test_losses_length_and_angle_are_those_of_the_record(figure):
    live, recorded = figure("bugs", "bug=6"), bugs.data()
    grip = live.page.locator("[role=slider]").last
    for number, key, step in ((6, "Home", 0), (0, "End", 59), (4, "PageDown", 49)):
        live.page.select_option('[data-key="bug"]', str(number))
        grip.press(key)
        live.settle()
        bug = recorded["bugs"][number]
        angle = round(math.degrees(math.acos(bug["cosine"][step])))
        assert live.state["step"] == step
        assert f"the loss is {bug['loss'][step]:.3g} with the bug" in live.status
        assert f"{recorded['right'][step]:.3g} without" in live.status
        assert f"{bug['length'][step]:.3g} times as long" in live.status
        assert f"{angle}° away" in live.status
        # The arrow: turned by the angle, and longer than the right one by the ratio.
        arrows = live.evaluate(
            """[...figure.body.querySelectorAll("g[transform*=rotate]")].map((g) =>
            [g.transform.baseVal[1].angle, Number(g.querySelector("path").getAttribute("d")
              .split("H")[1])])"""
        )
        assert arrows[0][0] == 0 and -arrows[1][0] == pytest.approx(angle, abs=0.5)
        assert arrows[1][1] / arrows[0][1] == pytest.approx(bug["length"][step], rel=1e-6)


def test_the_mark_is_dragged_along_the_curve(figure):
    live = figure("bugs", "step=0", width=360, dark=True)
    live.drag(live.page.locator("[role=slider]").last, by=100)
    width = live.evaluate("figure.body.querySelector('svg').clientWidth")
    # From 42 to 12 before the edge are 59 steps.
    assert live.state["step"] == pytest.approx(100 / (width - 54) * 59, abs=1)


@pytest.mark.parametrize("number", [7, 11])
def test_a_guess_is_judged_as_the_checks_judge(number, figure):
    live, caught = figure("bugs", f"bug={number}"), bugs.data()["bugs"][number]["caught_by"]
    assert "Right" not in live.status and "Wrong" not in live.status
    for name, check in CHECKS.items():
        live.page.select_option('[data-key="guess"]', name)
        verdict = "Wrong: it holds" if check(BUGS[number].code) else "Right: with this bug it does"
        assert verdict in live.status, name
        assert check.__doc__.strip() in live.status
        assert ("; ".join(caught) in live.status) == (name in caught)
    live.page.select_option('[data-key="bug"]', "1")  # another bug asks anew
    assert live.status and live.state["guess"] == ""
    assert "Right" not in live.status and "Wrong" not in live.status


def test_what_the_picture_says_of_its_numbers():
    recorded = bugs.data()
    for curve in (recorded["right"], recorded["bugs"][11]["loss"]):
        assert [f"{curve[i]:.1f}" for i in (0, -1)] == ["10.5", "4.2"]
    assert bugs.FIGURE.alt.count("10.5 to 4.2") == 2


def test_what_the_caption_says_of_reversed_kl():
    found, right = bugs.data()["bugs"][11], bugs.data()["right"]
    angles = [round(math.degrees(math.acos(found["cosine"][i]))) for i in (0, -1)]
    assert found["name"] == "reversed KL" and angles == [12, 44]
    assert max(abs(a - b) for a, b in zip(found["loss"], right, strict=True)) < 0.1
