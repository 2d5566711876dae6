"""The course: its problem sets with the reference solutions put in, its rubric, and its syllabus.

Oracles: PyTorch, scikit-learn, statsmodels and the library for what the solutions compute; the
pages for the minutes and numbers that the course repeats. Where the solutions were taken out, as
the syllabus says, what needs them is skipped.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch
from course_oracles import ORACLES
from page_form import read_page, unknown_numbers
from test_setup_and_packaging import ROOT, notebooks

from distil_lib.pages.exercises import Exercise, judge

TEACHERS = ROOT / "book" / "teachers"
KEPT = TEACHERS / "kept_apart"
WEEKS = (1, 2, 3)
POINTS = {1: 3, 2: 5, 3: 8}  # by stars
TITLE = re.compile(r"^## (\d\.\d) (.+?) (★+) \((\d+) points\)$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)#:]+)\)")
TIME = re.compile(r"\*\*Time:\*\* (\d+) minutes? to read")
needs_solutions = pytest.mark.skipif(not KEPT.is_dir(), reason="the solutions were taken out")


def notebook(week: int):
    return nbformat.read(TEACHERS / f"week_{week}.ipynb", as_version=4)


def text_of(path: Path) -> str:
    """The prose of a page or a notebook."""
    return read_page(path).markdown if path.suffix == ".ipynb" else path.read_text("utf-8")


def titles(week: int) -> dict[str, tuple[str, int, int]]:
    """{problem: title, stars, points}."""
    found = TITLE.findall(text_of(TEACHERS / f"week_{week}.ipynb"))
    return {number: (title, len(stars), int(points)) for number, title, stars, points in found}


PROBLEMS = [number for week in WEEKS for number in titles(week)]


@pytest.fixture(scope="module")
def grade():
    sys.path.insert(0, str(KEPT))
    import grade

    yield grade
    sys.path.remove(str(KEPT))


# --------------------------------------------------------------------------- pages and problem sets
@pytest.mark.parametrize("path", [p for p in TEACHERS.rglob("*") if p.suffix in (".md", ".ipynb")])
def test_links_lead_somewhere_and_the_licence_is_named(path):
    text = text_of(path)
    for link in LINK.findall(text):
        assert (path.parent / link).is_file(), link
    if path.parent.name != "slides":  # the decks name it on each slide
        assert "CC BY 4.0" in text
    assert "book/teachers/" in (ROOT / "LICENSE-prose").read_text()


def test_the_syllabus_repeats_the_minutes_of_the_pages():
    rows = re.findall(
        r"\]\(\.\./(\d\d_\w+\.ipynb)\) \| (\d+) \|", text_of(TEACHERS / "syllabus.md")
    )
    path = sorted(p.name for p in (ROOT / "book").glob("[0-9]*.ipynb"))
    assert [name for name, _ in rows] == path  # the whole main path, in its order
    for name, minutes in rows:
        assert TIME.search(text_of(ROOT / "book" / name))[1] == minutes, name


def test_the_page_to_hand_out_says_what_the_pages_say():
    text = text_of(TEACHERS / "one_page.md").partition("<style>")[0]
    chapters = set(LINK.findall(text)) - {"../what_we_found.ipynb"}  # it repeats what they say
    pages = [read_page(TEACHERS / link) for link in chapters]
    known = set().union(*(page.known_numbers for page in pages))
    assert len(pages) == 8
    assert unknown_numbers("of 0.7654 and 97.3%", known) == ["0.7654", "97.3"]
    text = re.sub(r"\([^()]*2019\)", "", text).replace("−", "-")
    assert unknown_numbers(text, known) == []


@pytest.mark.parametrize("week", WEEKS)
def test_a_problem_set_has_forty_points_and_a_place_for_each_answer(week):
    found = titles(week)
    assert all(points == POINTS[stars] for _, stars, points in found.values())
    assert sum(points for *_, points in found.values()) == 40
    assert {stars for _, stars, _ in found.values()} == {1, 2, 3}
    cells = {cell.id: cell for cell in notebook(week).cells}
    for number in found:
        name = number.replace(".", "-")
        assert "..." in cells[f"answer-{name}"].source and f"check-{name}" in cells
    first = notebooks.first_code_cell(notebook(week))
    assert first.source == notebooks.setup_cell().source, "run `make cells CHAPTER=...`"
    assert not any(cell.get("outputs") for cell in notebook(week).cells)


def test_the_solutions_are_on_no_page():
    contents = (ROOT / "_toc.yml").read_text()
    assert "kept_apart" not in contents
    assert "only_build_toc_files: true" in (ROOT / "_config.yml").read_text()
    if KEPT.is_dir():
        pages = [*(ROOT / "book").glob("**/*.ipynb"), *TEACHERS.glob("*.md")]
        said = "".join(path.read_text("utf-8") for path in pages)
        for path in KEPT.glob("solutions*.md"):
            for code in re.findall(r"```python\n(.*?)```", path.read_text("utf-8"), re.DOTALL):
                longest = max(code.splitlines(), key=len).strip()
                assert json.dumps(longest)[1:-1] not in said and longest not in said


def test_the_copy_for_the_class_is_without_solutions():
    """The command of the syllabus, typed."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("no repository")
    (command,) = re.findall(r"^\$ (git archive .+) \| tar", text_of(TEACHERS / "syllabus.md"), re.M)
    packed = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, check=True).stdout
    names = subprocess.run(["tar", "-t"], input=packed, capture_output=True, check=True).stdout
    assert b"for_the_class/book/teachers/week_1.ipynb" in names and b"kept_apart" not in names


