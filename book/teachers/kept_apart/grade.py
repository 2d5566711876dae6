"""The points that a program can give for the problem sets.

    python book/teachers/kept_apart/grade.py handed_in/*.ipynb
    python book/teachers/kept_apart/grade.py --solve solved     # the three sets, with answers

It runs each notebook, the participants' code included: use an account that may lose its files. What
is right is what the reference solutions beside this file give in the same notebook.
"""

import argparse
import copy
import functools
import importlib
import json
import re
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from problem import Problem, Values

from distil_lib.errors import UserError
from distil_lib.pages.exercises import Exercise, judge

HERE = Path(__file__).resolve().parent
SETUP = "set-up"  # the id of the cell that installs the library
ENTRY = re.compile(
    r"^## (\d\.\d) ([^\n]+) \((\d+) points\)$(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL
)
ROW = re.compile(r"^\| (\d+) \| (program|reader): (.+) \|$", re.MULTILINE)


def notebook_of(week: int) -> NotebookNode:
    """The problem set as it is handed out."""
    return nbformat.read(HERE.parent / f"week_{week}.ipynb", as_version=4)


def week_of(notebook: NotebookNode) -> int:
    """Which problem set a notebook is."""
    title = re.match(r"# Problem set (\d)", notebook.cells[0].source) if notebook.cells else None
    if title is None:
        raise UserError(
            "This is no problem set.", "Its first line is '# Problem set' and a number."
        )
    return int(title[1])


def solutions(week: int) -> dict[str, str]:
    """{problem: the code of its full answer}."""
    text = (HERE / f"solutions_week_{week}.md").read_text(encoding="utf-8")
    found = re.findall(r"^## (\d\.\d)\n.*?^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return dict(found)


def problems(week: int) -> dict[str, Problem]:
    """{problem: how its answer is compared}."""
    return importlib.import_module(f"problems_week_{week}").PROBLEMS


def rubric() -> dict[str, list[tuple[int, str, str]]]:
    """{problem: its rows (points, "program" or "reader", for what)}."""
    text = (HERE / "rubric.md").read_text(encoding="utf-8")
    return {
        entry[1]: [(int(points), who, what) for points, who, what in ROW.findall(entry[4])]
        for entry in ENTRY.finditer(text)
    }


def solved(notebook: NotebookNode, blank: Collection[str] = ()) -> NotebookNode:
    """A problem set with the reference solutions in its answer cells, but for some problems."""
    notebook, answers = copy.deepcopy(notebook), solutions(week_of(notebook))
    for cell in notebook.cells:
        number = cell.id.removeprefix("answer-").replace("-", ".")
        if number in answers and number not in blank:
            cell.source = answers[number].rstrip()
    return notebook


def sources(notebook: NotebookNode) -> Iterator[tuple[str, str]]:
    """(id, source) of the code cells, without the one that installs the library."""
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.id != SETUP:
            yield cell.id, cell.source


@functools.cache
def reference(week: int) -> Values:
    """What the notebook defines if all answers are right."""
    values: Values = {}
    for name, source in sources(solved(notebook_of(week))):
        exec(compile(source, name, "exec"), values)
    return values


def looked_at(problem: Problem, values: Values) -> Any:
    """What is compared of a notebook's values: a function, or the values of its names."""
    if problem.seen:
        return problem.seen(values)
    if problem.inputs:
        return values[problem.names[0]]
    return [values[name] for name in problem.names]


def mistakes(problem: Problem, right: Any) -> dict[str, Any]:
    """{hint: what this mistake gives}, where this is what is right."""
    return {
        hint: made(right) if problem.inputs is None and callable(made) else made
        for hint, made in problem.mistakes.items()
    }


def verdict(problem: Problem, mine: Values, reference: Values) -> str:
    """What is to be said of an answer: "Right.", or what is wrong."""
    if any(mine.get(name, ...) is ... for name in problem.names):
        return "No answer."
    try:
        if problem.inputs and mine[problem.names[0]](*problem.inputs()[0]) is None:
            return "No answer."
        attempt = looked_at(problem, mine)
    except Exception as error:  # of an answer that cannot be looked at
        return f"Not yet. {type(error).__name__}: {error}"
    right = looked_at(problem, reference)
    return judge(Exercise(right, mistakes(problem, right), problem.inputs), attempt)


def verdicts(week: int, values: Values) -> dict[str, str]:
    """{problem: "Right.", or what is wrong} of what a notebook has defined."""
    right = reference(week)
    return {number: verdict(p, values, right) for number, p in problems(week).items()}


def run_notebook(path: Path) -> tuple[int, dict[str, str]]:
    """The week of a notebook that was handed in, and its verdicts, from a kernel of its own."""
    notebook = nbformat.read(path, as_version=4)
    week = week_of(notebook)
    last = f"import sys\nsys.path.insert(0, {str(HERE)!r})\nimport grade, json\n"
    last += f"print('\\n' + json.dumps(grade.verdicts({week}, globals())))"
    notebook.cells.append(nbformat.v4.new_code_cell(last))
    client = NotebookClient(
        notebook,
        timeout=600,
        allow_errors=True,
        kernel_name="python3",
        extra_arguments=["--log-level=40"],
        resources={"metadata": {"path": str(path.resolve().parent)}},
    )
    client.execute()
    printed = "".join(out.get("text", "") for out in notebook.cells[-1].outputs)
    if not printed.strip():
        raise UserError(f"{path} ended without verdicts.", "Run it by hand, cell by cell.")
    return week, json.loads(printed.splitlines()[-1])


def report(path: Path) -> str:
    """The points of a notebook, a line for each problem."""
    week, found = run_notebook(path)
    lines, total = [], 0
    for number, said in found.items():
        rows = rubric()[number]
        most = sum(points for points, who, _ in rows if who == "program")
        points = most if said == "Right." else 0
        total += points
        left = " + ".join(str(points) for points, who, _ in rows if who == "reader")
        lines.append(
            f"  {number}  {points} of {most}  {said}" + (f"  Reader: {left}." * bool(left))
        )
    most = sum(points for number in found for points, _, _ in rubric()[number])
    reader = most - sum(p for n in found for p, who, _ in rubric()[n] if who == "program")
    head = f"{path}: problem set {week}, {total} of {most - reader} points by the program"
    return "\n".join([f"{head}; up to {reader} more for the reader to give", *lines])


def main() -> int:
    """Grade what was handed in. 2 if a notebook could not be graded."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("notebooks", nargs="*", type=Path, help="notebooks that were handed in")
    parser.add_argument("--solve", type=Path, metavar="FOLDER", help="write the solved sets there")
    arguments = parser.parse_args()
    if not arguments.notebooks and not arguments.solve:
        parser.error("name the notebooks that were handed in, or a folder for --solve")
    if arguments.solve:
        arguments.solve.mkdir(parents=True, exist_ok=True)
        for week in (1, 2, 3):
            nbformat.write(solved(notebook_of(week)), arguments.solve / f"week_{week}.ipynb")
    code = 0
    for path in arguments.notebooks:
        try:
            print(report(path), flush=True)
        except (UserError, OSError, nbformat.reader.NotJSONError) as error:
            print(f"{path}: not graded. {error}", file=sys.stderr)
            code = 2
    return code


if __name__ == "__main__":
    sys.exit(main())
