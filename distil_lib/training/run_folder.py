"""What a run leaves behind: `config.yaml`, `metrics.jsonl`, `checkpoints/`, `model/` with its card, `curves.png`.

    rows = read_metrics("runs/mini")                          # one dictionary a line of metrics.jsonl
    plot_curves("runs/mini")
"""

import json
import math
import shlex
import shutil
from pathlib import Path

import yaml

from distil_lib.common.errors import UserError
from distil_lib.common.paths import locate
from distil_lib.training.checkpoint import list_checkpoints, newest_checkpoint
from distil_lib.training.config import FREE_ON_RESUME, PretrainConfig

PARTIAL = ".config.yaml.partial"


def open_run(config: PretrainConfig) -> Path | None:
    """Make the run's folder, or check that it may be gone on with. Returns the checkpoint to resume from, None for a new run.

    Raises `UserError` for a folder that holds another run, or a run of other settings.
    """
    folder = Path(config.output)
    # A run that was killed before it had written its configuration has left nothing that counts.
    used = folder.is_dir() and any(path.name != PARTIAL for path in folder.iterdir())
    if used and not (folder / "config.yaml").is_file():
        raise UserError(f"{folder} is not empty and holds no run.", "Choose another --output.")
    if used and config.overwrite:
        shutil.rmtree(folder)
    elif used and not config.resume:
        remedy = "Go on with it by --resume, delete it by --overwrite, or choose another --output."
        raise UserError(f"{folder} holds a run already.", remedy)
    elif used:
        saved = yaml.safe_load((folder / "config.yaml").read_text())
        now = vars(config)
        changed = [k for k in now if k not in FREE_ON_RESUME and k in saved and now[k] != saved[k]]
        if changed:
            difference = ", ".join(f"{k} was {saved[k]!r} and is {now[k]!r}" for k in changed)
            raise UserError(f"{folder} was started with other settings: {difference}.", "Resume with the same, or choose another --output.")
        checkpoint = newest_checkpoint(folder / "checkpoints")
        if checkpoint is None and list_checkpoints(folder / "checkpoints"):
            raise UserError(f"No checkpoint in {folder} is whole.", "Start again with --overwrite.")
        return checkpoint
    elif config.resume:
        raise UserError(f"There is no run in {folder} to go on with.", "Leave --resume away to start one.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        config.save(folder / PARTIAL)
        (folder / PARTIAL).rename(folder / "config.yaml")
    except OSError as error:
        raise UserError(f"{folder} cannot be made ({error.strerror}).", "Choose another --output.") from error
    return None


def saved_precision(config: PretrainConfig) -> str | None:
    """The precision that a run to be resumed was started with."""
    path = Path(config.output, "config.yaml")
    return yaml.safe_load(path.read_text()).get("precision") if config.resume and path.is_file() else None


class MetricsFile:
    """`metrics.jsonl`, one JSON object a line. A resumed run first cuts off what was written after its checkpoint."""

    def __init__(self, path: Path, keep_bytes: int = 0):
        self.path = path
        self.file = path.open("r+b" if path.exists() else "w+b")
        self.file.truncate(keep_bytes)
        self.file.seek(keep_bytes)

    def write(self, row: dict) -> None:
        self.file.write((json.dumps(row) + "\n").encode())
        self.file.flush()

    @property
    def bytes(self) -> int:
        return self.file.tell()


def read_metrics(run: str | Path) -> list[dict]:
    """The rows of a run's `metrics.jsonl`; those with `accuracy` are evaluations, the others training."""
    return [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]


def plot_curves(run: str | Path) -> Path:
    """Draw a run's losses and held-out accuracy over its steps into `curves.png`."""
    from matplotlib.figure import Figure  # drawn without pyplot: no window, no state left behind

    rows = read_metrics(run)
    training = [r for r in rows if "loss" in r]
    held_out = [r for r in rows if "accuracy" in r]
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    styles = {"ce": "-", "mlm": "--", "cos": ":", "loss": "-"}
    for name in [n for n in ("ce", "mlm", "cos") if any(r.get(n) for r in training)] or ["loss"]:
        left.plot([r["step"] for r in training], [r[name] for r in training], styles[name], label=f"L_{name}", linewidth=1.2)
    left.set(xlabel="optimizer step", ylabel="training loss (nats; L_cos: 1 - cosine)", yscale="log")
    for name, style in (("accuracy", "o-"), ("agreement", "s--")):
        if held_out and name in held_out[0]:
            right.plot([r["step"] for r in held_out], [100 * r[name] for r in held_out], style, markersize=4, label=name)
    right.set(xlabel="optimizer step", ylabel="held-out hidden words (%)")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    path = Path(run) / "curves.png"
    figure.savefig(path, dpi=120)
    return path


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


def model_card(config: PretrainConfig, arguments: list[str], record: dict, figures: dict[str, float], machine: dict) -> str:
    """The card (README.md) of a trained model: command, text, cost and held-out figures, all from the run itself."""
    figures = figures | {"perplexity": math.exp(figures["mlm_loss"])}
    student = config.teacher is not None
    what = (
        f"A DistilBERT of {record['shape']}, distilled from `{config.teacher}` (Sanh et al. 2019): layers `{config.layers}`, alphas "
        f"{config.alpha_ce:g}/{config.alpha_mlm:g}/{config.alpha_cos:g}, T = {config.temperature:g}, "
        f"soft targets on {config.soft_targets} tokens."
        if student
        else f"A BERT of {record['shape']}, pretrained by masked language modelling from {config.start_from or 'nothing'}."
    )
    return CARD.format(
        title=f"{'Student' if student else 'Teacher'}: {record['shape']}",
        what=what,
        command=shlex.join(["accelerate", "launch", "distil_lib/pretrain.py", *_settings(arguments)]),
        corpus=config.corpus,
        block_size=config.block_size,
        batch_size=config.batch_size,
        figures="\n".join(f"| {label} | {figures[name]:.4f} |" for name, label in FIGURE_NAMES.items() if name in figures),
        machine=", ".join(f"{k} {v}" for k, v in machine.items()),
        note="The weights carry the licence of the code, Apache-2.0; the text they were trained on belongs to its authors.\n",
        before=_card_before(config.start_from),
        **record,
    )


def _settings(arguments: list[str]) -> list[str]:
    """The arguments without what they say about an earlier run, which no longer holds for one who makes the model anew."""
    kept, dropping = [], False
    for word in arguments:
        dropping = word.partition("=")[0] in ("--resume", "--overwrite") or (dropping and not word.startswith("--"))
        kept += [] if dropping else [word]
    return kept


def _card_before(start_from: str | None) -> str:
    """What the card of the model that this one was started from says of how it was made, if it has one here."""
    path = Path(locate(start_from), "README.md") if start_from else None
    if path is None or not path.is_file():
        return ""
    made = path.read_text().partition("\nMade by\n")[2].partition("\nThe weights carry")[0]
    return f"\n## What it was started from\n\n`{start_from}`, made by\n{made}" if made else ""
