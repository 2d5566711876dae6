"""Statistics of a few paired differences: against textbook formulas, counting and simulation."""

import itertools
import math
import warnings

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from distil_lib.ablation.paired_effects import (
    bootstrap_interval,
    detectable_effect,
    holm,
    paired_differences,
    paired_effects,
    pooled_effects,
    power,
    seeds_needed,
    sign_flip_test,
    t_interval,
    t_test,
)
from distil_lib.errors import UserError
from distil_lib.masking import random_stream

TRIALS = 2000


def draws(n: int, effect: float = 0.0, trials: int = TRIALS, seed: int = 0) -> np.ndarray:
    """(trials, n) normal differences of standard deviation 1 with a known mean."""
    return effect + random_stream(seed).standard_normal((trials, n))


def by_chance(count: int, share: float, trials: int = TRIALS) -> bool:
    """Whether `count` of `trials` may well happen where each happens with this chance: within 99.9%
    of the binomial distribution.
    """
    return bool(stats.binomtest(int(count), trials, share).pvalue > 1e-3)


# --------------------------------------------------------------------------------- against formulas
@pytest.mark.parametrize("n", [2, 3, 5, 9])
def test_t_is_students(n):
    """Oracle: the formulas, and `ttest_rel` of the two arms in place of their differences."""
    for d in draws(n, 0.7, 20):
        half = stats.t.ppf(0.95, n - 1) * d.std(ddof=1) / math.sqrt(n)
        assert t_interval(d, 0.9) == pytest.approx((d.mean() - half, d.mean() + half))
        other = draws(n, seed=1, trials=1)[0]
        theirs = stats.ttest_rel(d + other, other)
        assert t_test(d) == pytest.approx(theirs.pvalue)
        assert t_interval(d, 0.9) == pytest.approx(tuple(theirs.confidence_interval(0.9)))


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_flips_are_counted(n):
    """Oracle: all 2^n choices of signs; with ties, and with a mean of 0."""
    for d in [*draws(n, 0.7, 5), np.ones(n), np.arange(n) - (n - 1) / 2]:
        sums = np.abs(np.array(list(itertools.product((1, -1), repeat=n))) @ d)
        assert sign_flip_test(d) == pytest.approx((sums >= abs(d.sum()) - 1e-12).mean())


def test_many_flips_are_drawn_and_come_near_the_t_test():
    for d in draws(30, 0.3, 5):
        assert sign_flip_test(d) == pytest.approx(t_test(d), abs=0.02)
    assert sign_flip_test(10 + draws(30, 0, 1)[0]) <= 2 / 10_000
    assert sign_flip_test(10 + draws(30, 0, 1)[0]) > 0


def test_the_smallest_p_value_of_a_few_seeds():
    """By hand: of all 2^n flips only none and all leave equal differences as far from 0."""
    assert [sign_flip_test([2.0] * n) for n in (1, 3, 5, 6)] == [1, 0.25, 0.0625, 0.03125]


def test_the_bootstrap_is_of_all_samples():
    """Oracle: all n^n samples."""
    d = draws(5, 0.7, 1)[0]
    means = np.array(list(itertools.product(d, repeat=5))).mean(1)
    everything = np.quantile(means, [0.025, 0.975])
    assert bootstrap_interval(d, resamples=20_000) == pytest.approx(tuple(everything), abs=0.04)
    assert bootstrap_interval(d) == bootstrap_interval(d) != bootstrap_interval(d, seed=1)


# ------------------------------------------------------------------------- known effects, simulated
@pytest.mark.parametrize("n", [3, 5])
def test_intervals_cover_the_truth_as_often_as_they_say(n):
    """The t interval 95 of 100 times; the bootstrap's about as often as |t| stays below 1.96 of its
    own, smaller standard error.
    """
    samples = draws(n, 2.0)
    inside = lambda bounds: bounds[0] <= 2.0 <= bounds[1]
    assert by_chance(sum(inside(t_interval(d)) for d in samples), 0.95)
    covered = np.mean([inside(bootstrap_interval(d, resamples=400)) for d in samples[:800]])
    expected = 1 - 2 * stats.t.sf(1.96 * math.sqrt((n - 1) / n), n - 1)
    assert covered == pytest.approx(expected, abs=0.04) and covered < 0.9


