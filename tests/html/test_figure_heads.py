"""Chapter 3's figure against the attentions of `transformers`."""

import numpy as np
import pytest
from figures_harness import needs_browser, number

from distil_lib.common.paths import PROJECT
from distil_lib.pages.answers import SENTENCE, attentions
from distil_lib.pages.figures import heads

pytestmark = needs_browser
OTHER = "Return the mean of the array along the given axis."


def shares(live) -> list[np.ndarray]:
    """Of teacher and student, (layers, heads, L, L)."""
    heads = live.evaluate(
        "figure.answer.shares.map((model) => model.map((head) => head.map((row) => [...row])))"
    )
    return [np.array(x).reshape(-1, 4, *np.shape(x)[1:]) for x in heads]


def rows(live) -> np.ndarray:
    """(L, 2): the table under the token that looks."""
    cells = live.evaluate(
        """[...figure.body.querySelectorAll("tbody tr")].map((row) =>
        [...row.querySelectorAll("span")].map((cell) => cell.textContent))"""
    )
    return np.array([[number(x) for x in row] for row in cells])


def table(text: str, teacher: int, student: int, token: int) -> np.ndarray:
    """What the table should hold, for heads that are counted through all layers."""
    both = [attentions(name, text) for name in heads.MODELS]
    chosen = [x.reshape(-1, *x.shape[2:])[n] for x, n in zip(both, (teacher, student), strict=True)]
    return np.stack([x[token] for x in chosen], axis=1)


def test_recorded_and_live_shares_are_those_of_transformers(figure):
    live = figure("heads", models=True)
    for mine, name in zip(shares(live), heads.MODELS, strict=True):  # recorded in bytes
        assert np.abs(mine - attentions(name, SENTENCE)).max() < 0.5 / 255 + 1e-6
    assert not live.evaluate("Boolean(Figures.loaded.teacher)")
    live.type("text", OTHER)  # without a blank, which this figure does not need
    for mine, name in zip(shares(live), heads.MODELS, strict=True):
        theirs = attentions(name, OTHER)
        assert mine.shape == theirs.shape and np.allclose(mine.sum(-1), 1, atol=1e-5)
        assert np.abs(mine - theirs).max() < 1e-4
    assert np.allclose(rows(live), table(OTHER, 8, 4, 9), atol=8e-3)
    assert not np.allclose(rows(live), table(OTHER, 8, 5, 9), atol=8e-3)


@pytest.mark.parametrize("width, dark", [(1200, False), (360, True)])
def test_heads_and_tokens_are_chosen_by_mouse_and_keyboard(width, dark, figure):
    live = figure("heads", width=width, dark=dark)
    teacher, student, token = (
        live.page.locator(".drag-body [role=radiogroup]").nth(n) for n in range(3)
    )
    teacher.get_by_role("radio").nth(8).press("ArrowDown")  # one layer higher
    student.get_by_role("radio").nth(3).click()
    last = token.get_by_role("radio").last.bounding_box()
    live.drag(token.get_by_role("radio").nth(9), last["x"] + 5, last["y"] + 5)
    assert live.state | {"text": ""} == {"text": "", "teacher": 12, "student": 3, "token": 13}
    live.page.keyboard.press("ArrowLeft")
    live.settle()
    assert np.allclose(rows(live), table(SENTENCE, 12, 3, 12), atol=8e-3)
    assert np.allclose(live.bars(), table(SENTENCE, 12, 3, 12).flatten(), atol=3e-3)
    assert live.status.startswith("“.” looks: the teacher’s head 0 of layer 3 mostly to")
    checked = live.page.locator(".drag-body [aria-checked=true]")
    assert [x.get_attribute("tabindex") for x in checked.all()] == ["0"] * 3


def test_the_student_was_copied_as_the_figure_says():
    recorded = (PROJECT / "data" / "student" / "config.yaml").read_text(encoding="utf-8")
    assert "init_layers: spread" in recorded and heads.FIGURE.data()["copied"] == [0, 2, 5]


def test_what_a_head_looks_at_is_said(figure):
    """The largest of five means, by NumPy."""
    live = figure("heads")
    for name in heads.MODELS:
        for layer, head in [(0, 1), (1, 2), (2, 0)]:
            x = attentions(name, SENTENCE)[layer, head]
            n = len(x)
            means = {
                "itself": np.trace(x) / n, "the token before": np.trace(x, -1) / n,
                "the token after": np.trace(x, 1) / n, "[CLS]": x[:, 0].mean(),
                "[SEP]": x[:, -1].mean(),
            }  # fmt: skip
            most = max(means, key=means.get)
            said = live.page.get_attribute(
                f'[aria-label^="{name}, layer {layer}, head {head}:"]', "aria-label"
            )
            assert said.split(": ")[1].rpartition(" ")[0] == most
            assert number(said.rpartition(" ")[2]) == pytest.approx(means[most], abs=8e-3)
