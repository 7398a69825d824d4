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
from pytest_modelopt.statistics.samples import (
    CANARY_TOLERANCE,
    ORIGINAL_ALONE,
    ORIGINAL_TOLERANCE,
    RANGE,
    Samples,
    latency,
)
from pytest_modelopt.statistics.state_slope import FEW_PAIRS, STEEPEST, UNDERSTATED, Deviations, likely, slope_of
from pytest_modelopt.statistics.timing import (
    ALPHA_FAIL,
    ALPHA_PASS,
    SENSITIVITY_RATIO,
    Estimate,
    decide_at_least,
    speedup,
)

BEST_NS = 20_000.0
TRUTH = 2.0
IN_A_SLOW_STATE = Samples([2.0] * 100, [1.0] * 100, [1] * 100, [i / 20 for i in range(100)], [30_000.0] * 100, BEST_NS)
"""By the canary."""


FOLLOWING = EarlierRuns(
    20,
    19,
    1.0,
    4.0,
    own=20,
    original=1.0,
    speedup_with_original=-1.0,
    latency_with_original=2.0,
    fastest_s=1.0,
    canary_at_fastest_ns=BEST_NS,
)
"""The variant takes twice as long where the original takes 1.4 times as long."""


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
    figures, slow = [0.70, 0.86, 0.71, 0.94, 0.78], [0.0, 0.2, 0.01, 0.3, 0.1]
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
    """Ten seconds in one state, in which the original takes exp(`slow`) of its best time, and the ratio is off by
    `slope * slow`. Each side has a place in memory of its own, by which it differs, too."""
    pairs = 200
    original = truth * math.exp(slow + coin.gauss(0, 0.015))
    variant = math.exp((1 - slope) * slow + coin.gauss(0, 0.015))
    noise = [math.exp(abs(coin.gauss(0, 0.05))) for _ in range(2 * pairs)]
    return Samples(
        [original * each for each in noise[:pairs]],
        [variant * each for each in noise[pairs:]],
        [1] * pairs,
        [i / 20 for i in range(pairs)],
    )


def after_others(runs: Sequence[Samples]) -> list[Estimate]:
    """Each run judged with those before it."""
    found: list[Estimate] = []
    kept: list[tuple[float, float]] = []
    for samples in runs:
        found.append(speedup(replace(samples, earlier=of_runs(kept) if len(kept) > 1 else None)))
        kept.append(logs(samples))
    return found


def logs(samples: Samples) -> tuple[float, float]:
    """Of the speedup and of the original's latency, as a run keeps them."""
    return math.log(speedup(samples).figure), math.log(latency(samples.originals_s))


def of_runs(kept: Sequence[tuple[float, float]], others: float = 0.0, canary_ns: float | None = None) -> EarlierRuns:
    """Of runs of the same programs, beside others whose speedups have so large squared deviations."""
    of_speedup, of_original = (numpy.array(each) for each in zip(*kept, strict=True))
    y, o = of_speedup - of_speedup.mean(), of_original - of_original.mean()
    v = o - y
    return EarlierRuns(
        len(kept),
        len(kept) - 1,
        float(y @ y) + others,
        float(v @ v),
        own=len(kept),
        original=float(o @ o),
        speedup_with_original=float(y @ o),
        latency_with_original=float(v @ o),
        fastest_s=latency([math.exp(each) for each in of_original]),
        canary_at_fastest_ns=canary_ns,
    )


def host(coin: random.Random, slope: float) -> list[Samples]:
    """40 runs, in states that last for some of them."""
    slow, made = 0.0, []
    for _ in range(40):
        slow = coin.choice([0.0, 0.0, 0.15, 0.3]) if coin.random() < 0.4 else slow
        made.append(run(coin, TRUTH, slope, slow))
    return made


def test_runs_in_several_states_give_the_figure_of_the_best_one() -> None:
    """An original whose weights lose their place in the caches, and a variant that keeps it (slope 0.9)."""
    figures: dict[str, list[float]] = {"raw": [], "corrected": []}
    wrong = {0.95: 0, 1.05: 0}
    held = told = 0
    for seed in range(6):
        runs = host(random.Random(seed), 0.9)
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


