"""How far apart two equally good systems land on GLUE's nine development sets, by luck alone.

    ahead = equally_good(within=0.6, between=0.55)     # (20000, 9) points
    ahead.mean(axis=1).std()                           # of the macro score

A share `between` of each set is decided for everybody, a share `within - between` is drawn once
for a system and is the same in all its runs, and the rest is drawn anew in each run. What is drawn
is right with the probability that DistilBERT's score in Table 1 gives.
"""

import itertools
from collections.abc import Iterable

import numpy as np

from distil_lib.common.paths import PROJECT
from distil_lib.finetune.records import read_record, split_numbers
from distil_lib.masking import random_stream
from distil_lib.pages.paper_numbers import table

# Examples of the development sets (Wang et al. 2019); of MNLI the matched one.
DEVELOPMENT_SETS = {
    "CoLA": 1043,
    "MNLI": 9815,
    "MRPC": 408,
    "QNLI": 5463,
    "QQP": 40430,
    "RTE": 277,
    "SST-2": 872,
    "STS-B": 1500,
    "WNLI": 71,
}
TASKS = ("doc-acceptability", "doc-package", "doc-same", "doc-signature", "sst2", "mrpc")
WITHIN, BETWEEN = 0.6, 0.55  # as measured, rounded: see `measured_agreement`


def equally_good(
    within: float = WITHIN, between: float = BETWEEN, trials: int = 20_000, runs: int = 5
) -> np.ndarray:
    """(trials, 9) points by which one of two equally good systems is ahead, medians of `runs`.

    Args:
        within: the correlation of being right of two runs of one system.
        between: the same of two systems.
        trials: pairs of systems.
        runs: fine-tunings of each.
    """
    chance, columns, scores = random_stream(10), [], table(1).loc["DistilBERT"] / 100
    for task, n in DEVELOPMENT_SETS.items():
        p, pair = scores[task], (trials, 2)
        once = chance.binomial(round((within - between) * n), p, pair)
        anew = chance.binomial(round((1 - within) * n), p, (*pair, runs))
        median = once + np.median(anew, axis=-1)
        columns.append(100 * (median[:, 0] - median[:, 1]) / n)
    return np.stack(columns, 1)


def right_answers(system: str, task: str) -> np.ndarray:
    """(seeds, examples) bool: which answers of a recorded fine-tuning are right."""
    record = read_record(PROJECT / "data" / "results" / system / f"{task}.json")
    split = record["split"]
    truth = split_numbers(record["labels"][split])
    seeds = record["seeds"].values()
    return np.stack([split_numbers(run["predictions"][split]) == truth for run in seeds])


def agreement(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> float:
    """1 - observed disagreement / that of independent runs, mean over pairs of runs.

    It is 0 for coins and 1 for runs that fail at the same examples (Cohen's kappa).
    """
    found = []
    for x, y in pairs:
        p, other = x.mean(), y.mean()
        found.append(1 - (x != y).mean() / (p * (1 - other) + other * (1 - p)))
    return float(np.mean(found))


def measured_agreement() -> dict[str, tuple[float, float]]:
    """{task: (within, between)} of the default student and the one without a teacher."""
    found = {}
    for task in TASKS:
        mine, theirs = (right_answers(s, task) for s in ("student", "student-without-teacher"))
        within = [agreement(itertools.combinations(x, 2)) for x in (mine, theirs)]
        found[task] = (float(np.mean(within)), agreement(itertools.product(mine, theirs)))
    return found
