"""Chapter 2's figure against PyTorch: both distributions, their measures, the gradient."""

import numpy as np
import pytest
import torch
from figures_harness import needs_browser, number
from scipy.special import softmax
from scipy.stats import entropy

from distil_lib import soft_target_loss
from distil_lib.export.browser import stored_model
from distil_lib.pages.answers import SENTENCE, leading, logits
from distil_lib.pages.figures import temperature

pytestmark = needs_browser
OTHER = "Return the ___ of the array along the given axis."


def expected(text: str, T: float) -> tuple[dict[str, list[float]], list[float]]:
    """What the table of words and that of measures hold, by PyTorch and SciPy."""
    both = [logits(name, text).astype(np.float64) for name in ("teacher", "student")]
    t, s = (softmax(z / T) for z in both)
    z = torch.tensor(both[1][None], requires_grad=True)
    soft_target_loss(z, torch.tensor(both[0][None]), temperature=T).backward()
    pull = -z.grad[0].numpy()
    words = leading(both, temperature.WORDS)
    rest = np.setdiff1d(np.arange(len(t)), words)
    columns = (t, s, pull, pull / T**2)
    names = stored_model("teacher")[1].convert_ids_to_tokens(words)
    rows = {name: [x[w] for x in columns] for name, w in zip(names, words, strict=True)}
    rows[f"the other {len(rest):,} words"] = [x[rest].sum() for x in columns]
    kl, norm = entropy(t, s), np.linalg.norm(pull)
    return rows, [entropy(t), entropy(s), kl, T**2 * kl, norm, norm / T**2]


def shown(live) -> tuple[dict[str, list[float]], list[float]]:
    rows, measures = live.evaluate(
        """[...figure.body.querySelectorAll("table")].map((table) => [...table.rows].slice(1).map(
        (row) => [...row.querySelectorAll(":scope > th, span, :scope > td:not(:has(div))")]
        .map((cell) => cell.textContent)))"""
    )
    return (
        {name: [number(x) for x in cells] for name, *cells in rows},
        [number(now) for _, now, _ in measures],
    )


def agrees(live, text: str, T: float) -> bool:
    """As exact as it is shown: shares to half a point or a tenth, the others to three digits."""
    (rows, measures), (wanted, numbers) = shown(live), expected(text, T)
    return (
        list(rows) == list(wanted)
        and all(np.allclose(rows[w][:2], wanted[w][:2], rtol=0.06, atol=6e-4) for w in rows)
        and all(np.allclose(rows[w][2:], wanted[w][2:], rtol=0.06, atol=3e-7) for w in rows)
        and np.allclose(measures, numbers, rtol=0.03)
    )


def test_each_number_is_that_of_pytorch_at_every_temperature(figure):
    live = figure("temperature")
    assert agrees(live, SENTENCE, 2)
    for T in (0.5, 1, 8, 64):
        live.evaluate(f"figure.set({{ T: {T} }})")
        live.settle()
        assert agrees(live, SENTENCE, T), T
    assert not agrees(live, SENTENCE, 32)  # it would be noticed
    assert not live.evaluate("Boolean(Figures.loaded.teacher)")  # recorded: no model has run


def test_a_sentence_of_ones_own_and_one_without_a_blank(figure):
    live = figure("temperature", "T=4", models=True)
    live.type("text", OTHER)
    assert agrees(live, OTHER.replace("___", "[MASK]"), 4)
    live.type("text", "No blank.")
    assert "There is no blank" in live.status
    live.type("text", SENTENCE)
    assert agrees(live, SENTENCE, 4) and live.status.startswith("T = 4: the teacher gives")


@pytest.mark.parametrize("width, dark", [(1200, False), (360, True)])
def test_it_is_driven_by_mouse_and_keyboard(width, dark, figure):
    live = figure("temperature", width=width, dark=dark)
    live.drag_slider("T", 1)
    assert live.state["T"] == 64 and live.status.startswith("T = 64")
    live.slide("T", "Home")
    assert live.state["T"] == 0.25 and "multiplied by 16" in live.status
    handle = live.page.locator("svg [role=slider]")
    box = live.page.locator("svg .axis").first.bounding_box()  # from T = 1/4 to 64
    live.drag(handle, box["x"] + box["width"] / 2)
    assert live.state["T"] == pytest.approx(4, rel=0.1)
    handle.press("End")
    live.settle()
    assert live.state["T"] == 64 and handle.get_attribute("aria-valuetext") == "T = 64"


def test_what_the_picture_says():
    (rows, _), alt = expected(SENTENCE, 2), temperature.FIGURE.alt
    first, *_, rest = rows.values()
    assert f"“{next(iter(rows))}” has {first[0]:.1%} by the teacher and {first[1]:.1%}" in alt
    assert f"{rest[0]:.0%} and {rest[1]:.0%}" in alt and [*rows][-1] in alt.replace("  ", " ")
    assert [x[0] for x in rows.values()][:-1] == sorted(
        (x[0] for x in [*rows.values()][:-1]), reverse=True
    )