def test_without_an_effect_tests_are_wrong_as_often_as_they_say():
    samples = draws(6)
    assert by_chance(sum(t_test(d) <= 0.05 for d in samples), 0.05)
    assert by_chance(
        sum(sign_flip_test(d) <= 0.05 for d in samples), 2 / 64
    )  # the only level below .05 that 64 flips have
    assert not any(sign_flip_test(d) <= 0.05 for d in samples[:, :5])


def test_holm_keeps_the_chance_of_any_error_and_no_correction_does_not():
    """Ten arms without an effect; then three with and seven without, of which the seven must be
    safe too.
    """
    p = np.array(
        [[t_test(d) for d in trial] for trial in draws(5, trials=10 * 500).reshape(500, 10, 5)]
    )
    p_some = p.copy()
    p_some[:, :3] = [
        [t_test(d) for d in trial]
        for trial in draws(5, 3.0, trials=3 * 500, seed=1).reshape(500, 3, 5)
    ]
    assert (
        stats.binomtest(
            int((np.array([holm(row) for row in p]) <= 0.05).any(1).sum()), 500, 0.05, "greater"
        ).pvalue
        > 1e-3
    )
    wrong = (np.array([holm(row) for row in p_some]) <= 0.05)[:, 3:].any(1).sum()
    assert stats.binomtest(int(wrong), 500, 0.05, "greater").pvalue > 1e-3
    assert by_chance((p <= 0.05).any(1).sum(), 1 - 0.95**10, 500)


def test_holm_by_hand():
    """.01 x 4, .02 x 3, .03 x 2 raised to the .06 before it, .5 x 1. A nan is not counted.

    Oracle besides: `multipletests` of statsmodels.
    """
    for p in random_stream(3).uniform(size=(3, 19)) ** 3:
        assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    assert holm([0.5, 0.01, math.nan, 0.03, 0.02])[:2] == pytest.approx([0.5, 0.04])
    assert holm([0.5, 0.01, math.nan, 0.03, 0.02])[3:] == pytest.approx([0.06, 0.06])
    assert math.isnan(holm([0.5, math.nan])[1]) and holm([0.6, 0.7]) == [1, 1]


# -------------------------------------------------------------------------------------------- power
@pytest.mark.parametrize(("n", "effect"), [(2, 3.0), (3, 1.5), (5, 1.0), (5, 1.7), (20, 0.5)])
def test_power_is_how_often_the_effect_is_found(n, effect):
    samples = draws(n, effect)
    found = sum(t_test(d) <= 0.05 for d in samples)
    assert power(n, effect, 1.0) == pytest.approx(TTestPower().power(effect, n, 0.05))
    assert by_chance(found, power(n, effect, 1.0)) and power(n, -2 * effect, 2.0) == pytest.approx(
        power(n, effect, 1.0)
    )


def test_seeds_needed_are_those_of_the_tables():
    """Paired t-test, two-sided .05, power .8 (Cohen 1988; G*Power): 199, 34 and 15 pairs for
    effects of .2, .5 and .8 deviations.
    """
    assert [seeds_needed(effect, 1.0) for effect in (0.2, 0.5, 0.8)] == [199, 34, 15]
    assert seeds_needed(-0.31, 0.62) == 34  # the unit does not matter, nor the sign
    with pytest.raises(UserError, match="effect of 0"):
        seeds_needed(0.0, 1.0)
    with pytest.raises(UserError, match="more than"):
        seeds_needed(1e-4, 1.0)
    assert 78_000 < seeds_needed(0.01, 1.0) < 79_000  # (1.960 + 0.842)^2 / .01^2 = 78,500


