"""Chapter 1's figure against torch: losses, gradients of labels, bars that stay distributions."""

import numpy as np
import pytest
import torch
from figures_harness import needs_browser
from torch.nn.functional import cross_entropy

from distil_lib import soft_target_loss
from distil_lib.pages.figures import labels

pytestmark = needs_browser
T = torch.tensor(labels.TEACHER, dtype=torch.float64)
S = torch.tensor(labels.STUDENT, dtype=torch.float64)


def bar(live, name: str):
    return live.page.locator(f'[role=slider][aria-label="{name}"]')


def gradient(loss, s) -> np.ndarray:
    """Of loss(logits) in the student's logits."""
    z = s.log().requires_grad_()
    return torch.autograd.grad(loss(z), z)[0].numpy()


def drawn_labels(live, t, n: int, seed: int) -> torch.Tensor:
    """The labels that the page's random numbers choose: the inverse of the cumulated teacher."""
    numbers = live.evaluate(
        f"(() => {{ const r = Figures.random({seed}); "
        f"return Array.from({{ length: {n} }}, r); }})()"
    )
    return torch.tensor(np.searchsorted(np.cumsum(t.numpy()), numbers, side="right"))


@pytest.mark.parametrize(
    "t, s", [(T, S), (torch.tensor([0.0, 1, 0, 0]).double(), torch.tensor([0.1, 0.2, 0.3, 0.4]))]
)
def test_the_ruler_is_entropy_plus_kl(t, s, figure):
    s = s.double()
    state = "&".join(f"{k}={','.join(map(str, p.tolist()))}" for k, p in (("t", t), ("s", s)))
    live = figure("labels", state)
    own = -torch.special.xlogy(t, t).sum()
    kl = soft_target_loss(s.log(), t.log().clamp(min=-1e4), temperature=1.0)
    shown = live.evaluate("figure.shown")
    assert [shown["entropy"], shown["kl"]] == pytest.approx([own.item(), kl.item()], abs=1e-9)
    assert shown["cross"] == pytest.approx(cross_entropy(s.log(), t).item(), abs=1e-9)
    assert f"remove {kl:.3f} of {own + kl:.3f} nats" in live.status
    widths = live.page.locator(".drag-body [role=img] > span").evaluate_all(
        "all => all.map((e) => e.getBoundingClientRect().width)"
    )
    assert widths[0] / sum(widths) == pytest.approx((own / (own + kl)).item(), abs=0.02)


@pytest.mark.parametrize("width, dark", [(1265, False), (360, True)])
def test_a_bar_that_is_dragged_leaves_a_distribution(width, dark, figure):
    live = figure("labels", width=width, dark=dark)
    bar(live, "student: exception").scroll_into_view_if_needed()
    box = bar(live, "student: exception").bounding_box()
    live.drag(bar(live, "student: exception"), y=box["y"] + 0.4 * box["height"])
    first, *others = live.state["s"]
    assert first == pytest.approx(1 - (20 + 0.4 * 141 - 22) / 138, abs=0.02)
    assert others == pytest.approx([(1 - first) / 3] * 3, abs=1e-9)
    bar(live, "teacher: error").press("ArrowUp")
    bar(live, "teacher: error").press("PageUp")
    live.settle()
    first, second, *others = live.state["t"]
    assert second == pytest.approx(0.36) and others == pytest.approx([0.64 / 6] * 2)
    assert first == pytest.approx(0.64 * 2 / 3)  # in proportion, as before
    assert bar(live, "teacher: error").get_attribute("aria-valuetext") == "36%"
    for key in "Home", "End":  # a teacher without doubt, and back
        bar(live, "teacher: error").press(key)
    live.settle()
    assert live.state["t"] == [0, 1, 0, 0] and sum(live.state["s"]) == pytest.approx(1)


def test_the_mean_gradient_of_labels_settles_on_the_soft_one(figure):
    live = figure("labels", "seed=7")
    live.page.emulate_media(reduced_motion="reduce")
    assert live.evaluate("figure.shown.mean") == []
    for button in ("Draw 1 label", "Draw 10 labels", "Draw 100 labels"):
        live.page.click(f"text={button}")
        live.settle()
        n = live.state["n"]
        drawn, shown = drawn_labels(live, T, n, 7), live.evaluate("figure.shown")
        hard = gradient(lambda z: cross_entropy(z.expand(n, 4), drawn), S)  # noqa: B023
        last = gradient(lambda z: cross_entropy(z, drawn[-1]), S)  # noqa: B023
        assert shown["mean"] == pytest.approx(hard) and shown["last"] == pytest.approx(last)
        assert f"of {n} label" in live.status and f"{shown['away']:.2f} away" in live.status
    assert live.page.url.endswith("n=111&seed=7")
    live = figure("labels", "n=10000&seed=7")
    shown = live.evaluate("figure.shown")
    soft = gradient(lambda z: soft_target_loss(z, T.log(), temperature=1.0), S)
    assert shown["soft"] == pytest.approx(soft)
    # Equation eq-01-noise: the squared error of one label is 1 - sum of t^2, that of n an nth.
    assert shown["typical"] == pytest.approx(((1 - T.square().sum().item()) / 10000) ** 0.5)
    assert np.linalg.norm(np.array(shown["mean"]) - soft) < 3 * shown["typical"] < 0.03


def test_labels_come_one_after_the_other_where_motion_is_welcome(figure):
    live = figure("labels", "seed=7")
    live.page.emulate_media(reduced_motion="no-preference")
    live.page.clock.install(time=0)
    live.page.clock.pause_at(60)  # seconds; from here on time passes when the test says so
    live.page.click("text=Draw 100 labels")
    live.page.clock.run_for(300)
    few = np.array(live.evaluate("figure.shown.mean"))
    assert live.state["n"] == 100  # the address is right at once
    live.page.clock.run_for(2000)
    drawn = drawn_labels(live, T, 100, 7)
    hard = gradient(lambda z: cross_entropy(z.expand(100, 4), drawn), S)
    assert live.evaluate("figure.shown.mean") == pytest.approx(hard)
    assert len(few) == 4 and not np.allclose(few, hard)
    live.page.close()  # its clock stands still


def test_the_static_picture_says_what_its_alt_text_says():
    own, cross = -(T * T.log()).sum(), -(T * S.log()).sum()
    for number in (own, cross - own, cross):
        assert f"{number:.3f}" in labels.FIGURE.alt
