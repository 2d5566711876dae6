"""The exercises of page H, on auditing the sources."""

import numpy as np
from scipy.stats import binom

from distil_lib.pages.exercises import Exercise
from distil_lib.pages.paper_numbers import right_answers, table

VALUES = 1001  # percentages with one decimal, from 0.0 to 100.0
RUNS, RIGHT, EXAMPLES, TASKS = 5, 40, 71, 9


def impossible(examples: int) -> float:
    """The share of printed percentages that no number of right answers gives."""
    return sum(not right_answers(value / 10, examples) for value in range(VALUES)) / VALUES


def never_exact(examples: int) -> float:
    """The same without rounding: percentages that are exact to the last digit."""
    return sum(value * examples % 1000 != 0 for value in range(VALUES)) / VALUES


def kept(mnli: float = 84.7, by_task: bool = True) -> float:
    """Mean of DistilBERT's nine shares of BERT-base's scores, in percent; or share of the means."""
    glue = table(1).drop(columns="Score")
    glue.loc["BERT-base", "MNLI"] = mnli
    student, bert = glue.loc["DistilBERT"], glue.loc["BERT-base"]
    return float(100 * ((student / bert).mean() if by_task else student.mean() / bert.mean()))


def luck(runs: int = RUNS, differences: int = 2, tasks: int = TASKS) -> float:
    """Standard deviation, in points, of the difference of medians of `runs` runs on WNLI."""
    k = np.arange(EXAMPLES + 1)
    below = binom.cdf(k, EXAMPLES, RIGHT / EXAMPLES)
    chance = np.diff(binom.sf(runs // 2, runs, below), prepend=0)
    deviation = np.sqrt((chance * k**2).sum() - (chance * k).sum() ** 2)
    return float(np.sqrt(differences) * deviation * 100 / EXAMPLES / tasks)


EXERCISES = {
    "ex-h-1": Exercise(
        answer=4.2,
        mistakes={
            "This is the mean of the printed marks. Each mark may have been larger.": 4.1,
            "This is the largest mean of the true marks. How is it printed?": 4.15,
            "The mean of rounded numbers is as uncertain as one of them, not as all three.": 4.3,
        },
    ),
    "ex-h-2": Exercise(
        answer=kept,
        mistakes={
            "With 86.7 on MNLI, which is a misprint: use 84.7.": lambda: kept(86.7),
            "This is the quotient of the means. Divide task by task first.": lambda: kept(
                by_task=False
            ),
            "This is a share. Give percent.": lambda: kept() / 100,
        },
        tolerance=3e-4,
    ),
    "ex-h-3": Exercise(
        answer=impossible,
        inputs=lambda: [(71,), (277,), (872,), (1043,)],
        mistakes={
            "This is the share of the values that are possible.": lambda n: 1 - impossible(n),
            "A printed value stands for all that round to it.": never_exact,
            "Divide by the 1,001 printed values.": lambda n: impossible(n) * VALUES,
        },
        tolerance=1e-4,
    ),
    "ex-h-4": Exercise(
        answer=luck,
        mistakes={
            "This is the scatter of one score. A difference has two.": lambda: luck(differences=1),
            "This is for single runs. The median of five scatters less.": lambda: luck(runs=1),
            "WNLI is one of nine tasks of the macro score.": lambda: luck(tasks=1),
        },
        tolerance=1e-2,
    ),
}
