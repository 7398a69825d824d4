"""The tail of single calls: the quantile, its error by blocks of calls, and how often its interval holds the truth."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

import pytest

from pytest_modelopt.results.timed_pairs import EarlierRuns
from pytest_modelopt.statistics.samples import STARVED, Samples
from pytest_modelopt.statistics.tails import _sampling_error, tail_latency
from pytest_modelopt.statistics.timing import ALPHA_PASS

PAIRS_A_SECOND = 10


def samples(blocks: Sequence[Sequence[float]]) -> Samples:
    """Single calls of the variant, by block; the means of blocks play no part."""
    ones = [1.0] * len(blocks)
    moments = [index / PAIRS_A_SECOND for index in range(len(blocks))]
    return Samples(ones, ones, [1] * len(blocks), moments, variant_calls_s=blocks)


def test_the_figure_is_the_time_within_which_95_of_100_calls_are_done() -> None:
    blocks = [[float(10 * index + call) for call in range(1, 11)] for index in range(10)]
    assert tail_latency(samples(blocks)).figure == pytest.approx(95)
    blocks[0][0] = 1000.0
    assert tail_latency(samples(blocks)).figure == pytest.approx(96)


def test_few_calls_know_nothing_of_what_is_slower_than_95_of_them() -> None:
    """Of 40 calls the two slowest are beyond: 95% and what 40 calls err by is more than all of them."""
    estimate = tail_latency(samples([[1.0] * 9 + [2.0]] * 4))
    assert math.isinf(estimate.error)
    assert estimate.interval(0.01, ALPHA_PASS) == (0, math.inf)
    assert math.isfinite(tail_latency(samples([[1.0] * 9 + [2.0]] * 100)).error)


def test_slow_calls_of_one_moment_are_one_piece_of_evidence() -> None:
    """The same 600 calls, of which 60 are slow: one in each block, or all of a few."""
    coin = random.Random(1)
    fast, slow = [coin.uniform(1, 1.1) for _ in range(540)], [coin.uniform(2, 2.1) for _ in range(60)]
    apart = [fast[index::60] + slow[index::60] for index in range(60)]
    together = [fast[index::54] for index in range(54)] + [slow[index::6] for index in range(6)]
    assert sorted(chain(*apart)) == sorted(chain(*together))
    assert tail_latency(samples(apart)).figure == tail_latency(samples(together)).figure
    assert _sampling_error(together, 2) > 2 * _sampling_error(apart, 2)
    low, _ = tail_latency(samples(together)).interval(0.01, ALPHA_PASS)
    assert low < tail_latency(samples(apart)).interval(0.01, ALPHA_PASS)[0]


def test_others_in_the_middle_of_the_blocks_make_the_tail_uncertain() -> None:
    quiet = samples([[1.0] * 10] * 100)
    starved = replace(quiet, delays=[(0.0, 0.5)] * 100)
    assert tail_latency(starved).error ** 2 - tail_latency(quiet).error ** 2 == pytest.approx((0.5 * STARVED) ** 2)
    assert tail_latency(starved).from_state == pytest.approx(0.5 * STARVED)


def test_earlier_runs_whose_latency_differed_make_the_tail_uncertain() -> None:
    calm = samples([[1.0] * 10] * 100)
    told = tail_latency(replace(calm, earlier=EarlierRuns(4, 3, speedup=0.0, latency=0.3)))
    assert told.is_learned
    assert told.error > 3 * tail_latency(calm).error


@pytest.mark.parametrize("slow_share", [0.045, 0.06])
def test_the_interval_holds_the_truth_where_the_tail_is_a_kind_of_call_of_its_own(slow_share: float) -> None:
    """Some calls take 1.5 times as long: of the two shares one is just beyond the quantile and one is not."""
    coin = random.Random(2)

    def call() -> float:
        return math.exp(coin.gauss(0, 0.02)) * (1.5 if coin.random() < slow_share else 1)

    truth = sorted(call() for _ in range(100_000))[95_000]
    missed = 0
    for _ in range(60):
        moments = [math.exp(coin.gauss(0, 0.02)) for _ in range(100)]
        estimate = tail_latency(samples([[moment * call() for _ in range(10)] for moment in moments]))
        low, high = estimate.interval(ALPHA_PASS, ALPHA_PASS)
        missed += not low <= truth <= high
    assert missed <= 60 * 2 * ALPHA_PASS
