"""The card (README.md) of a trained model."""

import math
import shlex
from pathlib import Path

from distil_lib.common.paths import locate
from distil_lib.training.config import PretrainConfig

CARD = """---
license: apache-2.0
language: en
pipeline_tag: fill-mask
library_name: transformers
---
# {title}

{what}

Made by

    {command}

| | |
|---|---|
| text | `{corpus}`, blocks of {block_size} tokens, fingerprint `{fingerprint}` |
| tokens read | {tokens:,} in {steps:,} steps of {batch_size} sequences |
| time | {minutes:.0f} minutes, {tokens_per_second:,.0f} tokens per second, {processes} process(es), {precision} |
| machine | {machine} |

Held-out text (whole documents that were never trained on; 15% of the words hidden):

| figure | value |
|---|---|
{figures}

{note}
![losses and held-out accuracy over the steps](curves.png)
{before}"""


FIGURE_NAMES = {
    "mlm_loss": "loss on hidden words (nats)",
    "perplexity": "perplexity of hidden words",
    "accuracy": "hidden words found at the first guess",
    "kl": "KL divergence from the teacher on hidden words (nats, T = 1)",
    "agreement": "first guess equal to the teacher's",
    "cosine": "cosine with the teacher's last hidden state",
    "teacher_accuracy": "for comparison: the teacher's first guess",
}


def model_card(
    config: PretrainConfig,
    arguments: list[str],
    record: dict,
    figures: dict[str, float],
    machine: dict,
) -> str:
    """The card (README.md) of a trained model: command, text, cost and held-out figures, all from the run itself."""
    figures = figures | {"perplexity": math.exp(figures["mlm_loss"])}
    student = config.teacher is not None
    what = (
        f"A DistilBERT of {record['shape']}, distilled from `{config.teacher}` (Sanh et al. 2019): layers `{config.init_layers}`, alphas "
        f"{config.alpha_ce:g}/{config.alpha_mlm:g}/{config.alpha_cos:g}, T = {config.temperature:g}, "
        f"soft targets on {config.soft_targets} tokens."
        if student
        else f"A BERT of {record['shape']}, pretrained by masked language modelling from {config.init_from or 'nothing'}."
    )
    return CARD.format(
        title=f"{'Student' if student else 'Teacher'}: {record['shape']}",
        what=what,
        command=shlex.join(
            ["accelerate", "launch", "distil_lib/pretrain.py", *_settings(arguments)]
        ),
        corpus=config.corpus,
        block_size=config.block_size,
        batch_size=config.batch_size,
        figures="\n".join(
            f"| {label} | {figures[name]:.4f} |"
            for name, label in FIGURE_NAMES.items()
            if name in figures
        ),
        machine=", ".join(f"{k} {v}" for k, v in machine.items()),
        note="The weights carry the licence of the code, Apache-2.0; the text they were trained on belongs to its authors.\n",
        before=_card_before(config.init_from),
        **record,
    )


def _settings(arguments: list[str]) -> list[str]:
    """The arguments without what they say about an earlier run, which no longer holds for one who makes the model anew."""
    kept, dropping = [], False
    for word in arguments:
        dropping = word.partition("=")[0] in ("--resume", "--overwrite") or (
            dropping and not word.startswith("--")
        )
        kept += [] if dropping else [word]
    return kept


def _card_before(init_from: str | None) -> str:
    """What the card of the model that this one was started from says of how it was made, if it has one here."""
    path = Path(locate(init_from), "README.md") if init_from else None
    if path is None or not path.is_file():
        return ""
    made = path.read_text().partition("\nMade by\n")[2].partition("\nThe weights carry")[0]
    return f"\n## What it was started from\n\n`{init_from}`, made by\n{made}" if made else ""
