"""Who gets asked: chances, draws and coverage are those of the library's `DynamicMasking`."""

import json
import re
from functools import cache

import numpy as np
import pytest
import torch
from figures_harness import needs_browser

from distil_lib.common.paths import data_folder
from distil_lib.masking import DynamicMasking
from distil_lib.pages.figures import asked
from distil_lib.text.tokenizer import load_tokenizer

EPOCHS = 2000


@cache
def block():
    recorded = json.loads(asked.RECORD.read_text(encoding="utf-8"))
    return load_tokenizer(data_folder("tokenizer")), recorded


@cache
def masked_by_the_library(share: float, smoothing: float) -> np.ndarray:
    """(EPOCHS, tokens that can be masked) bool."""
    tokenizer, recorded = block()
    counts = np.ones(len(tokenizer))
    counts[recorded["ids"]] = recorded["counts"]
    masking = DynamicMasking(tokenizer, share, smoothing, seed=1, counts=counts)
    ids = torch.tensor(recorded["ids"]).repeat(EPOCHS, 1)
    chosen = masking(ids, [3] * EPOCHS, list(range(EPOCHS))).labels != -100
    return chosen[:, 1:-1].numpy()  # without [CLS] and [SEP]


def test_the_record_is_a_block_of_the_corpus():
    tokenizer, recorded = block()
    assert tokenizer.convert_ids_to_tokens(recorded["ids"]) == recorded["tokens"]
    assert len(recorded["ids"]) == 64 and min(recorded["counts"]) > 0
    # The page of chapter 6 asserts that its block and its counts are these.


@needs_browser
@pytest.mark.parametrize("share, smoothing", [(0.2, 0.0), (0.2, 0.7), (0.4, 1.5)])
def test_chances_and_coverage_are_the_librarys(share, smoothing, figure):
    chosen = masked_by_the_library(share, smoothing)
    live = figure("asked", f"share={share}&smoothing={smoothing}&epochs=4")
    said = live.evaluate("[...figure.body.querySelectorAll('p [title]')].map((e) => e.title)")
    assert said[0].endswith("never masked") and said[-1].endswith("never masked")
    chances = [float(re.search(r"chance ([\d.]+)%", each)[1]) / 100 for each in said[1:-1]]
    # 2,000 epochs know a chance to 0.011, and the figure's formula is right to 0.02.
    assert np.abs(np.array(chances) - chosen.mean(0)).max() < 0.045
    assert sum(chances) == pytest.approx(share * 62, abs=0.05)
    expected = chosen.reshape(-1, 4, 62).any(1).mean()
    shown = float(re.search(r"expected ([\d.]+)%", live.status)[1]) / 100
    assert shown == pytest.approx(expected, abs=0.02)
    if not smoothing:
        assert shown == pytest.approx(asked.coverage(share, 4), abs=6e-4)


@needs_browser
def test_smoothing_slows_coverage_as_the_caption_says(figure):
    chosen = masked_by_the_library(0.2, 0.7)[: EPOCHS // 3 * 3]
    live = figure("asked", "smoothing=0.7")  # 20% and 3 epochs, as in the beginning
    assert "expected 37.0%" in live.status
    assert chosen.reshape(-1, 3, 62).any(1).mean() == pytest.approx(0.37, abs=0.01)


@needs_browser
def test_what_is_drawn_follows_the_chances(figure):
    live = figure("asked", "share=0.2&smoothing=0.7&epochs=1")
    drawn = live.evaluate(
        """(async () => {
        const found = [];
        for (let seed = 0; seed < 120; seed++) {
          figure.set({ seed });
          await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
          found.push([...figure.body.querySelectorAll("p [title]")]
            .map((e) => e.localName === "mark"));
        }
        return found;
        })()"""
    )
    drawn, expected = np.array(drawn), masked_by_the_library(0.2, 0.7).mean(0)
    assert not drawn[:, [0, -1]].any()
    assert set(drawn.sum(1)) == {12, 13}  # 12.4, rounded by chance
    spread = np.sqrt(expected * (1 - expected) / 120) + 0.011
    assert (np.abs(drawn[:, 1:-1].mean(0) - expected) < 4.5 * spread).all()


@needs_browser
def test_epochs_are_dragged_and_the_dots_follow(figure):
    live = figure("asked", width=360, dark=True)
    slider = live.page.locator('[data-key="epochs"]')
    slider.press("ArrowRight")
    assert live.status.startswith("After 4 epochs") and live.state["epochs"] == 4
    live.drag_slider("epochs", 1)
    assert live.state["epochs"] == 20 and "epochs=20" in live.page.url
    marked = live.evaluate(
        "[...figure.body.querySelectorAll('p [title]')].filter((e) =>"
        " e.localName === 'mark' || e.className === 'before').length"
    )
    assert f"{marked / 62:.1%} of 62 tokens" in live.status
    live.page.get_by_role("button").press("Enter")
    live.settle()
    assert live.state["seed"] == 1


def test_what_the_picture_says_of_its_numbers():
    for share, epochs in ((0.2, 3), (0.2, 20), (0.15, 3), (0.15, 20)):
        assert f"{asked.coverage(share, epochs):.1%}" in asked.FIGURE.alt
