"""The slope by which a figure follows the state of the machine: regressions by numpy, and simulated hosts."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean, stdev

import numpy
import pytest

from pytest_modelopt.results.timed_pairs import EarlierRuns
from pytest_modelopt.statistics.state_slope import FEW_PAIRS, STEEPEST, UNDERSTATED, Deviations, likely, slope_of
from pytest_modelopt.statistics.timing import (
    ALPHA_FAIL,
    ALPHA_PASS,
    CANARY_TOLERANCE,
    SENSITIVITY_RATIO,
    Estimate,
    Samples,
    decide_at_least,
    slowness,
    speedup,
)

BEST_NS = 20_000.0
TRUTH = 2.0


# --- one run ---------------------------------------------------------------------------------------------------------


def test_pairs_show_a_part_of_the_slope_with_its_error() -> None:
    coin = random.Random(1)
    canaries = [BEST_NS * math.exp(coin.gauss(0, 0.1)) for _ in range(200)]
    figures = [0.1 * math.log(canary) + coin.gauss(0, 0.02) for canary in canaries]
    line, covariance = numpy.polyfit(numpy.log(canaries), figures, 1, cov="unscaled")
    rest = float(numpy.mean((numpy.array(figures) - numpy.polyval(line, numpy.log(canaries))) ** 2))
    expected = UNDERSTATED * math.sqrt(line[0] ** 2 + rest * covariance[0][0])
    assert likely(canaries, figures, 9.0) == pytest.approx(expected, rel=1e-6)
    assert likely(canaries, figures, 0.3) == 0.3


@pytest.mark.parametrize(
    ("canaries", "figures"),
    [
        ([BEST_NS] * 100, [0.1] * 100),
        ([BEST_NS, 2 * BEST_NS] * (FEW_PAIRS // 2 - 1), [0.1, 0.2] * (FEW_PAIRS // 2 - 1)),
        ([BEST_NS, 2 * BEST_NS] * 50, [0.1] * 99),
        ([], []),
    ],
)
def test_pairs_that_cannot_tell_leave_the_most(canaries: Sequence[float], figures: Sequence[float]) -> None:
    assert likely(canaries, figures, 0.8) == 0.8


# --- earlier runs ----------------------------------------------------------------------------------------------------


def deviations(figures: Sequence[float], slow: Sequence[float]) -> Deviations:
    a, b = numpy.array(figures) - fmean(figures), numpy.array(slow) - fmean(slow)
    return Deviations(float(a @ a), float(a @ b), float(b @ b))


def test_the_slope_is_that_of_a_regression_with_a_normal_prior() -> None:
    """Ridge regression: numpy solves the normal equations with the prior's precision as a further row."""
    figures, slow = [0.70, 0.92, 0.71, 1.05, 0.83], [0.0, 0.2, 0.01, 0.3, 0.1]
    found = slope_of(deviations(figures, slow), 0.8, lambda squares: 0.04**2)
    x = numpy.array(slow) - fmean(slow)
    rows = numpy.vstack([x[:, None] / 0.04, [[1 / 0.8]]])
    values = numpy.concatenate([(numpy.array(figures) - fmean(figures)) / 0.04, [0.0]])
    (slope,), *_ = numpy.linalg.lstsq(rows, values, rcond=None)
    assert found.value == pytest.approx(slope)
    assert found.error == pytest.approx(1 / math.sqrt(float(rows[:, 0] @ rows[:, 0])))
    beside = (numpy.array(figures) - fmean(figures)) - found.value * x
    assert found.squares == pytest.approx(float(beside @ beside))


def test_runs_of_one_state_show_no_slope() -> None:
    assert slope_of(Deviations(0.2, 0.0, 0.0), 0.8, lambda squares: 0.01) == (0.0, 0.8, 0.2)
    assert slope_of(Deviations(0.2, 0.1, 0.1), 0.0, lambda squares: 0.01) == (0.0, 0.0, 0.2)


def test_no_record_makes_a_slope_steeper_than_any_is() -> None:
    found = slope_of(Deviations(1e3, 30.0, 1e-3), 0.8, lambda squares: 1e-9)
    assert found.value == STEEPEST
    assert found.squares >= 0


# --- a host with states ----------------------------------------------------------------------------------------------


