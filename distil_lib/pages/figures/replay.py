"""Chapter 6: the recorded run of the default student, step by step."""

from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure as Picture

from distil_lib.common.paths import data_folder
from distil_lib.pages.figures import Figure
from distil_lib.training.metrics_file import read_metrics

TRAINING = ("loss", "ce", "mlm", "cos", "norm", "lr", "tokens", "seconds")
HELD_OUT = ("kl", "agreement", "accuracy", "mlm_loss")


def data() -> dict[str, Any]:
    """The lines of `metrics.jsonl`: of the training and of each evaluation, by step."""
    rows = read_metrics(data_folder("student"))
    return {
        "training": [
            {name: float(f"{row[name]:.5g}") for name in TRAINING} | {"step": row["step"]}
            for row in rows
            if "loss" in row
        ],
        "held_out": [
            {name: row[name] for name in ("step", *HELD_OUT)} for row in rows if "kl" in row
        ],
    }


def _picture() -> Picture:
    rows = data()["training"]
    figure, axes = plt.subplots(figsize=(5.5, 2.8), layout="constrained")
    for name, line in (("ce", "-"), ("mlm", "--"), ("cos", ":")):
        shares = [100 * row[name] / rows[0][name] for row in rows]
        axes.plot([row["step"] for row in rows], shares, line, label=f"L_{name}")
    axes.set(xlabel="step", ylabel="% of the first value", ylim=(0, None))
    axes.legend(frameon=False)
    return figure


FIGURE = Figure(
    title="A recorded run, step by step",
    alt=(
        "The three losses of the default student over 2,600 steps, in percent of their first "
        "values. All fall steeply in the first hundred steps; the soft targets end at 11%, the "
        "masked tokens at 52%, the cosine at 26%."
    ),
    picture=_picture,
    data=data,
    height=680,
)
