"""How sure one may be of an effect that was measured with a few seeds.

    scores = {"triple": {0: 71.2, 1: 70.8, 2: 71.9}, "without-ce": {0: 68.9, 1: 69.4, 2: 69.0}}
    for effect in paired_effects(scores, reference="triple"):
        print(effect.arm, effect.mean, (effect.low, effect.high), effect.p_holm)

A seed decides order, masks and random weights of every arm alike, so arms are compared seed by
seed: what both sides share cancels in the difference. Sanh et al. (2019, Table 4) give one number
per arm; this module computes the uncertainty that such a number has.

The statistics are those of scipy and statsmodels where these have them. With few seeds, read the t
interval: it is exact for normal differences at any number of seeds. Bootstrap percentiles are too
narrow: they cover the truth in about 85 of 100 cases with 5 seeds and in 75 with 3, instead of 95.
The sign-flip test assumes least, and needs more seeds: 5 seeds have 2^5 = 32 flips, so no p-value
is below 2/32 = .0625, however large the effect.
"""

import math
from bisect import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import optimize, stats
from statsmodels.formula.api import ols

from distil_lib.errors import UserError
from distil_lib.masking import random_stream

Numbers = Sequence[float] | np.ndarray
RESAMPLES = 9999
MANY_SEEDS = 1_000_000  # no search goes beyond
WANTED = 0.8  # the chance that an effect is found


def paired_differences(values: Mapping[int, float], reference: Mapping[int, float]) -> np.ndarray:
    """`values` minus `reference`, (n,), for the n seeds that both have, in rising order."""
    seeds = sorted(values.keys() & reference.keys())
    return np.array([values[seed] - reference[seed] for seed in seeds], np.float64)


# ------------------------------------------------------------------------------ one arm
def t_interval(differences: Numbers, level: float = 0.95) -> tuple[float, float]:
    """Student's interval of the mean difference; (nan, nan) for fewer than two differences."""
    if len(differences) < 2:
        return math.nan, math.nan
    mean, error = float(np.mean(differences)), float(stats.sem(differences))
    half = float(stats.t.ppf((1 + level) / 2, len(differences) - 1)) * error
    return mean - half, mean + half


def t_test(differences: Numbers) -> float:
    """Two-sided p-value of the paired t-test; nan for fewer than two differences."""
    if len(differences) < 2:
        return math.nan
    if np.ptp(differences) == 0:  # scipy divides by the deviation, which is 0
        return float(differences[0] == 0)
    return float(stats.ttest_1samp(differences, 0).pvalue)