def test_runs_of_one_state_correct_nothing_where_the_state_is_another_one() -> None:
    """What changes the original alone from run to run looks as if the speedup followed it: no slope of a state."""
    coin = random.Random(3)
    calm = [run(coin, TRUTH, 0.0, 0.0) for _ in range(20)]
    slow = after_others([*calm, run(coin, TRUTH, 0.0, 0.4)])[-1]
    assert slow.figure == pytest.approx(TRUTH, rel=0.1)
    assert decide_at_least(slow, 0.9 * TRUTH, alpha_fail=ALPHA_FAIL) != "fail"
    assert slow.from_state > 0.02


def test_the_first_run_in_a_slow_state_knows_no_slope() -> None:
    estimate = speedup(IN_A_SLOW_STATE)
    assert estimate.figure == pytest.approx(2.0)
    assert estimate.from_state == pytest.approx(SENSITIVITY_RATIO * (math.log(1.5) - CANARY_TOLERANCE))
    assert decide_at_least(estimate, 1.8, alpha_fail=ALPHA_FAIL) == "inconclusive"


def test_earlier_runs_of_these_programs_say_more_of_the_state_than_the_canary() -> None:
    """It takes 50% longer, and the original what it took beside a fast canary."""
    earlier = EarlierRuns(10, 9, 0.0, 0.0, own=10, fastest_s=2.0, canary_at_fastest_ns=BEST_NS)
    calm = replace(IN_A_SLOW_STATE, earlier=earlier)
    assert speedup(calm).from_state == 0
    slow = speedup(replace(calm, originals_s=[2.5] * 100))
    assert slow.from_state == pytest.approx(SENSITIVITY_RATIO * (math.log(1.25) - ORIGINAL_TOLERANCE))


def test_earlier_runs_in_a_slow_state_do_not_make_it_the_best_one() -> None:
    """A rerun beside the same neighbour decides no more than the first run did."""
    for count in (1, 2, 10):
        earlier = EarlierRuns(count + 1, count, 0.0, 0.0, own=count + 1, fastest_s=2.0, canary_at_fastest_ns=30_000.0)
        again = speedup(replace(IN_A_SLOW_STATE, earlier=earlier))
        assert again.from_state >= speedup(IN_A_SLOW_STATE).from_state * 0.999
        assert decide_at_least(again, 1.8, alpha_fail=ALPHA_FAIL) == "inconclusive"


def test_no_state_is_slower_than_any_is() -> None:
    """What a record says of the fastest run may be anything: the speedup is corrected by a factor of 2.7 at most."""
    earlier = replace(FOLLOWING, fastest_s=1e-9)
    assert speedup(replace(IN_A_SLOW_STATE, earlier=earlier)).correction <= math.e * 1.001
    nothing = replace(FOLLOWING, fastest_s=0.0)
    assert speedup(replace(IN_A_SLOW_STATE, earlier=nothing)).correction == 1.0


def test_a_machine_slower_than_it_ever_was_is_corrected_by_what_is_known_and_the_rest_is_not() -> None:
    """Earlier runs spread by 0.1; the original takes 2.7 times as long as in the fastest of them."""
    earlier = EarlierRuns(
        17,
        16,
        0.13,
        0.0016,
        own=17,
        original=0.16,
        speedup_with_original=0.144,
        latency_with_original=0.016,
        fastest_s=2.0 / math.exp(1 + ORIGINAL_TOLERANCE),
        canary_at_fastest_ns=BEST_NS,
    )
    estimate = speedup(replace(IN_A_SLOW_STATE, earlier=earlier))
    assert estimate.correction == pytest.approx(math.exp(-0.9 * RANGE * 0.1), rel=0.03)
    assert estimate.unseen >= SENSITIVITY_RATIO * (1 - RANGE * 0.1)


def test_what_changes_the_original_alone_in_one_state_corrects_nothing() -> None:
    """Runs whose originals differ by as much as in one state, and whose speedups do so with them."""
    alone = 19 * ORIGINAL_ALONE**2
    earlier = EarlierRuns(
        20,
        19,
        alone,
        0.0,
        own=20,
        original=alone,
        speedup_with_original=alone,
        fastest_s=2.0 / 1.2,
        canary_at_fastest_ns=BEST_NS,
    )
    estimate = speedup(replace(IN_A_SLOW_STATE, earlier=earlier))
    assert estimate.correction == 1.0
    met, rest = RANGE * ORIGINAL_ALONE, math.log(1.2) - ORIGINAL_TOLERANCE - RANGE * ORIGINAL_ALONE
    assert estimate.unseen == pytest.approx(SENSITIVITY_RATIO * math.hypot(met, rest))
