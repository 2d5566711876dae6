"""The luck of nine development sets, against the variance of a binomial count."""

import numpy as np
import pytest

from distil_lib.pages.luck import (
    DEVELOPMENT_SETS,
    agreement,
    equally_good,
    measured_agreement,
    right_answers,
)
from distil_lib.pages.paper_numbers import table


def test_independent_single_runs_scatter_as_two_binomial_counts():
    ahead = equally_good(within=0.0, between=0.0, trials=20_000, runs=1)
    assert ahead.shape == (20_000, 9)
    for column, (task, n) in zip(ahead.T, DEVELOPMENT_SETS.items(), strict=True):
        p = table(1).loc["DistilBERT", task] / 100
        assert column.std() == pytest.approx(100 * np.sqrt(2 * p * (1 - p) / n), rel=0.03)
        assert abs(column.mean()) < 5 * column.std() / np.sqrt(20_000)


def test_what_is_decided_for_everybody_has_no_luck():
    assert equally_good(within=1.0, between=1.0, trials=50).std() == 0
    wide, narrow = (equally_good(0.6, b, trials=4000).std(0) for b in (0.1, 0.55))
    assert (wide > narrow).all(), "the less two systems agree, the further apart they are"


def test_the_median_of_more_runs_has_less_luck():
    one, five = (equally_good(trials=4000, runs=runs).mean(1).std() for runs in (1, 5))
    assert five < one


def test_agreement_is_0_for_coins_and_1_for_equal_runs():
    chance = np.random.default_rng(0)
    x, y = chance.random((2, 200_000)) < 0.7
    assert agreement([(x, y)]) == pytest.approx(0, abs=0.01)
    assert agreement([(x, x)]) == 1
    assert agreement([(x, x), (x, ~x)]) < 0.5


def test_agreement_is_nearly_the_correlation_of_being_right():
    x, y = right_answers("student", "doc-same")[:2]
    assert agreement([(x, y)]) == pytest.approx(np.corrcoef(x, y)[0, 1], abs=0.02)
    for within, between in measured_agreement().values():
        assert 0 < within - between < 0.15