@pytest.mark.parametrize("n", [2, 3, 4, 5, 12, 50])
def test_the_detectable_effect_undoes_power(n):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        effect = detectable_effect(n, 0.7)
        assert power(n, effect, 0.7) == pytest.approx(0.8, abs=1e-6)
        assert seeds_needed(effect * 1.001, 0.7) == n and power(n, 1000.0, 0.7) == pytest.approx(1)
    assert (
        power(n, 0.0, 1.0) == pytest.approx(0.05)
        and detectable_effect(n, 0.7, alpha=0.005) > effect
    )


# ----------------------------------------------------------------------------------------- all arms
def test_effects_are_paired_by_seed():
    """A seed's own luck, a hundred times the effect, cancels: what remains is the effect.

    Unpaired, nothing would be seen.
    """
    luck, chance = random_stream(1).normal(0, 100, 5), random_stream(2)
    values = {"triple": dict(enumerate(luck.tolist()))}
    for arm, effect in (("worse", -3.0), ("same", 0.0)):
        values[arm] = dict(enumerate((luck + effect + chance.normal(0, 0.5, 5)).tolist()))
    values["worse"] = dict(
        reversed(values["worse"].items())
    )  # the order in which seeds came must not matter
    worse, same = paired_effects(values, "triple")
    assert (worse.arm, worse.seeds, same.arm) == ("worse", 5, "same")
    d = paired_differences(values["worse"], values["triple"])
    assert worse.mean == pytest.approx(-3, abs=1) and worse.high < 0 < worse.p_holm < 0.01
    assert (worse.low, worse.high) == t_interval(d) and worse.p == pytest.approx(
        stats.ttest_1samp(d, 0).pvalue
    ) == worse.p_holm / 2
    assert same.low < 0 < same.high and same.p == same.p_holm
    assert worse.p_flip == 0.0625
    assert worse.p_flip_holm == 0.125
    assert worse.detectable == detectable_effect(5, np.std(d, ddof=1))
    (alone,) = paired_effects(values, "triple", arms=["worse"])
    assert alone.p_holm == alone.p


