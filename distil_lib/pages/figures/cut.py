"""Chapter 4: a teacher without some of its layers, before and along a training."""

import math
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure as Picture
from scipy.special import softmax

from distil_lib.export.browser import stored_model
from distil_lib.initialization import select_layers
from distil_lib.pages.answers import SENTENCE, leading, logits
from distil_lib.pages.cuts import ARMS, EVERY, LAYERS, STEPS, all_cuts, training_curves
from distil_lib.pages.figures import Figure
from distil_lib.pages.grid_results import grid_values

WORDS, KEPT = 6, 3


def trained_cuts() -> list[dict[str, Any]]:
    """What training makes of the strategies' cuts, in nats of held-out KL to the teacher.

    A row is {"strategy", "layers", "curve", "kl"}: along the 300 steps, and the ends of all seeds
    in the grid of chapter 8.
    """
    kl = grid_values("kl")
    rows: list[dict[str, Any]] = []
    for (strategy, seed), curve in training_curves().items():
        drawn = strategy == "random"  # other layers with each seed
        rows.append(
            {
                "strategy": f"random {seed + 1}" if drawn else strategy,
                "layers": "".join(map(str, select_layers(LAYERS, KEPT, strategy, seed=seed))),
                "curve": [round(x, 4) for x in curve],
                "kl": [kl[ARMS[strategy]][s] for s in ([seed] if drawn else range(3))],
            }
        )
    return rows


def _data() -> dict[str, Any]:
    """All cuts with their KL; for the first sentence, the words that whole and cut teacher lead."""
    whole = softmax(logits("teacher", SENTENCE))
    names = stored_model("teacher")[1].convert_ids_to_tokens
    answers, cuts = {}, all_cuts()
    for cut in cuts:
        p = softmax(logits("teacher", SENTENCE, cut))
        words = leading([p, whole], WORDS)
        numbers = [[float(np.float32(x[w]).round(6)) for x in (whole, p)] for w in words]
        answers["".join(map(str, cut))] = [
            [name, *pair] for name, pair in zip(names(words), numbers, strict=True)
        ]
    trained = trained_cuts()
    return {
        "text": SENTENCE,
        "cuts": {"".join(map(str, cut)): round(kl, 4) for cut, kl in cuts.items()},
        "answers": answers,
        "trained": trained,
        "every": EVERY,
        "last": STEPS,
        "most": math.ceil(max(kl for run in trained for kl in run["curve"])),
    }


def _picture() -> Picture:
    """Each cut a point, by the number of layers that are left; below, the recorded trainings."""
    figure, (cuts, runs) = plt.subplots(
        2, 1, figsize=(5.5, 5), height_ratios=(3, 2), layout="constrained"
    )
    for cut, kl in all_cuts().items():
        cuts.plot(kl, len(cut), "o", color="#0072b2", mfc="white")
    cuts.set(xlabel="held-out KL to the whole teacher (nats)", ylabel="layers that are left")
    lines = dict(zip(ARMS, ("-", "--", ":", "-.", (0, (1, 4))), strict=True))
    for (strategy, seed), curve in training_curves().items():
        steps, color = [EVERY * i for i in range(len(curve))], f"C{[*ARMS].index(strategy)}"
        label = strategy if seed == 0 else None  # `random` three times
        runs.plot(steps, curve, color, linestyle=lines[strategy], marker="", label=label)
    runs.set(xlabel="steps of training", ylabel="held-out KL (nats, log)", yscale="log")
    runs.set_yticks([0.5, 1, 2, 3], ["0.5", "1", "2", "3"])
    runs.set_yticks([], minor=True)
    runs.legend(frameon=False)
    return figure


FIGURE = Figure(
    title="A teacher without some of its layers",
    alt="63 points, one for each cut of six layers, in a row for each number of layers left. The "
    "best cut to three layers, 1, 2 and 4, has 1.33 nats, spread (0, 2, 5) 2.29 and the worst "
    "(0, 4, 5) 3.43. Below, the students' KL over 300 steps: from the first layers it falls from "
    "1.61 to 1.06 in 25 steps, and to 0.60 at the end; from spread from 2.25 to 1.53, and to 0.70; "
    "from alternate from 2.30 to 1.37, and to 0.58; from the last layers from 2.72 to 1.72, and to "
    "0.73. Three random draws end at 0.56, 0.54 and 0.62.",
    picture=_picture,
    data=_data,
    models=True,
    height=760,
)
