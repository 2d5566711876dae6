"""metrics.jsonl: written while training, read and drawn afterwards."""

import json
import os
import sys
from pathlib import Path

from distil_lib.errors import UserError


class MetricsFile:
    """`metrics.jsonl`, one JSON object a line.

    A resumed run cuts off what was written after its checkpoint. A file that is shorter than at
    the checkpoint, missing or damaged is repaired: every complete line is kept, and one message
    says what is lost. Weights never depend on it.

    Args:
        path: the file.
        keep_bytes: how long it was when the checkpoint was saved; 0 for a new run.
    """

    def __init__(self, path: Path, keep_bytes: int = 0):
        self.path = path
        try:
            path.touch()
            with path.open("r+b") as file:
                before = file.read(keep_bytes)
                good = b"".join(line for line in before.splitlines(keepends=True) if _is_row(line))
                file.seek(0)
                if good != before:
                    file.write(good)
                file.truncate(len(good))
        except OSError as error:
            raise UserError(
                f"{path} cannot be written ({error.strerror}).",
                "Make it a file that can be written, or delete it; a resumed run makes it anew.",
            ) from error
        if len(good) != keep_bytes:
            print(
                f"{path} is damaged: {len(good)} of {keep_bytes} bytes are kept. "
                "The curves have a gap; the weights do not depend on it.",
                file=sys.stderr,
                flush=True,
            )

    def write(self, row: dict) -> None:
        """Append a line, at once readable by other programs."""
        with self.path.open("ab") as file:
            file.write((json.dumps(row) + "\n").encode())

    def sync(self) -> int:
        """Flush to the disk, before a checkpoint that counts on these lines. Returns the length."""
        with self.path.open("r+b") as file:
            os.fsync(file.fileno())
            return file.seek(0, os.SEEK_END)


def _is_row(line: bytes) -> bool:
    """Whether a line is complete, and a dictionary with a number of steps."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return line.endswith(b"\n") and isinstance(row, dict) and isinstance(row.get("step"), int)


def read_metrics(run: str | Path) -> list[dict]:
    """The rows of a run's `metrics.jsonl`, or of such a file; evaluations have `accuracy`."""
    path = Path(run, "metrics.jsonl") if Path(run).is_dir() else Path(run)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


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
        steps, values = [r["step"] for r in training], [r[name] for r in training]
        left.plot(steps, values, styles[name], label=f"L_{name}", linewidth=1.2)
    left.set(
        xlabel="optimizer step", ylabel="training loss (nats; L_cos: 1 - cosine)", yscale="log"
    )
    for name, style in (("accuracy", "o-"), ("agreement", "s--")):
        if held_out and name in held_out[0]:
            steps, values = [r["step"] for r in held_out], [100 * r[name] for r in held_out]
            right.plot(steps, values, style, markersize=4, label=name)
    right.set(xlabel="optimizer step", ylabel="held-out masked words (%)")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    path = Path(run) / "curves.png"
    figure.savefig(path, dpi=120)
    return path
