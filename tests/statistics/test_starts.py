"""Figures of fresh processes: means, and verdicts on limits beside the truth, by simulation."""

from __future__ import annotations

import math
import random

import pytest

from pytest_modelopt.statistics.samples import Samples
from pytest_modelopt.statistics.starts import start_speedup, start_time
from pytest_modelopt.statistics.timing import ALPHA_FAIL, ALPHA_PASS, decide_at_least


def samples(originals_s: list[float], variants_s: list[float]) -> Samples:
    """Each pair a launch of its own, two seconds after the one before."""
    launches = list(range(1, len(variants_s) + 1))
    return Samples(originals_s, variants_s, launches, [2.0 * launch for launch in launches])


def test_the_figures_are_geometric_means() -> None:
    found = samples([8.0, 2.0, 4.0, 4.0], [1.0, 4.0, 1.0, 4.0])
    assert start_time(found).figure == pytest.approx(2)
    assert start_speedup(found).figure == pytest.approx(2)
    assert math.isinf(start_time(samples([1.0] * 3, [1.0] * 3)).error), "three decide nothing"


@pytest.mark.parametrize("spread", [0.05, 0.2])
def test_a_limit_beside_the_truth_is_rarely_judged_wrongly(spread: float) -> None:
    """It is looked at after 4, 8 and 16 pairs, and a wrong verdict at any of them counts."""
    coin, runs = random.Random(5), 300
    wrong = {"pass": 0, "fail": 0}
    for _ in range(runs):
        ones, others = ([math.exp(coin.gauss(0, spread)) for _ in range(16)] for _ in range(2))
        looks = [start_speedup(samples(ones[:count], others[:count])) for count in (4, 8, 16)]
        for verdict, limit in (("pass", 1.0001), ("fail", 0.9999)):
            wrong[verdict] += any(decide_at_least(each, limit, alpha_fail=ALPHA_FAIL) == verdict for each in looks)
    assert wrong["pass"] <= 1.5 * ALPHA_PASS * runs
    assert wrong["fail"] <= 2 * ALPHA_FAIL * runs
    clear = start_speedup(samples([3 * one for one in ones[:8]], others[:8]))
    assert decide_at_least(clear, 2, alpha_fail=ALPHA_FAIL) == "pass"