# --------------------------------------------------------------------------------------- solutions
@pytest.fixture(scope="module")
def solved(grade):
    """{week: what the notebook defines with the reference solutions put in}."""
    return {week: grade.reference(week) for week in WEEKS}


@needs_solutions
@pytest.mark.parametrize("number", PROBLEMS)
def test_a_solution_is_right_and_an_empty_place_is_noticed(grade, solved, number):
    week = int(number[0])
    values = solved[week]
    assert grade.verdict(grade.problems(week)[number], values, values) == "Right."
    torch.manual_seed(0)
    found, right = ORACLES[number](values)
    if isinstance(right[0] if isinstance(right, list) else right, str):
        assert found == right
    else:
        assert judge(Exercise(right, tolerance=1e-4), found) == "Right."

    # The participant's own check passes with the answer, and fails without it.
    name = number.replace(".", "-")
    own = dict(grade.sources(notebook(week)))
    exec(own[f"check-{name}"], dict(values))
    blank = dict(values)
    exec(own[f"answer-{name}"], blank)
    with pytest.raises(AssertionError, match=f"Problem {number} has no answer yet"):
        exec(own[f"check-{name}"], blank)
    assert grade.verdict(grade.problems(week)[number], blank, values) == "No answer."


@needs_solutions
@pytest.mark.parametrize("number", PROBLEMS)
def test_each_known_mistake_gets_its_own_hint(grade, solved, number):
    problem, values = grade.problems(int(number[0]))[number], solved[int(number[0])]
    assert len(problem.mistakes) >= 2
    right = grade.looked_at(problem, values)
    known = grade.mistakes(problem, right)
    for hint, mistake in known.items():
        said = judge(Exercise(right, known, problem.inputs), mistake)
        assert said == f"Not yet. {hint}", hint


@needs_solutions
def test_the_rubric_has_an_entry_for_each_problem_and_its_points_add_up(grade):
    rubric = grade.rubric()
    assert list(rubric) == PROBLEMS
    text = (KEPT / "rubric.md").read_text("utf-8")
    for week in WEEKS:
        for number, (title, stars, points) in titles(week).items():
            assert f"## {number} {title} ({points} points)\n" in text
            assert sum(row[0] for row in rubric[number]) == points
            assert any(who == "program" for _, who, _ in rubric[number])
            asks_for_words = "words_" in next(
                c.source for c in notebook(week).cells if c.id == f"answer-{number[0]}-{number[2]}"
            )
            assert asks_for_words == (stars == 3)
            assert not asks_for_words or any(who == "reader" for _, who, _ in rubric[number])


@needs_solutions
def test_what_is_no_problem_set_is_not_graded(grade, tmp_path, monkeypatch, capsys):
    other = tmp_path / "other.ipynb"
    nbformat.write(nbformat.v4.new_notebook(), other)
    gone = tmp_path / "gone.ipynb"
    monkeypatch.setattr(sys, "argv", ["grade.py", str(other), str(gone)])
    assert grade.main() == 2
    said = capsys.readouterr().err
    assert f"{other}: not graded. This is no problem set." in said
    assert f"{gone}: not graded." in said


@needs_solutions
@pytest.mark.slow
def test_a_notebook_is_graded_in_a_kernel_of_its_own(grade, tmp_path, monkeypatch, capsys):
    """All answers but two: one is missing, one has a known mistake."""
    handed_in = grade.solved(notebook(1), blank=["1.2"])
    cells = {cell.id: cell for cell in handed_in.cells}
    cells["answer-1-4"].source = cells["answer-1-4"].source.replace(" / len(s)", "")
    cells["answer-1-1"].source = "%matplotlib inline\n" + cells["answer-1-1"].source
    nbformat.write(handed_in, tmp_path / "ana.ipynb")
    monkeypatch.setattr(sys, "argv", ["grade.py", str(tmp_path / "ana.ipynb")])
    assert grade.main() == 0
    said = capsys.readouterr().out
    assert "problem set 1, 23 of 31 points by the program; up to 9 more" in said
    assert "1.2  0 of 3  No answer." in said
    assert "1.4  0 of 5  Not yet. The mean over the tokens is missing" in said
    assert "1.7  4 of 4  Right.  Reader: 2 + 2." in said
