"""Chapter 1: a soft target and the labels that are drawn from it."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure as Picture

from distil_lib.pages.figures import Figure
from distil_lib.pages.plots import COLORS

WORDS = ("exception", "error", "warning", "flag")
TEACHER = (1 / 2, 1 / 4, 1 / 8, 1 / 8)
STUDENT = (1 / 4, 1 / 4, 1 / 4, 1 / 4)


def _picture() -> Picture:
    t, s, at = np.array(TEACHER), np.array(STUDENT), np.arange(4)
    figure, (bars, ruler) = plt.subplots(
        2, 1, figsize=(5.5, 3.8), height_ratios=(3, 1), layout="constrained"
    )
    bars.bar(at - 0.2, t, 0.4, color=COLORS["teacher"], label="teacher t")
    bars.bar(at + 0.2, s, 0.4, color=COLORS["student"], hatch="//", label="student s")
    bars.set_xticks(at, WORDS)
    bars.set(ylabel="probability", ylim=(0, 0.6))
    bars.legend()
    entropy, cross = -(t * np.log(t)).sum(), -(t * np.log(s)).sum()
    ruler.barh(0, entropy, color=COLORS["teacher"])
    ruler.barh(0, cross - entropy, left=entropy, color=COLORS["student"], hatch="//")
    ruler.set_title(
        f"entropy {entropy:.3f} + KL {cross - entropy:.3f} = cross-entropy {cross:.3f}", fontsize=10
    )
    ruler.set(xlabel="nats", yticks=[], xlim=(0, 2))
    return figure


FIGURE = Figure(
    title="Probabilities of a teacher and a student, and labels drawn from the teacher",
    alt="Bars of four words: the teacher gives exception 0.5, error 0.25, warning and flag 0.125 "
    "each, the student 0.25 to every word. Below, a ruler of two parts: entropy 1.213 and KL 0.173 "
    "make the cross-entropy of 1.386 nats.",
    picture=_picture,
    height=760,
)
