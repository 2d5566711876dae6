"""Chapter 8: the arms of the recorded grid against the triple loss, as a forest plot."""

from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure as Picture

from distil_lib.ablation.paired_effects import paired_differences
from distil_lib.ablation.records import MEASURES
from distil_lib.pages.figures import Figure
from distil_lib.pages.grid_results import ARM_NAMES, BETTER, DIGITS, FOUR, grid_values, judged
from distil_lib.pages.paper_numbers import table

LABELS = {
    "kl": "KL to the teacher",
    "mlm_loss": "loss on true words",
    "accuracy": "accuracy",
    "documentation": "six tasks",
}
MATTERS = {"nats": 0.05, "points": 1.0}  # where the reader's own limit begins


def paper_effects() -> dict[str, float]:
    """{arm: the paper's effect in points of GLUE}, from its Table 4."""
    effects = table(4).iloc[:, 0].rename({"random initialization": "random-start"})
    return {str(row).replace(" L_", "-"): float(x) for row, x in effects.items()}


def data() -> dict[str, Any]:
    """Mean, interval, p without and with Holm's correction, and the seeds' differences."""
    measures = {}
    for measure, label in LABELS.items():
        values, unit = grid_values(measure), MEASURES[measure][1]
        arms = {
            arm: [
                *(e.mean, e.low, e.high, e.p, e.p_holm),
                paired_differences(values[arm], values["triple"]).tolist(),
            ]
            for arm, e in judged(measure).items()
        }
        measures[measure] = {
            "label": f"{label}, {unit}", "unit": unit, "digits": DIGITS[measure],
            "better": BETTER[measure], "matters": MATTERS[unit], "arms": arms,
            "full": max(abs(x) for e in arms.values() for x in (e[1], e[2], *e[5])),
            "paper": measure == "documentation",  # in points as well, though of other tasks
        }  # fmt: skip
    names = list(judged("kl"))
    groups = {
        "all": ("all nineteen", names),
        "paper": ("the paper's four", FOUR),
        "alone": ("one loss alone, no teacher", names[4:8]),
        "start": ("start and layers", names[8:14]),
        "recipe": ("temperature, tokens, weights", names[14:]),
    }
    return {
        "names": {arm: ARM_NAMES[arm] for arm in names},
        "groups": groups,
        "paper": paper_effects(),
        "measures": measures,
    }


def _picture() -> Picture:
    recorded = data()
    figure, axes = plt.subplots(figsize=(5.5, 2.8), layout="constrained")
    for row, arm in enumerate(recorded["groups"]["paper"][1]):
        mean, low, high, _, p, seeds = recorded["measures"]["documentation"]["arms"][arm]
        face = "#0072B2" if p <= 0.05 else "white"
        ends = [[mean - low], [high - mean]]
        axes.errorbar(mean, row, None, ends, "o", color="#0072B2", mfc=face, capsize=3)
        axes.plot(seeds, [row + 0.25] * len(seeds), ".", color="#777777", markersize=4)
        axes.plot(recorded["paper"][arm], row, "x", color="#D55E00")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(4), [recorded["names"][arm] for arm in recorded["groups"]["paper"][1]])
    axes.set(xlabel="difference in points (cross: the paper's, of GLUE)", ylim=(3.6, -0.6))
    return figure


FIGURE = Figure(
    title="Forest plot of the ablation",
    alt=(
        "The paper's four arms on the six tasks, with intervals and a dot for each seed. Random "
        "start is at -14.35 points and filled: distinguishable from zero. No soft targets, at "
        "-1.55, no cosine loss and no true words are open marks. Crosses mark the paper's -3.69, "
        "-2.96, -1.46 and -0.31 points of GLUE."
    ),
    picture=_picture,
    data=data,
    height=820,
)