def test_seeds_that_one_side_lacks_and_arms_without_any():
    values = {
        "triple": {0: 1.0, 1: 2.0, 2: 4.0},
        "half": {7: 9.0, 2: 3.0},
        "none": {7: 1.0},
        "equal": {0: 1.0, 1: 2.0},
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        half, equal = paired_effects(values, "triple")
    assert (half.seeds, half.mean) == (1, -1.0) and all(
        map(math.isnan, (half.low, half.bootstrap_high, half.p, half.detectable))
    )
    assert half.p_flip == 1.0
    assert (equal.mean, equal.low, equal.high, equal.p, equal.p_flip, equal.detectable) == (
        0,
        0,
        0,
        1,
        1,
        0,
    )
    with pytest.raises(UserError, match="quadruple"):
        paired_effects(values, "quadruple")


# ------------------------------------------------------------------------- one scatter for all arms
def table_of(
    seeds_of: list[int], effects: list[float], stream: np.random.Generator, common: float = 3.0
) -> dict[str, dict[int, float]]:
    """Arms "0", "1", ... with the seeds 0 to n - 1: effect, what the seed does to all arms, and a
    scatter of 1.
    """
    of_seed = common * stream.standard_normal(max(seeds_of))
    return {
        str(arm): {seed: effect + of_seed[seed] + stream.standard_normal() for seed in range(n)}
        for arm, (n, effect) in enumerate(zip(seeds_of, effects, strict=True))
    }


@pytest.mark.parametrize("n", [2, 3, 5, 9])
def test_two_arms_pooled_are_a_paired_t_test(n):
    for trial in range(10):
        values = table_of([n, n], [0.0, 0.7], random_stream(1, trial))
        (e,) = pooled_effects(values, "0", ["1"], 0.9)
        d = paired_differences(values["1"], values["0"])
        assert (e.mean, e.p, e.freedom, e.seeds) == (
            pytest.approx(d.mean()),
            pytest.approx(t_test(d)),
            n - 1,
            n,
        )
        assert (e.low, e.high) == pytest.approx(t_interval(d, 0.9)) and e.p_holm == e.p


def test_pooled_by_hand():
    """Balanced: residuals are what arm means and seed means leave.

    Unbalanced: the error of an arm with 3 seeds against one with 5.
    """
    values = table_of([4] * 3, [0.0, 1.0, 2.0], random_stream(2))
    y = np.array([[*row.values()] for row in values.values()])
    rest = y - y.mean(1, keepdims=True) - y.mean(0) + y.mean()
    for e, mean in zip(
        pooled_effects(values, "0", ["1", "2"]), y.mean(1)[1:] - y.mean(1)[0], strict=True
    ):
        assert e.mean == pytest.approx(mean) and e.freedom == 2 * 3
        assert e.error == pytest.approx(math.sqrt((rest**2).sum() / 6 * 2 / 4))
        assert (e.high - e.mean) / e.error == pytest.approx(stats.t.ppf(0.975, 6))
    uneven = pooled_effects(
        table_of([5, 5, 3, 3, 3], [0.0] * 5, random_stream(3)), "0", list("1234")
    )
    three = 1 / 3 + 1 / 5 + (1 / 3 - 1 / 5) / 2  # two arms have the later seeds
    assert [e.error / uneven[0].error for e in uneven] == pytest.approx(
        [1, *[math.sqrt(three / (2 / 5))] * 3]
    )
    assert uneven[0].freedom == 19 - 5 - 5 + 1
    assert [e.p_holm for e in uneven] == holm([e.p for e in uneven])


def test_pooled_intervals_cover_the_truth_as_often_as_they_say():
    """Unbalanced, with an effect.

    Averaging the arms' own variances, as if their differences were independent, would fail here.
    """
    covered, wrong, trials = np.zeros(5), np.zeros(5), 600
    for trial in range(trials):
        values = table_of(
            [5, 5, 3, 3, 3, 3], [0.0, 1.0, 0.0, 0.0, 2.0, 0.0], random_stream(4, trial)
        )
        found = pooled_effects(values, "0", list("12345"))
        covered += [
            e.low <= truth <= e.high
            for e, truth in zip(found, (1.0, 0.0, 0.0, 2.0, 0.0), strict=True)
        ]
        wrong += [e.p <= 0.05 for e in found]
    assert all(by_chance(count, 0.95, trials) for count in covered)
    assert all(by_chance(wrong[arm], 0.05, trials) for arm in (1, 2, 4)) and wrong[3] > 0.5 * trials


def test_what_a_seed_does_to_all_arms_changes_nothing():
    values = table_of([5, 5, 3], [0.0, 1.0, 2.0], random_stream(5))
    moved = {
        arm: {seed: v + (40.0 if seed == 1 else 0.0) for seed, v in row.items()}
        for arm, row in values.items()
    }
    for before, after in zip(
        pooled_effects(values, "0", ["1", "2"]), pooled_effects(moved, "0", ["1", "2"]), strict=True
    ):
        assert (after.mean, after.error, after.p) == pytest.approx(
            (before.mean, before.error, before.p)
        )
    assert pooled_effects({**values, "9": {0: 1e9}}, "0", ["1", "2"]) == pooled_effects(
        values, "0", ["1", "2"]
    ), "an arm that is not asked for"


def test_arms_that_nothing_can_be_pooled_of():
    with pytest.raises(UserError, match="no value of c"):
        pooled_effects({"a": {0: 1.0}, "b": {0: 1.0}}, "a", ["b", "c"])
    for values in ({"a": {0: 1.0}, "b": {0: 2.0}}, {"a": {0: 1.0, 1: 2.0}, "b": {2: 2.0, 3: 1.0}}):
        with pytest.raises(UserError, match="Too few"):
            pooled_effects(values, "a", ["b"])
    (e,) = pooled_effects({"a": {0: 1.0, 1: 2.0}, "b": {0: 1.0, 1: 2.0}}, "a", ["b"])
    assert e.mean == pytest.approx(0, abs=1e-12) and 0 <= e.p <= 1
