"""How sure one may be of an effect that was measured with a few seeds.

    scores = {"triple": {0: 71.2, 1: 70.8, 2: 71.9}, "without-ce": {0: 68.9, 1: 69.4, 2: 69.0}}
    for effect in paired_effects(scores, reference="triple"):
        print(effect.arm, effect.mean, (effect.low, effect.high), effect.p_holm, effect.detectable)

A seed decides order, masks and random weights of every arm alike, so arms are compared seed by seed: what is common to both sides
cancels in the difference. Sanh et al. (2019, Table 4) give one number an arm; these are what it could have been given with.

Few seeds are few. The t interval is the one to read: it is exact for normal differences at any number of seeds. Percentiles of a bootstrap
are too narrow then, and cover the truth in about 85 of 100 cases with 5 seeds, in 75 with 3, when 95 are promised. The sign-flip test
assumes least and pays for it: 5 seeds have 2^5 = 32 flips, so that no p-value is below 2/32 = .0625, however large the effect.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from distil_lib.errors import UserError
from distil_lib.masking import random_stream

EXACT = 12  # differences up to which all 2^n flips of the signs are looked at
RESAMPLES = 9999


def paired_differences(values: Mapping[int, float], reference: Mapping[int, float]) -> np.ndarray:
    """(n,) `values` minus `reference` for the n seeds that both have, in rising order."""
    return np.array(
        [values[seed] - reference[seed] for seed in sorted(values.keys() & reference.keys())],
        np.float64,
    )


# ------------------------------------------------------------------------------------------------------------------- intervals
def t_interval(differences: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Student's interval of the mean difference; (nan, nan) of fewer than two."""
    n = len(differences)
    if n < 2:
        return math.nan, math.nan
    half = float(stats.t.ppf((1 + level) / 2, n - 1) * np.std(differences, ddof=1) / math.sqrt(n))
    mean = float(np.mean(differences))
    return mean - half, mean + half


def bootstrap_interval(
    differences: Sequence[float], level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Percentiles of the means of `resamples` draws with replacement; (nan, nan) of fewer than two. Too narrow for few (see above)."""
    drawn = np.asarray(differences, np.float64)
    if len(drawn) < 2:
        return math.nan, math.nan
    means = drawn[random_stream(seed).integers(len(drawn), size=(resamples, len(drawn)))].mean(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return low, high


# ------------------------------------------------------------------------------------------------------------------------ tests
def t_test(differences: Sequence[float]) -> float:
    """Two-sided p-value of the paired t-test; nan of fewer than two differences."""
    n = len(differences)
    if n < 2:
        return math.nan
    mean, error = abs(np.mean(differences)), np.std(differences, ddof=1) / math.sqrt(n)
    if error == 0:
        return float(mean == 0)
    return float(2 * stats.t.sf(mean / error, n - 1))


def sign_flip_test(differences: Sequence[float], seed: int = 0) -> float:
    """Two-sided p-value of the permutation test for paired data: how often the mean of differences with signs flipped at random is as far
    from 0 as theirs. nan of none.

    If arm and reference were alike, either could have come first: all signs would be equally likely. Exact up to 12 differences (all
    2^n flips), so its smallest value is 2/2^n: .25 with 3 seeds, .0625 with 5, .03125 with 6. With more, 9,999 flips are drawn.
    """
    observed = np.asarray(differences, np.float64)
    n = len(observed)
    if n == 0:
        return math.nan
    if n <= EXACT:
        signs = 1 - 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
    else:  # the flips as they came count as one of the draws, so that p is never 0
        signs = np.vstack([np.ones(n), random_stream(seed).choice([-1, 1], size=(RESAMPLES, n))])
    sums = np.abs(signs @ observed)
    return float((sums >= sums[0] * (1 - 1e-12)).mean())


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p-values: below .05 they reject so that all together err once at all with a chance of 5% at most.

    The smallest of m is multiplied by m, the next by m - 1, ...; none may fall below one before it. nan is nobody's rival and stays.
    """
    adjusted = [math.nan] * len(p_values)
    order = sorted(
        (i for i, p in enumerate(p_values) if not math.isnan(p)), key=lambda i: p_values[i]
    )
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min((len(order) - rank) * p_values[i], 1.0))
        adjusted[i] = highest
    return adjusted


# ------------------------------------------------------------------------------------------------------------------------ power
def power(seeds: int, effect: float, deviation: float, alpha: float = 0.05) -> float:
    """The chance that the paired t-test of so many seeds finds a true mean difference.

    effect: that difference. deviation: the standard deviation of the differences, in the same unit. alpha: the level of the test.
    """
    if seeds < 2:
        return 0.0
    if deviation == 0:
        return float(effect != 0)
    limit, shift = stats.t.ppf(1 - alpha / 2, seeds - 1), abs(effect) / deviation * math.sqrt(seeds)
    wrong_side = np.nan_to_num(
        stats.nct.cdf(-limit, seeds - 1, shift)
    )  # nan where it is too small for `scipy`
    return float(stats.nct.sf(limit, seeds - 1, shift) + wrong_side)


