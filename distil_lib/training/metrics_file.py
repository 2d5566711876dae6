"""metrics.jsonl: written while training, read and drawn afterwards."""

import json
from pathlib import Path


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
        left.plot(
            [r["step"] for r in training],
            [r[name] for r in training],
            styles[name],
            label=f"L_{name}",
            linewidth=1.2,
        )
    left.set(
        xlabel="optimizer step", ylabel="training loss (nats; L_cos: 1 - cosine)", yscale="log"
    )
    for name, style in (("accuracy", "o-"), ("agreement", "s--")):
        if held_out and name in held_out[0]:
            right.plot(
                [r["step"] for r in held_out],
                [100 * r[name] for r in held_out],
                style,
                markersize=4,
                label=name,
            )
    right.set(xlabel="optimizer step", ylabel="held-out hidden words (%)")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    path = Path(run) / "curves.png"
    figure.savefig(path, dpi=120)
    return path
