"""Chapter 3: which head looks where, in teacher and student."""

from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure as Picture

from distil_lib.export.browser import stored_model
from distil_lib.initialization import select_layers
from distil_lib.pages.answers import MODELS, SENTENCE, attentions, input_ids, packed
from distil_lib.pages.figures import Figure


def _data() -> dict[str, Any]:
    """The shares of the first sentence, in bytes: 255 is the whole of a token's look."""
    shares = [attentions(name, SENTENCE) for name in MODELS]
    layers = [len(each) for each in shares]
    return {
        "text": SENTENCE,
        "tokens": stored_model("teacher")[1].convert_ids_to_tokens(input_ids(SENTENCE)[0].tolist()),
        "shares": [packed(255 * each, "u1") for each in shares],
        "layers": layers,
        "heads": shares[0].shape[1],
        # As data/student/config.yaml has it: "spread".
        "copied": select_layers(layers[0], layers[1]),
    }


def _picture() -> Picture:
    """Each head of both models, with the first sentence."""
    shares = [attentions(name, SENTENCE) for name in MODELS]
    rows, heads = len(shares[0]), shares[0].shape[1]
    figure = plt.figure(figsize=(5.5, 4.6), layout="constrained")
    for part, name, each in zip(figure.subfigures(1, 2), MODELS, shares, strict=True):
        part.suptitle(name, fontsize=9)
        axes = part.subplots(rows, heads)
        for layer, head in [(i, j) for i in range(rows) for j in range(heads)]:
            ax = axes[layer, head]
            ax.set(xticks=[], yticks=[])
            ax.grid(visible=False)
            if layer >= len(each):
                ax.axis("off")
                continue
            ax.imshow(each[layer, head] ** 0.5, cmap="Greys", vmin=0, vmax=1)
            if head == 0:
                ax.set_ylabel(f"layer {layer}", fontsize=8)
            if layer == 0:
                ax.set_title(f"head {head}", fontsize=8)
    return figure


FIGURE = Figure(
    title="Which head looks where",
    alt="A small square for each head, 6 layers of 4 heads of the teacher and 3 layers of the "
    "student: rows are the tokens that look, columns those that are looked at. Some heads are a "
    "line beside the diagonal, others a column, others gray all over.",
    picture=_picture,
    data=_data,
    models=True,
    height=900,
)
