"""Chapter 5: twelve bugs of the triple loss, their curves, their gradients, and what catches them.

python -m distil_lib.pages.figures.bugs     # trains the toys and writes the record, in a minute
"""

from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure as Picture

from distil_lib.common.files import read_json, write_result
from distil_lib.common.paths import PROJECT
from distil_lib.pages.bug_checks import CHECKS, caught_by, gradients_beside_right, training_curve
from distil_lib.pages.bugs import BUGS, RIGHT, LossCode
from distil_lib.pages.figures import Figure

RECORD = PROJECT / "data" / "results" / "bugs.json"


def measured(code: LossCode) -> dict[str, Any]:
    """The loss of a code step by step, and its gradient beside the right one, to four digits."""
    lengths, cosines = zip(*gradients_beside_right(code), strict=True)
    curves = {"loss": training_curve(code), "length": lengths, "cosine": cosines}
    return {name: [float(f"{x:.4g}") for x in values] for name, values in curves.items()}


def record() -> None:
    """Measure the right code and all bugs, and write the record."""
    bugs = {bug.name: measured(bug.code) | {"caught_by": caught_by(bug.code)} for bug in BUGS}
    command = "python -m distil_lib.pages.figures.bugs"
    write_result(RECORD, {"command": command, "right": measured(RIGHT)["loss"], "bugs": bugs})


def data() -> dict[str, Any]:
    """The record, with what is wrong in each bug and what each check says."""
    recorded = read_json(RECORD)
    bugs = [
        recorded["bugs"][bug.name]
        | {"name": bug.name, "wrong": bug.wrong.replace("`", ""), "symptom": bug.symptom}
        for bug in BUGS
    ]
    checks = {name: (check.__doc__ or "").strip() for name, check in CHECKS.items()}
    return {"right": recorded["right"], "bugs": bugs, "checks": checks}


def _picture() -> Picture:
    recorded = read_json(RECORD)
    figure, axes = plt.subplots(figsize=(5.5, 3), layout="constrained")
    axes.plot(recorded["right"], color="#0072B2", label="right")
    reversed_kl = recorded["bugs"]["reversed KL"]["loss"]
    axes.plot(reversed_kl, "--", color="#D55E00", label="reversed KL")
    axes.set(xlabel="step", ylabel="triple loss", ylim=(0, None))
    axes.legend(frameon=False)
    return figure


FIGURE = Figure(
    title="Bug finder: the loss, the gradient and the check",
    alt=(
        "The triple loss of two toys over 60 steps. The right one falls from 10.5 to 4.2, the one "
        "with a reversed KL from 10.5 to 4.2 as well: the curves lie on each other."
    ),
    picture=_picture,
    data=data,
    height=560,
)

if __name__ == "__main__":
    record()