def run(coin: random.Random, truth: float, slope: float, slow: float) -> Samples:
    """Ten seconds in one state: the canary takes exp(`slow`) of its best time, the ratio is off by `slope * slow`."""
    ratio = truth * math.exp(slope * slow + coin.gauss(0, 0.02))
    pairs = 200
    noise = [math.exp(abs(coin.gauss(0, 0.05))) for _ in range(2 * pairs)]
    return Samples(
        [ratio * each for each in noise[:pairs]],
        noise[pairs:],
        [1] * pairs,
        [i / 20 for i in range(pairs)],
        [BEST_NS * math.exp(slow + abs(coin.gauss(0, 0.03))) for _ in range(pairs)],
        BEST_NS,
    )


def after_others(runs: Sequence[Samples]) -> list[Estimate]:
    """Each run judged with those before it."""
    found: list[Estimate] = []
    kept: list[tuple[float, float]] = []
    for samples in runs:
        earlier = None
        if len(kept) > 1:
            sums = deviations(*zip(*kept, strict=True))
            freedom = len(kept) - 1
            earlier = EarlierRuns(len(kept), freedom, sums.squares, 0.0, sums.of_slowness, sums.with_slowness, 0.0)
        found.append(speedup(replace(samples, earlier=earlier)))
        kept.append((math.log(speedup(samples).figure), slowness(samples.canary_log, BEST_NS)))
    return found


def host(coin: random.Random, slope: float) -> list[Samples]:
    """40 runs, in states that last for some of them."""
    slow, made = 0.0, []
    for _ in range(40):
        slow = coin.choice([0.0, 0.0, 0.15, 0.3]) if coin.random() < 0.4 else slow
        made.append(run(coin, TRUTH, slope, slow))
    return made


def test_runs_in_several_states_give_the_figure_of_the_best_one() -> None:
    """A program whose weights lose their place in the caches (slope 1.3): raw figures spread by more than a tenth."""
    figures: dict[str, list[float]] = {"raw": [], "corrected": []}
    wrong = {0.95: 0, 1.05: 0}
    held = told = 0
    for seed in range(6):
        runs = host(random.Random(seed), 1.3)
        for samples, estimate in list(zip(runs, after_others(runs), strict=True))[10:]:
            raw = speedup(samples)
            figures["raw"].append(math.log(raw.figure))
            figures["corrected"].append(math.log(estimate.figure))
            low, high = estimate.interval(ALPHA_PASS, ALPHA_FAIL)
            held, told = held + (low <= TRUTH <= high), told + 1
            wrong[0.95] += decide_at_least(estimate, 0.95 * TRUTH, alpha_fail=ALPHA_FAIL) == "fail"
            wrong[1.05] += decide_at_least(estimate, 1.05 * TRUTH, alpha_fail=ALPHA_FAIL) == "pass"
    assert stdev(figures["corrected"]) < 0.4 * stdev(figures["raw"])
    assert fmean(figures["corrected"]) == pytest.approx(math.log(TRUTH), abs=0.02)
    assert held >= 0.95 * told
    assert wrong[0.95] <= 0.01 * told
    assert wrong[1.05] <= 0.05 * told


def test_programs_that_slow_down_alike_are_left_as_they_are() -> None:
    """Two copies of one program, on the same host: nothing is called slower."""
    for seed in range(4):
        runs = host(random.Random(seed), 0.0)
        for samples, estimate in list(zip(runs, after_others(runs), strict=True))[5:]:
            assert estimate.figure / speedup(samples).figure == pytest.approx(estimate.correction)
            assert abs(math.log(estimate.correction)) <= 3 * estimate.from_state, "within its own error"
            assert decide_at_least(estimate, 1.9, alpha_fail=ALPHA_FAIL) != "fail"


def test_the_first_run_in_a_slow_state_knows_no_slope() -> None:
    constant = Samples([2.0] * 100, [1.0] * 100, [1] * 100, [i / 20 for i in range(100)], [30_000.0] * 100, BEST_NS)
    estimate = speedup(constant)
    assert estimate.figure == pytest.approx(2.0)
    assert estimate.from_state == pytest.approx(SENSITIVITY_RATIO * (math.log(1.5) - CANARY_TOLERANCE))
    assert decide_at_least(estimate, 1.8, alpha_fail=ALPHA_FAIL) == "inconclusive"


@pytest.mark.parametrize(
    ("canary_log", "best_ns", "expected"),
    [
        (math.log(30_000), 20_000, math.log(1.5) - CANARY_TOLERANCE),
        (math.log(20_500), 20_000, 0.0),
        (0.0, 20_000, 0.0),
        (math.log(30_000), None, 0.0),
        (math.log(30_000), -1, 0.0),
    ],
)
def test_how_far_a_machine_is_from_its_best_state(canary_log: float, best_ns: float | None, expected: float) -> None:
    assert slowness(canary_log, best_ns) == pytest.approx(expected)
