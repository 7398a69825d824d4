"""Verdicts of timed limits: by pairs, and by launches where the limit is near; the interval says the same."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_modelopt.statistics.timing import (
    Samples,
    decide_at_least,
    decide_at_most,
    lacking_at_least,
    lacking_at_most,
    latency_interval,
    speedup_interval,
)

RISKS = {"alpha_pass": 0.05, "alpha_fail": 0.01}


def launches(*groups: list[float]) -> Samples:
    """One group of values per launch."""
    values = [value for group in groups for value in group]
    return Samples(values, [number for number, group in enumerate(groups, start=1) for _ in group])


def test_ties_count_for_neither_side() -> None:
    tied = [1.0] * 100
    assert decide_at_least(launches(tied, tied, tied), 1.0, **RISKS) == "inconclusive"
    assert decide_at_least(launches(tied, tied, tied + [1.5] * 7), 1.0, **RISKS) == "pass"
    assert decide_at_least(launches(tied, tied, tied + [0.5] * 9), 1.0, **RISKS) == "fail"


def test_at_most_is_the_mirror_image_of_at_least() -> None:
    assert decide_at_most(launches([1.0] * 7), 2.0, **RISKS) == "pass"
    assert decide_at_most(launches([3.0] * 7, [3.0] * 7, [3.0] * 6), 2.0, **RISKS) == "inconclusive"
    assert decide_at_most(launches([3.0] * 7, [3.0] * 7, [3.0] * 7), 2.0, **RISKS) == "fail"


def test_a_latency_fails_in_three_launches_only_however_far_it_is() -> None:
    """Latencies are not paired: a neighbour that is busy for a second would be evidence against a model."""
    for groups in ([[9.0] * 200], [[9.0] * 100, [9.0] * 100]):
        assert decide_at_most(launches(*groups), 2.0, **RISKS) == "inconclusive"
        assert lacking_at_most(launches(*groups), 2.0, **RISKS) == "launches"
        assert latency_interval(launches(*groups), **RISKS)[0] == 0.0
    assert decide_at_most(launches(*[[9.0] * 50] * 3), 2.0, **RISKS) == "fail"
    assert decide_at_most(launches([1.0] * 7), 2.0, **RISKS) == "pass"


@pytest.mark.parametrize(
    "groups",
    [
        ([0.96] * 200, [0.96] * 200, [1.04]),
        ([1.04] * 200, [1.04], [0.96] * 2),
        ([0.96] * 200, [0.96] * 200, [0.96] * 6),
    ],
)
def test_a_launch_of_a_few_pairs_is_none(groups: tuple[list[float], ...]) -> None:
    """It could not contradict the others: six pairs are no evidence for anything."""
    assert decide_at_least(launches(*groups), 1.0, **RISKS) == "inconclusive"
    assert lacking_at_least(launches(*groups), 1.0, **RISKS) == "launches"


@pytest.mark.parametrize(("estimate", "outcome"), [(1.04, "pass"), (0.96, "fail")])
def test_a_near_limit_needs_three_launches(estimate: float, outcome: str) -> None:
    group = [estimate] * 50
    for few in (launches(group), launches(group, group)):
        assert decide_at_least(few, 1.0, **RISKS) == "inconclusive"
        assert lacking_at_least(few, 1.0, **RISKS) == "launches"
        assert lacking_at_most(few, 1.0, **RISKS) == "launches"
    assert decide_at_least(launches(group, group, group), 1.0, **RISKS) == outcome
    assert lacking_at_least(launches(group, group, group), 1.0, **RISKS) == "nothing"


@pytest.mark.parametrize(("estimate", "outcome"), [(1.15, "pass"), (0.88, "fail")])
def test_a_limit_that_is_not_near_is_decided_in_one_launch(estimate: float, outcome: str) -> None:
    assert decide_at_least(launches([estimate] * 20), 1.0, **RISKS) == outcome


def test_launches_that_contradict_each_other_decide_nothing() -> None:
    """Two launches 4% below the limit, one 4% above it: 100 pairs against 50, and yet no evidence of a slow model."""
    samples = launches([0.96] * 50, [0.96] * 50, [1.04] * 50)
    assert decide_at_least(samples, 1.0, **RISKS) == "inconclusive"
    assert lacking_at_least(samples, 1.0, **RISKS) == "launches"


def test_a_launch_that_only_wavers_contradicts_nothing() -> None:
    wavering = [0.99] * 24 + [1.01] * 26
    assert decide_at_least(launches([0.96] * 50, [0.96] * 50, wavering), 1.0, **RISKS) == "fail"


def test_too_few_pairs_need_pairs() -> None:
    assert lacking_at_least(launches([2.0] * 6), 1.0, **RISKS) == "pairs"
    assert lacking_at_least(launches([2.0] * 7), 1.0, **RISKS) == "nothing"


def test_values_and_launches_go_together() -> None:
    with pytest.raises(ValueError, match="2 values in 1 launches"):
        Samples([1.0, 2.0], [1])


def test_without_a_pair_nothing_is_known() -> None:
    assert speedup_interval(launches(), **RISKS) == (0.0, math.inf)
    assert decide_at_least(launches(), 1.0, **RISKS) == "inconclusive"


SOME = st.lists(st.sampled_from([0.5, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.25, 1.5, 2.0]), max_size=40)


@given(
    st.lists(SOME, min_size=1, max_size=4),
    st.one_of(st.floats(0.1, 3.0), st.sampled_from([0.9, 1.0, 1.1])),
    st.sampled_from([0.01, 0.0025]),
)
def test_the_interval_and_the_verdict_never_disagree(groups: list[list[float]], limit: float, risk: float) -> None:
    samples = launches(*groups)
    for interval, decide, low_means in (
        (speedup_interval, decide_at_least, "pass"),
        (latency_interval, decide_at_most, "fail"),
    ):
        low, high = interval(samples, alpha_pass=0.05, alpha_fail=risk)
        decision = decide(samples, limit, alpha_pass=0.05, alpha_fail=risk)
        high_means = "fail" if low_means == "pass" else "pass"
        if limit < low:
            assert decision == low_means
        elif limit > high:
            assert decision == high_means
        elif low < limit < high:
            assert decision == "inconclusive"


def test_a_launch_bias_near_the_limit_rarely_fails_a_model_that_keeps_it() -> None:
    """Identical models, a limit of 5% slower, launches that are off by 3% (standard deviation), pairs by 10%.

    The pairs of one launch alone would fail a launch that is off by 6% or more, about one in forty.
    """
    coin = random.Random(20260101)
    failed = 0
    for _ in range(400):
        groups = []
        for _ in range(3):
            bias = coin.gauss(0, 0.03)
            groups.append([math.exp(bias + coin.gauss(0, 0.1)) for _ in range(100)])
        failed += decide_at_least(launches(*groups), 1 / 1.05, **RISKS) == "fail"
    assert failed <= 4  # the mean of three launches is off by 1.7%: beyond 5% in one run of 500
