"""How much of a teacher's score a student keeps, with an interval."""

from collections.abc import Mapping

import numpy as np

from distil_lib.errors import UserError
from distil_lib.finetune.records import split_numbers
from distil_lib.masking import random_stream
from distil_lib.tasks.task import KINDS


def weighted_scores(
    metric: str, predictions: np.ndarray, labels: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """The metric, in points, of a split in which example i occurs `weights[i]` times.

    Equal to `tasks.metrics.METRICS[metric]` on the repeated examples, and quick enough for
    thousands of resamples.

    Args:
        metric: a key of `METRICS`.
        predictions: (S, N) of S seeds; of question answering ("f1") each question's own F1.
        labels: (N,).
        weights: (N,).

    Returns:
        (S,) scores.
    """
    if metric == "f1":
        return predictions @ weights / weights.sum()
    if metric == "matthews":  # of two classes, which are 0 and 1
        return _correlations(predictions, labels, weights)
    if metric in KINDS["regression"]:
        figures = []
        if metric != "spearman":
            figures.append(_correlations(predictions, labels, weights))
        if metric != "pearson":
            ranked = np.stack([_midranks(row, weights) for row in predictions])
            figures.append(_correlations(ranked, _midranks(labels, weights), weights))
        return np.mean(figures, axis=0)
    if metric == "macro F1":
        classes = np.union1d(predictions, labels)
        f1, occurs = zip(*(_f1(c, predictions, labels, weights) for c in classes), strict=True)
        return np.sum(f1, axis=0) / np.sum(occurs, axis=0)
    accuracy = 100 * (predictions == labels) @ weights / weights.sum()
    if metric == "accuracy":
        return accuracy
    if metric not in ("F1", "accuracy and F1"):
        raise ValueError(f"no weighted score for {metric!r}")
    f1, _ = _f1(1, predictions, labels, weights)
    return f1 if metric == "F1" else (accuracy + f1) / 2


def _f1(
    c: int, predictions: np.ndarray, labels: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(S,) F1 of a class, in points, and whether it occurs in the labels or a seed's answers."""
    said, true = predictions == c, labels == c
    either = said @ weights + true @ weights
    return 100 * _quotient(2 * ((said & true) @ weights), either), either > 0


def _quotient(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The quotient a / b, and 0 where b is 0, as scikit-learn scores what is not defined."""
    return np.divide(a, b, out=np.zeros(len(b)), where=b > 0)


def _midranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(N,): the rank of each value among all, repeated by weights; equal values share a rank."""
    _, place = np.unique(values, return_inverse=True)
    mass = np.bincount(place, weights)
    return (np.cumsum(mass) - mass / 2)[place]


def _correlations(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Pearson's, in points, of each row of x (S, N) with y (N,)."""
    x = x - (x @ weights / weights.sum())[:, None]
    y = y - y @ weights / weights.sum()
    return 100 * _quotient((x * y) @ weights, np.sqrt((x**2 @ weights) * (y**2 @ weights)))


def check_same_data(student: Mapping, teacher: Mapping, split: str, setting: str = "") -> None:
    """Raise `UserError` unless two records are of one task and the same rows of a split."""
    measured = [
        (record["task"], record["configuration"]["data"].get(split))
        for record in (student, teacher)
    ]
    if measured[0] != measured[1] or measured[0][1] is None:
        named = " and ".join(f"{task} ({split} {data})" for task, data in measured)
        raise UserError(
            f"The two results were not measured on the same data: {named}.",
            "Compare runs of one task and the same files.",
            setting=setting or (),
        )


def _luck_of_seeds(scores: np.ndarray, resamples: int, chance: np.random.Generator) -> np.ndarray:
    """(resamples,): how far the median of a few seeds' scores may lie from what it estimates.

    Drawn from the error of a median of n normal numbers, in units of their own standard deviation.
    Like Student's t, it holds for any n above 1, where drawing again from two or three scores
    would make the interval far too narrow.
    """
    if len(scores) < 2:
        return np.zeros(resamples)
    normal = chance.standard_normal((resamples, len(scores)))
    return scores.std(ddof=1) * np.median(normal, axis=1) / normal.std(axis=1, ddof=1)


def retention(
    student: Mapping,
    teacher: Mapping,
    split: str | None = None,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, float]:
    """How much of the teacher's median score the student's median has, with intervals.

    The intervals are percentiles of a bootstrap over examples, widened by the luck of the seeds.
    Test examples are drawn in pairs, the same for both models, because what is hard for one is
    mostly hard for the other; each draw moves the median of the seeds at hand. Then each median is
    moved by what other seeds might have given (see `_luck_of_seeds`), for each model by itself,
    since seed 3 of one has nothing to do with seed 3 of the other. Examples alone would say nothing
    of another fine-tuning; seeds alone would take a split of 71 examples for the truth. With one
    seed the interval is that of the examples alone, and says nothing of other seeds.

    Args:
        student: a record.
        teacher: a record of the same task and data.
        split: by default the one that tables report.
        resamples: of the bootstrap.
        level: of the intervals.
        seed: of the bootstrap.

    Returns:
        `retention`, `low`, `high` in percent; `difference` (student - teacher), `difference_low`,
        `difference_high` in points.

    Raises:
        UserError: for records that cannot be compared, or a teacher that scores nothing.
    """
    metric, split = student["metric"], split or student["split"]
    check_same_data(student, teacher, split)
    answers = [
        np.stack([split_numbers(run["predictions"][split]) for run in record["seeds"].values()])
        for record in (student, teacher)
    ]
    labels = (
        split_numbers(student["labels"][split])
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
    chance = random_stream(seed, 0, 0)
    drawn = np.stack([_luck_of_seeds(each, resamples, chance) for each in scores], axis=1)
    for resample in drawn:
        weights = np.bincount(
            chance.integers(len(labels), size=len(labels)), minlength=len(labels)
        ).astype(np.float64)
        resample += [np.median(weighted_scores(metric, rows, labels, weights)) for rows in answers]
    tails = 100 * np.array([(1 - level) / 2, (1 + level) / 2])
    # In a resample in which the teacher scores nothing, the ratio has no bound.
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
