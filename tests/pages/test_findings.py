"""What we found: every page that answers a question leads to the page that answers all of them.

Oracles: the records themselves, read here a second time by hand; pages that are planted to
contradict one another; and the pages of the book.
"""

import json
import re

import numpy as np
import pytest
from claims import PAGE, PHRASES, speaks_about, unlinked

from distil_lib.common.paths import PROJECT
from distil_lib.pages import findings, grid_results
from distil_lib.pages.finding_answers import Answer, Result
from distil_lib.pages.findings import FINDINGS, Finding, answers_of, contradictions

BY_NAME = {finding.name: finding for finding in FINDINGS}


def markdown_of(page):
    cells = json.loads(page.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


PAGES = {page.stem: markdown_of(page) for page in (PROJECT / "book").glob("*.ipynb")}
# What is handed out and shown first makes claims, too; its links begin in another folder.
for text in (PROJECT / "README.md", *(PROJECT / "book" / "teachers").glob("*.md")):
    PAGES[text.stem] = re.sub(r"\]\((\.\./|book/)", "](", text.read_text(encoding="utf-8"))


# ------------------------------------------------------------------------------ the pages
@pytest.mark.parametrize("page", sorted(PAGES.keys() - {PAGE}))
def test_a_page_that_answers_a_question_links_to_what_we_found(page):
    assert unlinked({page: PAGES[page]}) == []


def test_phrases_are_of_questions_that_there_are():
    assert PHRASES.keys() <= BY_NAME.keys()


def test_each_question_has_its_heading_and_each_page_links_to_one_that_is_there():
    headings = re.findall(r"^### (.*)$", PAGES[PAGE], re.M)
    assert headings == [finding.name for finding in FINDINGS]
    anchors = {finding.anchor for finding in FINDINGS}
    for page, text in PAGES.items():
        linked = set(re.findall(rf"\({PAGE}\.ipynb#([^)]*)\)", text))
        assert linked <= anchors, page


def test_each_answer_that_has_a_page_is_linked_from_its_section():
    sections = re.split(r"^### ", PAGES[PAGE], flags=re.M)[1:]
    for section, finding in zip(sections, FINDINGS, strict=True):
        for answer in answers_of(finding):
            assert not answer.page or f"({answer.page}.ipynb)" in section, finding.name


# --------------------------------------------------------------- what is found, if it is there
def planted(first=(0.1, 0.05, 0.15, 1), second=(-0.1, -0.15, -0.05, -1)):
    """A question on which two pages report the same comparison."""

    def both():
        return [
            Answer("09_long", "", "", 300, 5, {"tea minus coffee": Result(*first)}),
            Answer("02_short", "", "", 20, 3, {"tea minus coffee": Result(*second)}),
        ]

    return Finding("Tea or coffee", "Which?", "", both)


TEA = {"Tea or coffee": (r"(tea|coffee) is better",)}
SILENT = {"02_short": "We tried tea.", "09_long": "So did we.", "05_other": "Nothing of that."}


def test_a_planted_contradiction_is_found_whatever_the_pages_say():
    found = unlinked(SILENT, [planted()], TEA)
    assert [sentence.split()[0] for sentence in found] == ["02_short", "09_long"]
    assert all("Answers differ on: tea minus coffee." in sentence for sentence in found)


def test_a_link_to_the_question_reconciles_and_a_link_to_the_page_alone_does_not():
    exact = dict.fromkeys(SILENT, "See [what](what_we_found.ipynb#tea-or-coffee).")
    assert unlinked(exact, [planted()], TEA) == []
    vague = dict.fromkeys(SILENT, "See [what](what_we_found.ipynb).")
    assert len(unlinked(vague, [planted()], TEA)) == 2


@pytest.mark.parametrize(
    ("other", "contradicts"),
    [
        ((-0.1, -0.15, -0.05, -1), True),  # the other sign
        ((0.1, -0.05, 0.25, 0), True),  # an effect here, and open there
        ((0.3, 0.25, 0.35, 1), False),  # another size alone
    ],
)
def test_what_a_contradiction_is(other, contradicts):
    assert bool(contradictions(planted(second=other).answered())) == contradicts


def test_a_page_that_speaks_about_a_settled_question_needs_a_link_to_the_page():
    settled = planted(second=(0.2, 0.1, 0.3, 1))
    assert unlinked(SILENT, [settled], TEA) == []
    spoken = SILENT | {"05_other": "Here coffee\nis better by far."}
    (sentence,) = unlinked(spoken, [settled], TEA)
    assert sentence.startswith("05_other says 'coffee is better'")
    spoken["05_other"] += " [What we found](what_we_found.ipynb)"
    assert unlinked(spoken, [settled], TEA) == []


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("Temperature", "The released $T = 2$ is the best of the six with every seed."),
        ("Temperature", "$T = 4$ ends 0.019 nats nearer to the teacher."),
        ("Masked language modelling loss", "Without the true words it is nearer; no true words."),
        ("Soft targets", "A student without soft targets ends further from its teacher."),
        ("Which layers", "The `alternate` layers are 0.1 nats better."),
        ("Teacher and tasks", "With a teacher it is 5.63 points ahead of one without a teacher."),
        ("CPU time", "By arithmetic it is at most twice as fast."),
    ],
)
def test_sentences_that_speak_about_a_question(name, sentence):
    assert speaks_about(sentence, PHRASES[name])


