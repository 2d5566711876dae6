"""Chapter 6: who gets asked, in a block of real text: share, smoothing, epochs.

    python -m distil_lib.pages.figures.asked     # writes the record

The record has the block, and how often the corpus has each of its tokens.
"""

from itertools import islice
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure as Picture

from distil_lib.common.files import read_json, write_result
from distil_lib.common.paths import PROJECT, data_folder
from distil_lib.pages.figures import Figure

RECORD = PROJECT / "data" / "results" / "masked-block.json"
CORPUS, BLOCK = "docs:pandas,scikit-learn", 3  # as on the page


def measured() -> dict[str, Any]:
    """The block's tokens and their counts in the corpus that is installed."""
    from distil_lib.text.blocks import load_blocks
    from distil_lib.text.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(data_folder("tokenizer"))
    blocks = load_blocks(CORPUS, tokenizer, 64)
    block = next(islice(blocks.train, BLOCK, None))
    ids = [int(i) for i in block["input_ids"]]
    return {
        "command": "python -m distil_lib.pages.figures.asked",
        "corpus": CORPUS,
        "content_hash": blocks.content_hash,
        "ids": ids,
        "tokens": tokenizer.convert_ids_to_tokens(ids),
        "counts": [int(blocks.counts[i]) for i in ids],
    }


def data() -> dict[str, Any]:
    """The recorded block. Special tokens are never asked for: their count is 0."""
    recorded = read_json(RECORD)
    pairs = zip(recorded["tokens"], recorded["counts"], strict=True)
    return {"words": [[word, 0 if word[0] == "[" else count] for word, count in pairs]}


def coverage(share: float, epochs: int) -> float:
    """The expected share of tokens that are asked for at least once, without smoothing."""
    return 1 - (1 - share) ** epochs


def _picture() -> Picture:
    figure, axes = plt.subplots(figsize=(5.5, 2.8), layout="constrained")
    for share, line in ((0.2, "-"), (0.15, "--")):
        values = [100 * coverage(share, epochs) for epochs in range(21)]
        axes.plot(values, line, label=f"{share:.0%} in each epoch")
    axes.set(xlabel="epochs", ylabel="asked at least once (%)", ylim=(0, 100))
    axes.set_xticks([0, 3, 10, 20])
    axes.legend(frameon=False, loc="lower right")
    return figure


FIGURE = Figure(
    title="Who gets asked",
    alt=(
        "The share of tokens that are masked at least once grows with the epochs. With 20% in each "
        "epoch it is 48.8% after 3 and 98.8% after 20; with 15%, 38.6% and 96.1%."
    ),
    picture=_picture,
    data=data,
    height=640,
)

if __name__ == "__main__":
    write_result(RECORD, measured())