def bootstrap_interval(
    differences: Numbers, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean; (nan, nan) for fewer than two differences."""
    if len(differences) < 2:
        return math.nan, math.nan
    found = stats.bootstrap(
        (differences,),
        np.mean,
        n_resamples=resamples,
        confidence_level=level,
        method="percentile",
        rng=random_stream(seed),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def sign_flip_test(differences: Numbers, seed: int = 0) -> float:
    """Two-sided p-value of the permutation test for paired data.

    If arm and reference were alike, either could have come first, so each difference could as well
    have the other sign. The p-value is the share of all 2^n choices of signs with a mean as far
    from 0 as that of the data. It is exact up to 13 differences; with more, 9,999 are drawn.
    """
    if len(differences) < 2:  # scipy wants two; one difference is as far from 0 as its opposite
        return 1.0
    found = stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        n_resamples=RESAMPLES,
        rng=random_stream(seed),
    )
    return float(found.pvalue)


def holm(p_values: Numbers) -> list[float]:
    """Holm's (1979) adjusted p-values; a nan is not counted and stays.

    If all below .05 are rejected, any error at all has a probability of 5% at most.
    """
    # statsmodels' `multipletests` does the same, and collects garbage (0.1 s) at each call.
    p = np.array(p_values, np.float64)
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]  # nan is sorted last
    factors = np.arange(len(order), 0, -1)  # m for the smallest, m - 1 for the next, ..., 1
    p[order] = np.minimum(1, np.maximum.accumulate(factors * p[order]))
    return p.tolist()


# -------------------------------------------------------------------------------- power
def power(seeds: int, effect: float, deviation: float, alpha: float = 0.05) -> float:
    """The chance that the paired t-test finds a true mean difference.

    Args:
        seeds: Number of paired differences.
        effect: The true mean difference.
        deviation: Standard deviation of the differences, in the same unit.
        alpha: Level of the test.
    """
    if seeds < 2:
        return 0.0
    if deviation == 0:
        return float(effect != 0)
    # As `TTestPower` of statsmodels, which is nan where the wrong side is too small for scipy, and
    # whose `solve_power` stops early for two seeds: at a power of .785 for .8.
    limit = stats.t.ppf(1 - alpha / 2, seeds - 1)
    shift = abs(effect) / deviation * math.sqrt(seeds)
    wrong_side = np.nan_to_num(stats.nct.cdf(-limit, seeds - 1, shift))
    return float(stats.nct.sf(limit, seeds - 1, shift) + wrong_side)


def detectable_effect(seeds: int, deviation: float, alpha: float = 0.05) -> float:
    """The smallest true mean difference found in 4 of 5 cases; nan for one seed."""
    if seeds < 2 or math.isnan(deviation):
        return math.nan
    high = 1.0  # in units of the deviation
    while power(seeds, high, 1.0, alpha) < WANTED:
        high *= 2
    return deviation * optimize.brentq(lambda d: power(seeds, d, 1.0, alpha) - WANTED, 0, high)


def seeds_needed(effect: float, deviation: float) -> int:
    """The fewest seeds that find a true mean difference in 4 of 5 cases.

    Raises:
        UserError: The effect is 0.
    """
    if effect == 0:
        raise UserError(
            "No number of seeds finds an effect of 0.",
            "Ask for the smallest one that would matter.",
        )
    many = 2
    while power(many, effect, deviation) < WANTED:
        many *= 2
        if many > MANY_SEEDS:
            raise UserError(
                f"An effect of {effect:g} takes more than {MANY_SEEDS:,} seeds.",
                "Ask for the smallest one that would matter.",
            )
    enough = range(many // 2, many + 1)  # more seeds have more power: the first is found by halves
    return enough[bisect(enough, False, key=lambda n: power(n, effect, deviation) >= WANTED)]


# --------------------------------------------------------------------- all arms together
@dataclass(frozen=True)
class Effect:
    """What an arm changes against the reference. What takes two seeds is nan for one.

    Attributes:
        arm: Its name.
        seeds: How many seeds both have.
        mean: Mean of the paired differences, arm minus reference, in the measure's unit.
        deviation: Standard deviation of the differences.
        low: Lower end of the t interval.
        high: Upper end of the t interval.
        bootstrap_low: Lower end of the bootstrap interval.
        bootstrap_high: Upper end of the bootstrap interval.
        p: Of the t-test.
        p_holm: The same, corrected for the number of arms.
        p_flip: Of the sign-flip test.
        p_flip_holm: The same, corrected for the number of arms.
        detectable: The smallest effect that this many seeds find in 4 of 5 cases, uncorrected.
    """

    arm: str
    seeds: int
    mean: float
    deviation: float
    low: float
    high: float
    bootstrap_low: float
    bootstrap_high: float
    p: float
    p_holm: float
    p_flip: float
    p_flip_holm: float
    detectable: float


def paired_effects(
    values: Mapping[str, Mapping[int, float]],
    reference: str,
    arms: Iterable[str] | None = None,
) -> list[Effect]:
    """The effects of all arms that have a seed in common with the reference, in their order.

    Args:
        values: For each arm, its value by seed.
        reference: The arm that the others are compared with.
        arms: Only these arms. Holm's correction counts the arms that are returned.

    Raises:
        UserError: The reference has no value.
    """
    if not values.get(reference):
        raise UserError(
            f"There is no value of the reference {reference!r}.",
            "Run it first: every effect is a difference from it.",
        )
    differences = {
        arm: paired_differences(values[arm], values[reference])
        for arm in (values if arms is None else arms)
        if arm != reference and values.get(arm, {}).keys() & values[reference].keys()
    }
    p, p_flip = ([test(d) for d in differences.values()] for test in (t_test, sign_flip_test))
    corrected = zip(p, holm(p), p_flip, holm(p_flip), strict=True)
    effects = []
    for (arm, d), p_values in zip(differences.items(), corrected, strict=True):
        deviation = float(np.std(d, ddof=1)) if len(d) > 1 else math.nan
        intervals = (*t_interval(d), *bootstrap_interval(d))
        found = detectable_effect(len(d), deviation)
        effects.append(
            Effect(arm, len(d), float(d.mean()), deviation, *intervals, *p_values, found)
        )
    return effects


# ------------------------------------------------------------- one scatter for all arms
@dataclass(frozen=True)
class PooledEffect:
    """As `Effect`, with one standard deviation for all arms.

    Attributes:
        arm: Its name.
        seeds: How many values it has.
        mean: The least-squares effect. For an arm with fewer seeds than the reference it is not
            quite the mean of the paired differences.
        error: Its standard error.
        low: Lower end of the interval.
        high: Upper end of the interval.
        p: Of the t-test.
        p_holm: The same, corrected for the number of arms.
        freedom: Degrees of freedom, the same for all arms.
    """

    arm: str
    seeds: int
    mean: float
    error: float
    low: float
    high: float
    p: float
    p_holm: float
    freedom: int


def pooled_effects(
    values: Mapping[str, Mapping[int, float]],
    reference: str,
    arms: Iterable[str],
    level: float = 0.95,
) -> list[PooledEffect]:
    """The effects of `arms` by the linear model: value = arm + seed + scatter.

    The scatter is assumed normal and *equally wide in all arms*. Three seeds say little about an
    arm's own scatter, and all arms together say much: N values of A arms and R seeds leave
    N - A - R + 1 degrees of freedom. The price is the assumption: an arm that scatters more than
    the rest is believed too easily, one that scatters less too seldom.

    Raises:
        UserError: An arm has no value, or too few values remain to estimate the scatter.
    """
    names = [reference, *(arm for arm in arms if arm != reference)]
    if missing := [arm for arm in names if not values.get(arm)]:
        raise UserError(
            f"There is no value of {', '.join(missing)}.", "Run it first, or leave it out."
        )
    data = pd.DataFrame(
        [(arm, seed, value) for arm in names for seed, value in values[arm].items()],
        columns=["arm", "seed", "value"],
    )
    # Columns of the arms are differences from the reference, which is the first level.
    model = ols("value ~ C(arm, levels=names) + C(seed)", data)
    if model.df_resid < 1 or np.linalg.matrix_rank(model.exog) < model.exog.shape[1]:
        raise UserError(
            "Too few values for a scatter that is common to all arms.",
            "Give the arms more seeds in common.",
        )
    fit = model.fit()
    low, high = fit.conf_int(1 - level).to_numpy().T
    columns = (fit.params, fit.bse, low, high, fit.pvalues)
    # The first coefficient is the reference's mean, those after the arms are the seeds'.
    means, errors, low, high, p = (np.asarray(column)[1 : len(names)] for column in columns)
    n = int(fit.df_resid)
    rows = zip(names[1:], means, errors, low, high, p.tolist(), holm(p), strict=True)
    return [
        PooledEffect(arm, len(values[arm]), float(m), float(e), float(lo), float(hi), q, q_holm, n)
        for arm, m, e, lo, hi, q, q_holm in rows
    ]
