"""The first page: a blank of one's own, filled by teacher and student."""

from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure as Picture

from distil_lib.export.browser import fill_blank, stored_model
from distil_lib.pages.answers import MODELS, page_model
from distil_lib.pages.figures import Figure
from distil_lib.pages.plots import COLORS

TEXTS = (
    "The default [MASK] is used if none is given.",
    "If the file does not exist, a [MASK] is raised.",
    "Return the [MASK] of the array along the given axis.",
    "The [MASK] of the matrix must be positive.",
    "The capital of France is [MASK].",
)


def answers(text: str) -> list[list[tuple[str, float]]]:
    """The five likeliest words of teacher and student, each with its probability."""
    return [fill_blank(page_model(name), stored_model(name)[1], text) for name in MODELS]


def _data() -> dict[str, Any]:
    rounded = {
        text: [[(word, round(p, 4)) for word, p in rows] for rows in answers(text)]
        for text in TEXTS
    }
    titles = []  # of both tables
    for name in MODELS:
        model = stored_model(name)[0]
        weights = sum(p.numel() for p in model.parameters()) / 1e6
        titles.append([name.title(), f"{model.config.n_layers} layers, {weights:.1f} M weights"])
    return {"answers": rounded, "titles": titles}


def _picture() -> Picture:
    figure, panels = plt.subplots(1, 2, figsize=(5.5, 2.4), sharex=True, layout="constrained")
    for axes, name, rows in zip(panels, MODELS, answers(TEXTS[0]), strict=True):
        words, shares = zip(*rows, strict=True)
        hatch = "//" if name == "student" else ""
        bars = axes.barh(words, [100 * p for p in shares], color=COLORS[name], hatch=hatch)
        axes.bar_label(bars, [f"{p:.0%}" for p in shares], padding=3)
        axes.invert_yaxis()
        axes.set(title=name, xlim=(0, 100), xlabel="%")
    return figure


FIGURE = Figure(
    title="Fill in a blank: teacher and student side by side",
    alt="Five words of each model for “The default [MASK] is used if none is given.”, as bars. The "
    "teacher has value 63%, none 5%, backend, name and implementation less; the student has value "
    "85%, and parameter, dtype, option and argument 1% each.",
    picture=_picture,
    data=_data,
    models=True,
    height=620,
)
