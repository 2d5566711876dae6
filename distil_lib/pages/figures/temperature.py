"""Chapter 2: one blank at every temperature."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure as Picture
from scipy.special import softmax

from distil_lib.export.browser import stored_model
from distil_lib.pages.answers import MODELS, SENTENCE, leading, logits, packed
from distil_lib.pages.figures import Figure

WORDS = 10


def _data() -> dict[str, Any]:
    """The logits of both models for the first sentence, and its leading words."""
    both = [logits(name, SENTENCE) for name in MODELS]
    tokenizer = stored_model("teacher")[1]
    return {
        "text": SENTENCE,
        "logits": [packed(z, "f4") for z in both],
        "words": {id: tokenizer.convert_ids_to_tokens(id) for id in leading(both, WORDS)},
    }


def _picture() -> Picture:
    """The leading words at T = 2, and all others."""
    both = [logits(name, SENTENCE) for name in MODELS]
    words = leading(both, WORDS)
    figure, axes = plt.subplots(figsize=(5.5, 4))
    for place, z in enumerate(both):
        p = softmax(z / 2)
        shares = [*p[words], 1 - p[words].sum()]
        rows = np.arange(WORDS + 1) + 0.4 * place
        axes.barh(rows, shares, 0.38, label=MODELS[place], hatch="//" * place)
    names = stored_model("teacher")[1].convert_ids_to_tokens(words)
    axes.set_yticks(np.arange(WORDS + 1) + 0.2, [*names, f"the other {len(both[0]) - WORDS:,}"])
    axes.invert_yaxis()
    axes.set_xlabel("probability at T = 2")
    axes.legend()
    figure.tight_layout()
    return figure


FIGURE = Figure(
    title="Teacher and student at every temperature",
    alt="Bars of ten words and of the other 8,182 words at T = 2, for “If the file does not exist, "
    "a [MASK] is raised.”: “valueerror” has 6.3% by the teacher and 3.9% by the student, each "
    "further word less, and the other words together have 79% and 81%.",
    picture=_picture,
    data=_data,
    models=True,
    height=900,
)
