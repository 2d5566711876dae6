"""How much of a teacher's score a student keeps, with an interval."""

from collections.abc import Mapping

import numpy as np

from distil_lib.errors import UserError
from distil_lib.finetune.results import unpack
from distil_lib.masking import random_stream

CORRELATIONS = ("spearman", "Pearson and Spearman")


def weighted_scores(
    metric: str, predictions: np.ndarray, labels: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """The metric, in points, of a split in which example i occurs `weights[i]` times: (S,) for the predictions (S, N) of S seeds.

    labels, weights: (N,). Equal to `task_metrics.METRICS[metric]` on the repeated examples, and quick enough for thousands of
    resamples. Of question answering ("f1") the predictions are each question's own F1 in points.
    """
    total = weights.sum()
    if metric == "f1":
        return predictions @ weights / total
    if metric in CORRELATIONS:
        ranked = np.stack([_midranks(row, weights) for row in predictions])
        spearman = _correlations(ranked, _midranks(labels, weights), weights)
        return (
            spearman
            if metric == "spearman"
            else (spearman + _correlations(predictions, labels, weights)) / 2
        )
    accuracy = 100 * (predictions == labels) @ weights / total
    if metric == "accuracy":
        return accuracy
    # Binary: true and false positives, false and true negatives.
    tp, fp, fn, tn = (
        ((predictions == p) & (labels == y)) @ weights for p, y in ((1, 1), (1, 0), (0, 1), (0, 0))
    )
    if metric == "accuracy and F1":
        return (accuracy + 100 * _quotient(2 * tp, 2 * tp + fp + fn)) / 2
    if metric == "matthews":
        return 100 * _quotient(
            tp * tn - fp * fn, np.sqrt(1.0 * (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
        )
    raise ValueError(f"no weighted score for {metric!r}")


def _quotient(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b, and 0 where b is 0: what scikit-learn gives for a figure that is not defined."""
    return np.divide(a, b, out=np.zeros(len(b)), where=b > 0)


def _midranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(N,): the rank of each value among all, repeated by their weights; equal values share their mean rank."""
    _, place = np.unique(values, return_inverse=True)
    mass = np.bincount(place, weights)
    return (np.cumsum(mass) - mass / 2 + 0.5)[place]


def _correlations(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Pearson's, in points, of each row of x (S, N) with y (N,)."""
    x = x - (x @ weights / weights.sum())[:, None]
    y = y - y @ weights / weights.sum()
    return 100 * _quotient((x * y) @ weights, np.sqrt((x**2 @ weights) * (y**2 @ weights)))


def retention(
    student: Mapping,
    teacher: Mapping,
    split: str | None = None,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, float]:
    """How much of the teacher's median score the student's median has, in percent, and the difference in points, with intervals.

    student, teacher: records of the same task and data. split: by default the one that tables report.

    Returns `retention`, `low`, `high`; `difference` (student - teacher), `difference_low`, `difference_high`. The intervals are
    percentiles of a bootstrap over examples and seeds (`level` of 100%). Test examples are drawn in pairs, the same for both models,
    because what is hard for one is mostly hard for the other; each draw moves the median of the seeds at hand. Seeds are drawn for each
    model by itself, since seed 3 of one has nothing to do with seed 3 of the other, and each draw moves their mean, by which the median is
    shifted: a median of five drawn from five jumps, and would make the interval too wide. Examples alone would say nothing of another
    fine-tuning; seeds alone would take a split of 71 examples for the truth. In simulations 95 to 99 of 100 intervals cover the
    truth. Raises `UserError` for records that cannot be compared, or a teacher who scores nothing.
    """
    metric, split = student["metric"], split or student["split"]
    measured = [
        (record["task"], record["configuration"]["data"].get(split))
        for record in (student, teacher)
    ]
    if measured[0] != measured[1]:
        named = " and ".join(f"{task} ({split} {data})" for task, data in measured)
        raise UserError(
            f"The two results were not measured on the same data: {named}.",
            "Compare runs of one task and the same files.",
        )
    answers = [
        np.stack([unpack(run["predictions"][split]) for run in record["seeds"].values()])
        for record in (student, teacher)
    ]
    labels = (
        unpack(student["labels"][split])
        if split in student["labels"]
        else np.zeros(answers[0].shape[1])
    )
    all_once = np.ones(len(labels))
    scores = [weighted_scores(metric, rows, labels, all_once) for rows in answers]
    mine, theirs = (np.median(each) for each in scores)
    if theirs <= 0:
        raise UserError(
            f"The teacher's {metric} on {split} is {theirs:.1f}.",
            "There is nothing to retain: compare the scores themselves.",
        )
    chance, drawn = random_stream(seed, 0, 0), np.empty((resamples, 2))
    for resample in drawn:
        weights = np.bincount(
            chance.integers(len(labels), size=len(labels)), minlength=len(labels)
        ).astype(np.float64)
        for model, (rows, each) in enumerate(zip(answers, scores, strict=True)):
            other_seeds = each[chance.integers(len(each), size=len(each))].mean() - each.mean()
            resample[model] = (
                np.median(weighted_scores(metric, rows, labels, weights)) + other_seeds
            )
    tails = 100 * np.array([(1 - level) / 2, (1 + level) / 2])
    # A resample in which the teacher scores nothing keeps anything: the ratio has no bound there.
    ratios = np.where(
        drawn[:, 1] > 0, 100 * drawn[:, 0] / np.where(drawn[:, 1] > 0, drawn[:, 1], 1), np.inf
    )
    low, high = np.percentile(ratios, tails, method="nearest").tolist()
    below, above = np.percentile(drawn[:, 0] - drawn[:, 1], tails).tolist()
    return {
        "retention": float(100 * mine / theirs),
        "low": low,
        "high": high,
        "difference": float(mine - theirs),
        "difference_low": below,
        "difference_high": above,
    }
