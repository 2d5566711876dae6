"""What a task is scored by: GLUE's metrics and its macro score, in points out of 100 as the papers print them.

    METRICS["accuracy and F1"](predictions=[0, 1, 1], labels=[0, 1, 0])      # {"accuracy and F1": 66.7, "accuracy": 66.7, "f1": 66.7}
    macro_score({"CoLA": 51.3, "MNLI": 82.2, ...})                           # over nine, and over eight without WNLI

Of each metric the first figure, which bears its name, is the one that a table reports. Sources: Wang et al. 2018, section 3 (GLUE);
Warstadt et al. 2018 (CoLA's Matthews correlation); Rajpurkar et al. 2016, section 6.1 (exact match and F1; see `squad`).
"""

import warnings
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from scipy.stats import ConstantInputWarning, pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from distil_lib.errors import UserError
from distil_lib.tasks.squad import exact_match_and_f1

GLUE = (
    "cola",
    "mnli",
    "mrpc",
    "qnli",
    "qqp",
    "rte",
    "sst2",
    "stsb",
    "wnli",
)  # in the order of the paper's Table 1


def matthews(predictions: Sequence[int], labels: Sequence[int]) -> dict[str, float]:
    """The correlation of two binary choices (Matthews 1975): 0 for chance and for whoever always says the same."""
    return {"matthews": 100 * float(matthews_corrcoef(labels, predictions))}


def accuracy(predictions: Sequence[int], labels: Sequence[int]) -> dict[str, float]:
    return {"accuracy": 100 * float(accuracy_score(labels, predictions))}


def accuracy_and_f1(predictions: Sequence[int], labels: Sequence[int]) -> dict[str, float]:
    """The mean of the two, and each of them; F1 is that of label 1 ("equivalent", "duplicate")."""
    right, f1 = (
        100 * float(accuracy_score(labels, predictions)),
        100 * float(f1_score(labels, predictions, zero_division=0.0)),
    )
    return {"accuracy and F1": (right + f1) / 2, "accuracy": right, "f1": f1}


def pearson_and_spearman(predictions: Sequence[float], labels: Sequence[float]) -> dict[str, float]:
    """The mean of the two correlations, and each of them; what is constant correlates with nothing: 0."""
    figures = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantInputWarning)
        for name, correlation in (("pearson", pearsonr), ("spearman", spearmanr)):
            figures[name] = 100 * float(np.nan_to_num(correlation(predictions, labels).statistic))
    return {"Pearson and Spearman": sum(figures.values()) / 2} | figures


def spearman(predictions: Sequence[float], labels: Sequence[float]) -> dict[str, float]:
    """The correlation of ranks alone: for labels whose steps have an order and no size."""
    return {"spearman": pearson_and_spearman(predictions, labels)["spearman"]}


METRICS = MappingProxyType(
    {
        "matthews": matthews,
        "accuracy": accuracy,
        "accuracy and F1": accuracy_and_f1,
        "Pearson and Spearman": pearson_and_spearman,
        "spearman": spearman,
        "f1": exact_match_and_f1,
    }
)


def macro_score(scores: Mapping[str, float]) -> dict[str, float]:
    """The plain mean over GLUE's tasks: `nine` of them, and `eight` without WNLI.

    scores: from the name of each task ("cola", "CoLA", "SST-2", ...) to the figure that is reported for it: of MNLI the matched
    accuracy, as in the paper's Table 1. Names beyond GLUE's are left out of account.

    Without WNLI, because its 71 development examples let two of them move the mean of nine by .31. `nine` is NaN where only WNLI is
    missing. Raises `UserError` if any other task is: a mean over what happens to be there can be compared with nothing.
    """
    named = {
        name.lower().replace("-", "").replace("_", ""): score for name, score in scores.items()
    }
    missing = [name for name in GLUE if name not in named and name != "wnli"]
    if missing:
        raise UserError(
            f"GLUE's macro score lacks {', '.join(missing)}.",
            f"It is the mean over {', '.join(GLUE)}.",
        )
    eight = [named[name] for name in GLUE if name != "wnli"]
    return {"nine": (sum(eight) + named.get("wnli", float("nan"))) / 9, "eight": sum(eight) / 8}
