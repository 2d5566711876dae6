"""Chapter 7: how far apart two equally good systems land on a test set, exactly."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure as Picture
from scipy.stats import binom

from distil_lib.pages.figures import Figure
from distil_lib.pages.luck import DEVELOPMENT_SETS
from distil_lib.pages.plots import COLORS


def differences(n: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """(differences in points, their probabilities) of two equally good systems.

    Args:
        n: examples of the test set.
        share: of them, on which exactly one of the two is right; a fair coin says which.
    """
    differ = int(n * share + 0.5)
    heads = np.arange(differ + 1)
    return 100 * (2 * heads - differ) / n, binom.pmf(heads, differ, 0.5)


def usual_range(n: int, share: float, coverage: float = 0.95) -> float:
    """The least number of points within which the difference lies with that probability."""
    differ = int(n * share + 0.5)
    return float(100 * (2 * binom.ppf((1 + coverage) / 2, differ, 0.5) - differ) / n)


def _data() -> dict[str, Any]:
    shown = ("WNLI", "RTE", "MRPC", "SST-2", "QNLI", "MNLI")
    return {"sets": [[name, DEVELOPMENT_SETS[name]] for name in shown]}


def _picture() -> Picture:
    figure, panels = plt.subplots(2, 1, figsize=(5.5, 3.6), sharex=True, layout="constrained")
    for axes, (name, n) in zip(panels, (("WNLI", 71), ("SST-2", 872)), strict=True):
        points, probability = differences(n, 0.28)
        most = usual_range(n, 0.28)
        inside = abs(points) <= most + 1e-9
        for chosen, color in ((inside, COLORS["teacher"]), (~inside, "0.6")):
            axes.bar(points[chosen], probability[chosen], 180 / n, color=color)
        axes.set_title(f"{name}, {n} examples: 95% within ±{most:.1f} points", fontsize=10)
        axes.set(ylabel="probability", xlim=(-40, 40))
    panels[1].set_xlabel("difference in accuracy (points)")
    return figure


FIGURE = Figure(
    title="How far apart two equally good systems land on a test set",
    alt="Two histograms of the difference of two equally good systems, of which exactly one is "
    "right on 28% of the examples. With WNLI's 71 examples 95% of the probability lies within "
    "11.3 points, with SST-2's 872 within 3.4 points.",
    picture=_picture,
    data=_data,
    height=760,
)
