"""The first page's box against PyTorch: words, shares, errors, and what comes without models."""

import re

import pytest
from figures_harness import needs_browser, number

from distil_lib.export.browser import stored_model
from distil_lib.pages import figures
from distil_lib.pages.figures import fill_in

pytestmark = needs_browser


def tables(live) -> list[dict[str, float]]:
    """Of teacher and student, each word with its share."""
    found = live.evaluate(
        """[...figure.body.querySelectorAll("tbody")].map((body) => [...body.rows].map((row) =>
        [row.querySelector("th").textContent, row.querySelector("span").textContent]))"""
    )
    return [{word: number(share) for word, share in rows} for rows in found]


def agrees(live, text: str) -> bool:
    """The same words in the same order, with the same shares as far as they are shown."""
    wanted, bars = fill_in.answers(text), iter(live.bars())
    return all(
        list(mine) == [word for word, _ in rows]
        and [*mine.values()] == pytest.approx([p for _, p in rows], abs=6e-3)
        and [next(bars) for _ in rows] == pytest.approx([p for _, p in rows], abs=1e-3)
        for mine, rows in zip(tables(live), wanted, strict=True)
    )


def until_measured(live, said: str = "median") -> None:
    live.page.get_by_role("status").filter(has_text=said).wait_for()
    live.settle()


@pytest.mark.parametrize("width, dark", [(1265, False), (375, True)])
def test_a_reader_fills_a_blank(width, dark, figure):
    live = figure("fill_in", width=width, dark=dark, models=True)
    assert agrees(live, fill_in.TEXTS[0]) and live.status.startswith("Recorded")
    assert not live.evaluate("Boolean(Figures.loaded.teacher)")  # nothing has run yet
    live.page.get_by_role("button", name="Return the").click()
    until_measured(live)
    assert agrees(live, fill_in.TEXTS[2]) and not agrees(live, fill_in.TEXTS[0])
    tokens = len(stored_model("teacher")[1](fill_in.TEXTS[2])["input_ids"])
    assert live.status.startswith(f"For {tokens} tokens on this device, the teacher says “mean”")
    assert len(re.findall(r"says “\w+” in \d+ ms", live.status)) == 2
    text = 'A [MASK] is returned if <b>x</b> & y are "equal".'
    live.page.fill("[data-key=text]", text.replace("[MASK]", "___"))
    live.page.get_by_role("button", name="Fill the blank").press("Enter")
    until_measured(live)
    assert agrees(live, text) and "text=A+___+is" in live.page.url


def test_a_text_that_cannot_be_filled_is_answered_with_a_sentence(figure):
    live = figure("fill_in", models=True)
    for text, said in (
        ("No blank.", "There is no blank"),
        ("A [MASK] and a [mask].", "There are 2 blanks"),
        ("word " * 70 + "[MASK]", "too long: 73 tokens"),
    ):
        live.page.fill("[data-key=text]", text)
        live.page.press("[data-key=text]", "Enter")
        until_measured(live, said)
        assert live.page.get_attribute("[data-key=text]", "aria-invalid") == "true"
        assert live.evaluate("figure.body.getAttribute('aria-busy')") == "true"  # dimmed
    live.page.get_by_role("button", name="The capital").click()  # and it still works
    until_measured(live)
    assert live.page.get_attribute("[data-key=text]", "aria-invalid") == "false"
    assert agrees(live, fill_in.TEXTS[4])


def test_without_the_models_examples_are_answered_and_others_told_how(figure):
    live = figure("fill_in")
    live.page.get_by_role("button", name="The capital").click()
    until_measured(live, "models=True")
    assert agrees(live, fill_in.TEXTS[4])
    live.page.fill("[data-key=text]", "A ___ of mine.")
    live.page.press("[data-key=text]", "Enter")
    until_measured(live, 'run drag("fill_in", models=True): it adds both models, 16 MB')
    assert live.evaluate("figure.body.getAttribute('aria-busy')") == "true"


def test_missing_weights_are_reported_and_asked_for_again(browser, tmp_path):
    for file in ("figures.js", "figure_fill_in.js", "fill_mask.js"):
        (tmp_path / file).write_bytes((figures.STATIC / file).read_bytes())
    (tmp_path / "figure_fill_in_data.js").write_text(figures.data_script("fill_in"), "utf-8")
    student, teacher = (stored_model(name)[2] for name in ("student", "teacher"))
    (tmp_path / "fill_mask_teacher.js").write_text(teacher, "ascii")
    page = tmp_path / "page.html"
    page.write_text(figures.element("fill_in") + '<script src="figures.js"></script>', "utf-8")
    window = browser.window()
    window.page.goto(page.as_uri())
    fill = window.page.get_by_role("button", name="Fill the blank")
    fill.click()
    status = window.page.get_by_role("status")
    status.filter(has_text="fill_mask_student.js could not be loaded").wait_for()
    (tmp_path / "fill_mask_student.js").write_text(student, "ascii")
    fill.click()
    status.filter(has_text="median").wait_for()
    window.page.context.close()


def test_what_the_picture_says():
    (first, second), alt = fill_in.answers(fill_in.TEXTS[0]), fill_in.FIGURE.alt
    assert fill_in.TEXTS[0] in alt
    assert [(word, f"{p:.0%}") for word, p in first[:2]] == [("value", "63%"), ("none", "5%")]
    assert "value 63%, none 5%, backend, name and implementation less" in alt
    assert [word for word, _ in first[2:]] == ["backend", "name", "implementation"]
    assert (second[0][0], f"{second[0][1]:.0%}") == ("value", "85%") and "value 85%" in "".join(alt)
    assert [word for word, _ in second[1:]] == ["parameter", "dtype", "option", "argument"]
    assert {f"{p:.0%}" for _, p in second[1:]} == {"1%"} and "1% each" in alt
