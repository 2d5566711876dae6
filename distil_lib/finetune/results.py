"""What fine-tuning has measured: a JSON file that says how it was made, medians and quartiles, and how much of a teacher is kept.

    record = open_result(path, configuration)           # {} if there is none; refuses a file of another configuration
    write_result(path, record)                          # whole or not there
    summarize(record)["validation"]["accuracy"]         # {"median": 90.6, "q1": 90.4, "q3": 91.1}
    retention(student_record, teacher_record)           # {"retention": 96.9, "low": 95.8, "high": 98.1, ...}

A record keeps each seed's answer to each example, so that every interval can be computed from the file alone.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from distil_lib.errors import UserError


# ------------------------------------------------------------------------------------------------------------------- the file
def pack(numbers: Sequence[float]) -> str:
    """Numbers as one line of a file that people read: five digits of each, whole numbers without a point."""
    return " ".join(f"{number:.5g}" for number in np.asarray(numbers, np.float64).tolist())


def unpack(line: str) -> np.ndarray:
    """(N,) float64."""
    return np.array(line.split(), np.float64)


def read_result(path: str | Path) -> dict:
    """A record. Raises `UserError` if the file is missing or is no such record."""
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} is no result ({str(error).splitlines()[0]}).",
            "Pass a file that distil_lib.finetune.runner wrote.",
        ) from error
    if not isinstance(record, dict) or not {"configuration", "seeds"} <= record.keys():
        raise UserError(
            f"{path} is no result of fine-tuning.",
            "Pass a file that distil_lib.finetune.runner wrote.",
        )
    return record


def open_result(path: Path, configuration: Mapping) -> dict:
    """The record to go on with, {} if there is none. Raises `UserError`, which names the differences, if it is of another configuration."""
    if not path.exists():
        return {}
    record = read_result(path)
    saved, now = record["configuration"], json.loads(json.dumps(configuration))
    changed = [name for name in {**saved, **now} if saved.get(name) != now.get(name)]
    if changed:
        difference = ", ".join(
            f"{name} was {saved.get(name)!r} and is {now.get(name)!r}" for name in changed
        )
        raise UserError(
            f"{path} holds results of another configuration: {difference}.",
            "Choose another --output, or delete the file.",
        )
    return record


# ------------------------------------------------------------------------------------------------------------------ over the seeds
def summarize(record: Mapping) -> dict[str, dict[str, dict[str, float]]]:
    """Of each split and metric the median over the seeds, as the paper's tables give it, and the quartiles `q1` and `q3`."""
    runs = list(record["seeds"].values())
    summary: dict[str, dict[str, dict[str, float]]] = {}
    for split, figures in runs[0]["scores"].items():
        values = {metric: [run["scores"][split][metric] for run in runs] for metric in figures}
        summary[split] = {
            metric: dict(
                zip(
                    ("q1", "median", "q3"),
                    np.percentile(scores, (25, 50, 75)).tolist(),
                    strict=True,
                )
            )
            for metric, scores in values.items()
        }
    return summary


# ------------------------------------------------------------------------------------------------------ scores of a resampled split


# -------------------------------------------------------------------------------------------------------------------- retention
