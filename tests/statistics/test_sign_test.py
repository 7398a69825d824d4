"""The sign e-process: published values, its error bound at any stopping time, and an interval that agrees with it."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_modelopt.statistics.sign_test import e_value, successes_needed
from pytest_modelopt.statistics.timing import alpha_fail

# Computed by hand from the closed form with exact fractions, outside this project.
ORACLE = [
    (5, 5, 10.5),
    (6, 6, 18.143),
    (7, 7, 31.875),
    (9, 9, 102.3),
    (11, 11, 341.25),
    (13, 13, 1170.214),
    (12, 11, 52.4231),
    (20, 15, 6.3555),
    (40, 28, 9.5449),
]


@pytest.mark.parametrize(("pairs", "successes", "expected"), ORACLE)
def test_e_values_are_the_published_ones(pairs: int, successes: int, expected: float) -> None:
    assert e_value(pairs, successes) == pytest.approx(expected, rel=1e-4)


@given(st.integers(0, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
def test_e_value_is_the_integral_of_the_likelihood_ratio(counts: tuple[int, int]) -> None:
    """The definition: twice the integral over p in (1/2, 1] of p^s (1-p)^(n-s) / 2^-n, here term by term, exactly."""
    n, s = counts
    total = Fraction(0)
    for j in range(n - s + 1):  # (1-p)^(n-s) expanded
        power = s + j + 1
        total += math.comb(n - s, j) * (-1) ** j * (1 - Fraction(1, 2) ** power) / power
    assert e_value(n, s) == pytest.approx(float(2 * total * 2**n), rel=1e-9)


def test_no_pair_is_no_evidence() -> None:
    assert e_value(0, 0) == 1.0


def test_thousands_of_pairs_neither_overflow_nor_raise() -> None:
    assert e_value(5000, 5000) == math.inf
    assert 0 < e_value(5000, 2500) < 1
    assert e_value(5000, 0) < 1e-3


@pytest.mark.parametrize(("pairs", "successes"), [(3, 4), (3, -1), (-1, 0)])
def test_impossible_counts_are_refused(pairs: int, successes: int) -> None:
    with pytest.raises(ValueError, match="need 0 <= successes <= pairs"):
        e_value(pairs, successes)


@pytest.mark.parametrize(("alpha", "needed"), [(0.05, 7), (0.01, 9), (0.001, 13)])
def test_unanimous_pairs_that_are_evidence(alpha: float, needed: int) -> None:
    assert successes_needed(needed - 1, alpha) is None
    assert successes_needed(needed, alpha) == needed


def test_the_risk_of_failing_is_shared_among_the_timed_limits() -> None:
    assert alpha_fail(1) == 0.01
    assert alpha_fail(4) == 0.0025
    assert alpha_fail(0) == 0.01


def test_a_variant_exactly_at_its_limit_is_rarely_failed_however_often_one_looks() -> None:
    """Ville's bound, by simulation with heavy-tailed noise: one look after every pair, 300 pairs, alpha 5%."""
    coin = random.Random(20260101)
    runs, wrong = 400, 0
    for _ in range(runs):
        below = 0
        for n in range(1, 301):
            noise = coin.gauss(0, 1) / max(0.05, abs(coin.gauss(0, 1)))
            below += noise < 0
            if e_value(n, below) >= 20:
                wrong += 1
                break
    # Mean at most 20 of 400; 35 is more than three standard deviations above it.
    assert wrong <= 35
