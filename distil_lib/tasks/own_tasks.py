"""A task of your own: a few lines of YAML instead of code.

    # my_task.yaml
    source: data/ag_news       # a folder of CSV, TSV, JSONL or Parquet files; or hub:OWNER/NAME
    text: text                 # one column, or two: [premise, hypothesis]
    label: label               # the label column
    metric: accuracy
    labels: [World, Sports, Business, Sci/Tech]   # optional: names in the order of the ids
    splits: [train, test]           # optional: the first is trained on, the others are scored

    python -m distil_lib.finetune --model data/student --task my_task.yaml

A folder holds a file for each split: `train.csv`, `test.csv`, or several: `train-0.parquet`, ...
A relative path starts at the folder of the YAML file. A regression has the metric pearson, spearman
or both. In Python the same is a `task.Task` with a `folder` or a `repository`.
"""

import math
from pathlib import Path
from types import MappingProxyType
from typing import Any

from distil_lib.common.files import read_yaml
from distil_lib.errors import UserError
from distil_lib.tasks.task import KINDS, Task

# From the name that a file gives to the key of `metrics.METRICS`.
REGRESSION = MappingProxyType({metric.lower(): metric for metric in KINDS["regression"]})
MEASURED = MappingProxyType(
    {metric.lower(): metric for metric in KINDS["classification"]}
    | {"mcc": "matthews"}
    | REGRESSION
)
KEYS = ("source", "text", "label", "metric", "labels", "splits")


def read_task_declaration(file: str | Path) -> Task:
    """The task that a YAML file declares, named as the file is.

    Raises:
        UserError: for a file that cannot be read, an unknown key or metric, or a bad value.
    """
    path = Path(file)
    given = read_yaml(path)
    if not isinstance(given, dict):
        raise UserError(
            f"{path} declares no task.",
            "Pass a YAML file with the lines source, text, label and metric.",
        )
    if unknown := [str(key)[:60] for key in given if key not in KEYS]:
        raise UserError(
            f"{path} has an unknown key {unknown[0]!r}.", f"The keys are {', '.join(KEYS)}."
        )
    if missing := [key for key in ("source", "text", "label", "metric") if key not in given]:
        raise UserError(f"{path} does not say {', '.join(missing)}.", "Add the line.")
    text = _words(path, "text", given["text"], at_most=2)
    metric = _word(path, "metric", given["metric"])
    spelled = metric.casefold().replace("_", " ").replace("-", " ").replace("/", " and ")
    kind = "regression" if spelled in REGRESSION else "classification"
    if spelled not in MEASURED:
        raise UserError(
            f"{path} has the unknown metric {metric[:60]!r}.",
            f"Choose from {', '.join(MEASURED)}.",
        )
    labels = _words(path, "labels", given["labels"]) if "labels" in given else ()
    if labels and (kind == "regression" or len(labels) < 2 or len(set(labels)) < len(labels)):
        raise UserError(
            f"{path} has the labels {', '.join(labels)[:200]} and the metric {metric}.",
            "A classification has at least two labels, each once; a regression has none.",
        )
    splits = _words(path, "splits", given.get("splits", ["train", "validation"]))
    if len(splits) < 2:
        raise UserError(
            f"{path} names one split only.", "Name one to train on and one to score: [train, test]."
        )
    if splits[0] != "train" or len(set(splits)) < len(splits):
        raise UserError(
            f"{path} has the splits {', '.join(splits)[:200]}.",
            "The first is `train`, and each is there once: what is trained on is not scored.",
        )
    label = _word(path, "label", given["label"])
    if len({*text, label}) <= len(text):
        raise UserError(f"{path} names one column twice.", "Texts and label have one each.")
    place = _word(path, "source", given["source"])
    on_hub = place.startswith("hub:")
    repository, _, config = place.removeprefix("hub:").partition(":") if on_hub else ("", "", "")
    return Task(
        path.stem,
        kind,
        text,
        MEASURED[spelled],
        source=place,
        repository=repository,
        config=config,
        folder="" if on_hub else str(path.parent / place),
        label=label,
        labels=labels,
        low=-math.inf,
        high=math.inf,
        splits=splits,
        evaluation=splits[1:],
    )


def _word(path: Path, key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UserError(
            f"{path}: {key} is a {type(value).__name__}.",
            "Expected is a name: write it in quotation marks.",
        )
    return value


def _words(path: Path, key: str, value: Any, at_most: int = 1000) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    if not 1 <= len(values) <= at_most:
        raise UserError(f"{path}: {key} has {len(values)} names.", f"Name 1 to {at_most}.")
    if key == "labels":
        values = [str(v) if isinstance(v, int) and not isinstance(v, bool) else v for v in values]
    return tuple(_word(path, key, each) for each in values)
