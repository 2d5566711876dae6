"""What a task is scored by: GLUE's metrics and its macro score, in points out of 100.

    METRICS["accuracy and F1"](predictions=[0, 1, 1], labels=[0, 1, 0])
    # {"accuracy and F1": 66.7, "accuracy": 66.7, "f1": 66.7}
    macro_score({"CoLA": 51.3, "MNLI": 82.2, ...})       # over nine, and over eight without WNLI

Of each metric the first figure, which has its name, is the one that a table reports. Sources: Wang
et al. 2018, section 3 (GLUE); Warstadt et al. 2018 (CoLA's Matthews correlation); Rajpurkar et al.
2016, section 6.1 (exact match and F1; see `squad`).
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from scipy.stats import ConstantInputWarning, pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from distil_lib.errors import UserError
from distil_lib.tasks.squad import exact_match_and_f1

# In the order of the paper's Table 1.
GLUE = ("cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb", "wnli")


def matthews(predictions: Sequence[int], labels: Sequence[int]) -> dict[str, float]:
    """The correlation of two choices (Matthews 1975): 0 for chance and for a constant answer."""
    return {"matthews": 100 * float(matthews_corrcoef(labels, predictions))}


def accuracy(predictions: Sequence[int], labels: Sequence[int]) -> dict[str, float]:
    """The share of right answers."""
    return {"accuracy": 100 * float(accuracy_score(labels, predictions))}


def accuracy_and_f1(predictions: Sequence[int], labels: Sequence[int]) -> dict[str, float]:
    """The mean of the two, and each of them; F1 is that of label 1 ("equivalent", "duplicate")."""
    right, f1 = accuracy(predictions, labels)["accuracy"], binary_f1(predictions, labels)["F1"]
    return {"accuracy and F1": (right + f1) / 2, "accuracy": right, "f1": f1}


def binary_f1(predictions: Sequence[int], labels: Sequence[int]) -> dict[str, float]:
    """The F1 of label 1, of two."""
    return {"F1": 100 * float(f1_score(labels, predictions, zero_division=0.0))}


def macro_f1(predictions: Sequence[int], labels: Sequence[int]) -> dict[str, float]:
    """The mean of the classes' F1s, of those classes that occur."""
    return {"macro F1": 100 * float(f1_score(labels, predictions, average="macro"))}


def pearson_and_spearman(predictions: Sequence[float], labels: Sequence[float]) -> dict[str, float]:
    """The mean of the two correlations, and each of them; 0 for what is constant."""
    figures = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantInputWarning)
        for name, correlation in (("pearson", pearsonr), ("spearman", spearmanr)):
            figures[name] = 100 * float(np.nan_to_num(correlation(predictions, labels).statistic))
    return {"Pearson and Spearman": sum(figures.values()) / 2} | figures


def pearson(predictions: Sequence[float], labels: Sequence[float]) -> dict[str, float]:
    """The linear correlation alone."""
    return {"pearson": pearson_and_spearman(predictions, labels)["pearson"]}


def spearman(predictions: Sequence[float], labels: Sequence[float]) -> dict[str, float]:
    """The correlation of ranks alone: for labels whose steps have an order but no size."""
    return {"spearman": pearson_and_spearman(predictions, labels)["spearman"]}


METRICS: Mapping[str, Callable[..., dict[str, float]]] = MappingProxyType(
    {
        "matthews": matthews,
        "accuracy": accuracy,
        "F1": binary_f1,
        "macro F1": macro_f1,
        "accuracy and F1": accuracy_and_f1,
        "Pearson and Spearman": pearson_and_spearman,
        "pearson": pearson,
        "spearman": spearman,
        "f1": exact_match_and_f1,
    }
)


def macro_score(scores: Mapping[str, float]) -> dict[str, float]:
    """The plain mean over GLUE's tasks: `nine` of them, and `eight` without WNLI.

    Without WNLI, because two of its 71 development examples move the mean of nine by 0.31. `nine`
    is NaN where only WNLI is missing.

    Args:
        scores: from the name of each task ("cola", "CoLA", "SST-2", ...) to the figure that is
            reported for it: of MNLI the matched accuracy, as in the paper's Table 1. Other names
            are ignored.

    Raises:
        UserError: if any other task is missing: such a mean can be compared with nothing.
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