def detectable_effect(
    seeds: int, deviation: float, alpha: float = 0.05, wanted: float = 0.8
) -> float:
    """The smallest true mean difference that so many seeds would have found with the chance `wanted`; nan of fewer than two."""
    if seeds < 2 or math.isnan(deviation):
        return math.nan
    if deviation == 0:
        return 0.0
    high = 1.0  # in units of the deviation
    while power(seeds, high, 1.0, alpha) < wanted:
        high *= 2
    return deviation * optimize.brentq(
        lambda effect: power(seeds, effect, 1.0, alpha) - wanted, 0.0, high
    )


def seeds_needed(effect: float, deviation: float, alpha: float = 0.05, wanted: float = 0.8) -> int:
    """The fewest seeds that find a true mean difference of this size with the chance `wanted`. Raises `UserError` for no effect."""
    if effect == 0:
        raise UserError(
            "No number of seeds finds an effect of 0.",
            "Ask for the smallest one that would matter.",
        )
    enough = lambda seeds: power(seeds, effect, deviation, alpha) >= wanted
    few, many = 1, 2
    while not enough(many):
        few, many = many, 2 * many
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if enough(middle) else (middle, many)
    return many


# --------------------------------------------------------------------------------------------------------------- all arms together
@dataclass(frozen=True)
class Effect:
    """What an arm changes against the reference.

    seeds: how many both have. mean: of the paired differences, arm minus reference, in the measure's unit. deviation: their standard
    deviation. low, high: the t interval; bootstrap_low, bootstrap_high: the bootstrap's. p: of the t-test; p_flip: of the sign-flip test;
    p_holm, p_flip_holm: the same corrected for the number of arms. detectable: the smallest effect that so many seeds would have found,
    uncorrected, in 4 of 5 cases. What takes two seeds is nan of one.
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
    level: float = 0.95,
    arms: Iterable[str] | None = None,
) -> list[Effect]:
    """The effects of all arms (or of `arms`) that have a seed in common with the reference, in their order.

    values: of each arm its value by seed. Holm's correction counts the arms that are returned. Raises `UserError` if the reference
    has no value.
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
    effects = []
    for (arm, d), *ps in zip(differences.items(), p, holm(p), p_flip, holm(p_flip), strict=True):
        deviation = float(np.std(d, ddof=1)) if len(d) > 1 else math.nan
        intervals = (*t_interval(d, level), *bootstrap_interval(d, level))
        effects.append(
            Effect(
                arm,
                len(d),
                float(d.mean()),
                deviation,
                *intervals,
                *ps,
                detectable_effect(len(d), deviation),
            )
        )
    return effects


# -------------------------------------------------------------------------------------------------------- one scatter for all arms
@dataclass(frozen=True)
class PooledEffect:
    """As `Effect`, by the pooled scatter. mean: the least-squares effect, which for arms with fewer seeds than the reference is not quite
    the mean of their differences. error: its standard error. freedom: degrees of freedom, the same for all arms."""

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
    """The effects of `arms` if each value is an arm's plus a seed's plus a scatter that is normal and *equally wide in all arms*.

    Arms with three seeds say little about their own scatter, and much together. Of N values of A arms and R seeds it is known with
    N - A - R + 1 degrees of freedom. The price is the assumption: an arm that scatters more than the rest is believed too easily,
    one that scatters less too seldom. Raises `UserError` if an arm or the reference has no value, or nothing is left to estimate from.
    """
    names = [reference, *(arm for arm in arms if arm != reference)]
    if missing := [arm for arm in names if not values.get(arm)]:
        raise UserError(
            f"There is no value of {', '.join(missing)}.", "Run it first, or leave it out."
        )
    cells = [(arm, seed) for arm in names for seed in values[arm]]
    columns = [*names, *sorted({seed for _, seed in cells})[1:]]
    design = np.array([[column in cell for column in columns] for cell in cells], np.float64)
    y = np.array([values[arm][seed] for arm, seed in cells], np.float64)
    freedom = len(cells) - len(columns)
    if freedom < 1 or np.linalg.matrix_rank(design) < len(columns):
        raise UserError(
            "Too few values for a scatter that is common to all arms.",
            "Give the arms more seeds in common.",
        )
    fitted = np.linalg.lstsq(design, y, rcond=None)[0]
    covariance = ((y - design @ fitted) ** 2).sum() / freedom * np.linalg.inv(design.T @ design)
    means = fitted[1 : len(names)] - fitted[0]
    errors = np.sqrt(
        np.diag(covariance)[1 : len(names)] + covariance[0, 0] - 2 * covariance[0, 1 : len(names)]
    )
    p = np.where(
        errors > 0,
        2 * stats.t.sf(np.abs(means) / np.where(errors > 0, errors, 1.0), freedom),
        means == 0,
    ).tolist()
    half = stats.t.ppf((1 + level) / 2, freedom) * errors
    return [
        PooledEffect(
            arm,
            len(values[arm]),
            float(m),
            float(e),
            float(m - h),
            float(m + h),
            q,
            q_holm,
            freedom,
        )
        for arm, m, e, h, q, q_holm in zip(names[1:], means, errors, half, p, holm(p), strict=True)
    ]
