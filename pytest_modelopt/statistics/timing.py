"""Timed limits: the verdict of a sequence of paired values, and the interval that can never disagree with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pytest_modelopt.statistics.sign_test import e_value, successes_needed

ALPHA_PASS = 0.05
"""Probability of passing a variant whose median is on the bad side of the limit."""
ALPHA_FAIL = 0.01
"""Probability, over all timed limits of one run together, of failing a variant that keeps its limit."""

Decision = Literal["pass", "fail", "inconclusive"]


def alpha_fail(timed_limits: int) -> float:
    """The share of ALPHA_FAIL that each of a run's timed limits may spend (Bonferroni)."""
    return ALPHA_FAIL / max(1, timed_limits)


def decide_at_least(values: Sequence[float], limit: float, *, alpha_pass: float, alpha_fail: float) -> Decision:
    """Is the median of `values` at least `limit`? Ties count for neither side.

    `values` are paired ratios, in the order of measurement or any other: only the counts matter.
    """
    above = sum(value > limit for value in values)
    below = sum(value < limit for value in values)
    if e_value(above + below, above) >= 1 / alpha_pass:
        return "pass"
    if e_value(above + below, below) >= 1 / alpha_fail:
        return "fail"
    return "inconclusive"


def decide_at_most(values: Sequence[float], limit: float, *, alpha_pass: float, alpha_fail: float) -> Decision:
    """Is the median of `values` at most `limit`? The mirror image of `decide_at_least`."""
    return decide_at_least([-v for v in values], -limit, alpha_pass=alpha_pass, alpha_fail=alpha_fail)


def undecided_at_least(values: Sequence[float], *, alpha_pass: float, alpha_fail: float) -> tuple[float, float]:
    """All limits L for which `decide_at_least(values, L)` says "inconclusive", as (low, high).

    Every L < low passes and every L > high fails, so a printed interval and the verdict never disagree. The ends are
    order statistics of the values; with too few pairs for any decision on a side that end is -inf or inf.
    """
    ordered = sorted(values)
    pairs = len(ordered)
    for_pass = successes_needed(pairs, alpha_pass)
    for_fail = successes_needed(pairs, alpha_fail)
    low = -math.inf if for_pass is None else ordered[pairs - for_pass]
    high = math.inf if for_fail is None else ordered[for_fail - 1]
    return low, high


def speedup_interval(speedups: Sequence[float], *, alpha_pass: float, alpha_fail: float) -> tuple[float, float]:
    """`undecided_at_least` for ratios, which are positive: the lower end is 0.0 where nothing is known yet."""
    low, high = undecided_at_least(speedups, alpha_pass=alpha_pass, alpha_fail=alpha_fail)
    return max(low, 0.0), high


def latency_interval(latencies_s: Sequence[float], *, alpha_pass: float, alpha_fail: float) -> tuple[float, float]:
    """All upper limits in seconds that `decide_at_most` leaves undecided, as (low, high): every L > high passes."""
    low, high = undecided_at_least([-v for v in latencies_s], alpha_pass=alpha_pass, alpha_fail=alpha_fail)
    return max(-high, 0.0), -low