# ------------------------------------------------------------------------------ the answers
def by_hand(record, figure, arm, reference):
    """Mean of the differences of a short run's figures, without the library."""
    path = PROJECT / "data" / "results" / "short_runs" / f"{record}.json"
    runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
    values = {(str(job[0]), job[1]): run[figure] for job, run in runs}
    return np.mean([values[arm, seed] - values[reference, seed] for seed in range(3)])


def test_short_answers_are_those_of_the_records():
    _, short = answers_of(BY_NAME["Temperature"])
    for t in (1, 4, 8):
        right = by_hand("temperature", "kl", str(t), "2")
        assert short.results[f"T = {t} minus T = 2"].mean == pytest.approx(right)
    *_, short = answers_of(BY_NAME["Masked language modelling loss"])
    right = by_hand("losses", "kl", "without $L_{mlm}$", "all three")
    assert short.results["no true words"].mean == pytest.approx(right) and right > 0


def test_the_grid_s_answers_are_those_of_its_records():
    folder, kl = PROJECT / "data" / "results" / "ablation", {}
    for path in folder.glob("*.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["training"]["steps"] in (300, 600) and record["arm"] in ("triple", "without-mlm"):
            kl[record["arm"], record["training"]["steps"], record["seed"]] = record["figures"]["kl"]
    answers = answers_of(BY_NAME["Masked language modelling loss"])
    for answer, steps, seeds in zip(answers, (300, 600), (5, 3), strict=False):
        d = [kl["without-mlm", steps, s] - kl["triple", steps, s] for s in range(seeds)]
        assert (answer.steps, answer.seeds) == (steps, seeds)
        assert answer.results["no true words"].mean == pytest.approx(np.mean(d))
        assert answer.results["no true words"].verdict == np.sign(np.mean(d)) == -1


def test_the_contradictions_of_the_book_are_known():
    """A new one has to be decided on the page, not only linked."""
    known = {f.name: len(contradictions(answers_of(f))) for f in FINDINGS}
    assert {name: n for name, n in known.items() if n} == {
        "Temperature": 2,
        "Cosine loss": 1,
        "Masked language modelling loss": 1,
        "Which layers": 3,
        "Teacher and tasks": 1,
    }


def test_tables_have_a_row_for_each_question_and_no_empty_cell():
    rows = [line.split(" | ") for line in findings.findings_table().splitlines()[2:]]
    assert len(rows) == len(FINDINGS) and {len(row) for row in rows} == {4}
    assert all(cell.strip("| ") for row in rows[:-1] for cell in row)
    assert findings.steps_table().count("steps:") >= 16


def test_the_rules_of_the_grid():
    assert len(grid_results.FOUR) == 4 and len(grid_results.searched()) == 15
    assert set(grid_results.ARM_NAMES) == set(grid_results.recorded_grid()[0].arms)
    steps = grid_results.finetuning_steps()
    assert steps == {  # rows / 32, rounded up, times epochs; a question has 4.4 windows
        "doc-acceptability": 94 * 3,
        "doc-package": 32 * 3,
        "doc-same": 32,
        "doc-signature": 32,
        "doc-near": 47 * 2,
        "doc-qa": 96 * 3,
    }
