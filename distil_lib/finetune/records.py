"""The record of a fine-tuning: a JSON file that says how it was made and what came of it.

    record = open_record(path, configuration)    # {} if there is none
    write_result(path, record)                   # complete or absent (`common.files`)
    median_and_quartiles(record)["validation"]["accuracy"]   # {"median": 90.6, "q1": 90.4, ...}

A record keeps each seed's answer to each example, so that every interval can be computed from the
file alone (`retention`), and a figure that was altered is noticed: scores are computed again.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distil_lib.common.files import read_json
from distil_lib.errors import UserError
from distil_lib.tasks.metrics import METRICS
from distil_lib.tasks.task import KINDS

# What of a configuration names the model; whatever else differs is a difference of recipes.
OF_THE_MODEL = frozenset({"model", "weights", "data", "task", "evaluate_only", "declaration"})


def join_numbers(numbers: Sequence[float] | np.ndarray) -> str:
    """Numbers as one line: five digits of each, whole numbers without a point."""
    return " ".join(f"{number:.5g}" for number in np.asarray(numbers, np.float64).tolist())


def split_numbers(line: str) -> np.ndarray:
    """(N,) float64: the inverse of `join_numbers`."""
    return np.array(line.split(), np.float64)


def read_record(path: str | Path) -> dict:
    """A record, every part checked that a comparison needs, and every score against the answers.

    Raises:
        UserError: if the file is missing, is no such record, or contradicts itself.
    """
    try:
        record = read_json(Path(path))
        fault = _fault(record)
    except UserError as error:
        fault = error.problem.rstrip(".")
    if fault:
        raise UserError(
            f"{path} is no result of fine-tuning ({fault}).",
            "Pass a file that `python -m distil_lib.finetune` wrote.",
        )
    if contradiction := _contradiction(record):
        raise UserError(
            f"{path} contradicts itself: {contradiction}.",
            "It was altered or damaged: take the one that was written, or measure again.",
        )
    return record


def _fault(record: Mapping[str, Any]) -> str:
    """What is wrong with a record; "" if nothing is."""
    kinds = {"task": str, "metric": str, "split": str, "configuration": dict, "labels": dict}
    for name, kind in (kinds | {"seeds": dict}).items():
        if not isinstance(record.get(name), kind):
            return f"{name} is missing or no {'text' if kind is str else 'object'}"
    if not isinstance(record["configuration"].get("data"), dict):
        return "its configuration does not say which data it was measured on"
    split, metric, lengths = record["split"], record["metric"], set()
    for number, run in record["seeds"].items():
        if not number.isdecimal():
            return f"there is no seed {number[:20]!r}"
        try:
            if not np.isfinite(float(run["scores"][split][metric])):
                return f"the score of seed {number} is not a number"
            answers = [split_numbers(line) for line in run["predictions"].values()]
            lengths.add(len(split_numbers(run["predictions"][split])))
            labels = [split_numbers(line) for line in record["labels"].values()]
        except (KeyError, TypeError, ValueError, AttributeError):
            return f"seed {number} has no {metric} of {split}, or no answers"
        if not all(np.isfinite(values).all() for values in [*answers, *labels]):
            return f"seed {number} has answers that are no numbers"
    if not record["seeds"]:
        return "it has no seeds"
    if split in record["labels"]:
        lengths.add(len(split_numbers(record["labels"][split])))
    return "its seeds do not answer the same examples" if len(lengths) > 1 else ""


def _contradiction(record: Mapping[str, Any]) -> str:
    """Which score does not follow from a seed's answers, or the summary from the seeds; or ""."""
    metric, labels = record["metric"], record["labels"]
    # Points: answers that are classes are kept as they are, others with five digits.
    tolerance = 1e-6 if metric in KINDS["classification"] else 0.02
    for number, run in record["seeds"].items():
        for split, line in run["predictions"].items():
            answers, said = split_numbers(line), run["scores"].get(split, {})
            try:
                figures = {metric: answers.mean()}  # of questions, whose own F1 is given
                if split in labels:
                    figures = METRICS[metric](answers, split_numbers(labels[split]))
                differ = [k for k in figures if not abs(figures[k] - said[k]) <= tolerance]
            except (KeyError, TypeError, ValueError) as error:
                return f"the answers of seed {number} on {split} have no such scores ({error})"
            for name in differ:
                found = f"{said[name]:.3f}, and its answers give {figures[name]:.3f}"
                return f"seed {number} has the {name} {found} ({split})"
    summary = record.get("summary") or {}
    for split, figures in median_and_quartiles(record).items() if summary else ():
        for name, expected in figures.items():
            try:
                given = summary[split][name]
                agree = all(abs(given[key] - expected[key]) <= 1e-6 for key in expected)
            except (KeyError, TypeError):
                agree = False
            if not agree:
                return f"its summary of {name} on {split} is not that of its seeds"
    return ""


def open_record(path: Path, configuration: Mapping[str, Any]) -> dict:
    """The record to continue with, {} if there is none.

    Raises:
        UserError: if the file is of another configuration; the message names the differences.
    """
    if not path.exists():
        return {}
    record = read_record(path)
    now = json.loads(json.dumps(configuration))
    if changed := _differences(record["configuration"], now):
        words = ", ".join(f"{name} was {saved!r} and is {new!r}" for name, saved, new in changed)
        raise UserError(
            f"{path} holds results of another configuration: {words}.",
            "Choose another file, or delete this one.",
            setting="output",
        )
    return record


def _differences(one: Mapping, other: Mapping) -> list[tuple[str, Any, Any]]:
    """(name, value of one, value of the other) of all that differs."""
    return [(k, one.get(k), other.get(k)) for k in {**one, **other} if one.get(k) != other.get(k)]


def median_and_quartiles(record: Mapping) -> dict[str, dict[str, dict[str, float]]]:
    """Of each split and metric the median over the seeds, as in the paper, `q1` and `q3`."""
    runs = list(record["seeds"].values())
    summary: dict[str, dict[str, dict[str, float]]] = {}
    for split, figures in runs[0]["scores"].items():
        summary[split] = {}
        for metric in figures:
            scores = [run["scores"][split][metric] for run in runs]
            quartiles = np.percentile(scores, (25, 50, 75)).tolist()
            summary[split][metric] = dict(zip(("q1", "median", "q3"), quartiles, strict=True))
    return summary


def recipe_differences(one: Mapping, other: Mapping) -> list[str]:
    """In which settings two records differ, beside the model: "epochs 1 and 3", ..."""
    recipes = [
        {**record["configuration"], "training rows": record.get("rows", {}).get("train")}
        | {"seeds": len(record["seeds"])}
        for record in (one, other)
    ]
    ignored = OF_THE_MODEL
    # A second teacher's weight and temperature say nothing where there is none.
    if not any(recipe.get("distil_from") for recipe in recipes):
        ignored |= {"alpha", "temperature"}
    differences = _differences(*recipes)
    return [f"{name} {mine} and {its}" for name, mine, its in differences if name not in ignored]
