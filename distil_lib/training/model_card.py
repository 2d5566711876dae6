"""The card (README.md) of a trained model."""

import math
import shlex
from collections.abc import Sequence
from pathlib import Path

from transformers import PretrainedConfig

from distil_lib.common.paths import locate
from distil_lib.training.config import PretrainConfig

TEMPLATE = Path(__file__).with_name("model_card.md")
# Only what is made of the project's own teacher and text is known to have these.
OWN = {"teacher": "data/teacher", "init_from": "data/teacher"}
OWN_LICENCE = "license: apache-2.0\nlanguage: en\n"
OWN_NOTE = """The weights carry the licence of the code, Apache-2.0; the text they were trained on \
belongs to its authors.
"""
OPEN_NOTE = """The weights carry the licence that their text and their starting point allow, \
which this program does not know. Add `license:` and `language:` above before you publish them.
"""
DISTILBERT_EPS = 1e-12  # fixed in transformers' DistilBERT

FIGURE_NAMES = {
    "mlm_loss": "loss on masked words (nats)",
    "perplexity": "perplexity of masked words",
    "accuracy": "masked words found at the first guess",
    "kl": "KL divergence from the teacher on masked words (nats, T = 1)",
    "agreement": "first guess equal to the teacher's",
    "cosine": "cosine with the teacher's last hidden state",
    "teacher_accuracy": "for comparison: the teacher's first guess",
}


def model_card(
    config: PretrainConfig,
    arguments: Sequence[str],
    record: dict,
    figures: dict[str, float],
    machine: dict,
    model_config: PretrainedConfig | None = None,
) -> str:
    """The card (README.md) of a trained model: all from the run itself.

    Args:
        config: the run's settings.
        arguments: its command line.
        record: `shape`, `fingerprint`, `tokens`, `steps`, `minutes`, `tokens_per_second`,
            `processes`, `precision`.
        figures: the last held-out figures.
        machine: what `describe_machine` says.
        model_config: the model's configuration.
    """
    figures = figures | {"perplexity": math.exp(min(figures["mlm_loss"], 700.0))}
    student = config.teacher is not None
    what = (
        f"A DistilBERT of {record['shape']}, distilled from `{config.teacher}` (Sanh et al. 2019): "
        f"layers `{config.init_layers}`, alphas "
        f"{config.alpha_ce:g}/{config.alpha_mlm:g}/{config.alpha_cos:g}, "
        f"T = {config.temperature:g}, soft targets on {config.soft_targets} tokens."
        if student
        else f"A BERT of {record['shape']}, pretrained by masked language modelling from "
        f"{config.init_from or 'nothing'}."
    )
    rows = [
        f"| {label} | {figures[name]:.4f} |"
        for name, label in FIGURE_NAMES.items()
        if name in figures
    ]
    own = config.corpus == "docs" and all(
        getattr(config, name) in (None, value) for name, value in OWN.items()
    )
    return TEMPLATE.read_text(encoding="utf-8").format(
        licence=OWN_LICENCE if own else "",
        title=f"{'Student' if student else 'Teacher'}: {record['shape']}",
        what=what,
        command=shlex.join(
            ["accelerate", "launch", "distil_lib/pretrain.py", *_settings(arguments)]
        ),
        corpus=config.corpus,
        block_size=config.block_size,
        batch_size=config.batch_size,
        figures="\n".join(rows),
        machine=", ".join(f"{k} {v}" for k, v in machine.items()),
        note=(OWN_NOTE if own else OPEN_NOTE) + _eps_note(model_config),
        before=_card_before(config.init_from),
        **record,
    )


def _eps_note(config: PretrainedConfig | None) -> str:
    """What transformers computes otherwise: its DistilBERT does not read LayerNorm's epsilon."""
    eps = getattr(config, "layer_norm_eps", DISTILBERT_EPS)
    if getattr(config, "model_type", "") != "distilbert" or eps == DISTILBERT_EPS:
        return ""
    return (
        f"\nLayerNorm's epsilon is {eps:g}, as the teacher's. The DistilBERT of `transformers` "
        f"computes with {DISTILBERT_EPS:g}, so its logits differ slightly from the figures above; "
        "`distil_lib.student.Student` reads the right one.\n"
    )


def _settings(arguments: Sequence[str]) -> list[str]:
    """The arguments without those about an earlier run: the command makes the model anew."""
    kept, dropping = [], False
    for word in arguments:
        dropping = word.partition("=")[0] in ("--resume", "--overwrite") or (
            dropping and not word.startswith("--")
        )
        kept += [] if dropping else [word]
    return kept


def _card_before(init_from: str | None) -> str:
    """How the model that this one was started from was made, if its card is here and says so."""
    path = Path(locate(init_from), "README.md") if init_from else None
    if path is None or not path.is_file():
        return ""
    made = (
        path.read_text(encoding="utf-8", errors="replace")
        .partition("\nMade by\n")[2]
        .partition("\nThe weights carry")[0]
    )
    return f"\n## What it was started from\n\n`{init_from}`, made by\n{made}" if made else ""
