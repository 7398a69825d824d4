"""The paired bootstrap, against numpy's own resampling, the normal approximation and what pairing promises."""

from __future__ import annotations

from array import array
from typing import Any

import numpy
import pytest
import torch
from torchmetrics.regression import R2Score

from pytest_modelopt.measuring.protocol import TooFewExamples
from pytest_modelopt.measuring.worker.metrics.bootstrap import FEWEST_CHANGED, paired_bootstrap
from pytest_modelopt.measuring.worker.metrics.torchmetrics import Sums
from pytest_modelopt.results.answers import Interval

NOISE = numpy.random.default_rng(0)


def mean(sums: torch.Tensor, examples: int) -> float:
    return float(sums[0]) / examples


def bounds(before: Any, after: Any, width: int = 1, of: Any = mean, **how: Any) -> Interval:
    given = {"higher_is_better": True, "seed": 1, **how}
    sides = [array("d", numpy.asarray(side, dtype=float).ravel().tolist()) for side in (before, after)]
    found = paired_bootstrap(sides[0], sides[1], width, of, **given)
    assert isinstance(found, Interval), found
    return found


def test_of_a_mean_it_is_the_normal_approximation_and_numpys_bootstrap() -> None:
    before = NOISE.normal(size=400)
    after = before - 0.1 + 0.5 * NOISE.normal(size=400)
    found = bounds(before, after)
    differences = before - after
    error = differences.std(ddof=1) / 20
    assert found.low == pytest.approx(differences.mean() - 1.6449 * error, abs=0.15 * error)
    assert found.high == pytest.approx(differences.mean() + 1.6449 * error, abs=0.15 * error)
    drawn = NOISE.integers(400, size=(20_000, 400))
    low, high = numpy.percentile(differences[drawn].mean(axis=1), [5, 95])
    assert found.low == pytest.approx(low, abs=0.15 * error)
    assert found.high == pytest.approx(high, abs=0.15 * error)


def test_both_sides_are_resampled_together() -> None:
    """Examples of very different difficulty, all of them worse by the same: the drop is known without any doubt."""
    before = 1000 * NOISE.normal(size=200)
    found = bounds(before, before - 0.25)
    assert (found.low, found.high) == pytest.approx((0.25, 0.25))


def test_a_drop_is_a_worsening_whatever_the_direction() -> None:
    before = NOISE.normal(size=100)
    after = before + 1 + 0.1 * NOISE.normal(size=100)
    worse, better = bounds(before, after, higher_is_better=False), bounds(before, after)
    assert 0.9 < worse.low < worse.high < 1.1
    assert (better.low, better.high) == pytest.approx((-worse.high, -worse.low))


def test_the_seed_makes_it_repeat() -> None:
    before, after = NOISE.normal(size=(2, 50))
    assert bounds(before, after) == bounds(before, after)
    assert bounds(before, after).low != bounds(before, after, seed=2).low


def test_examples_beyond_what_is_drawn_at_once_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = NOISE.normal(size=(2, 50))
    whole = bounds(before, after)
    from pytest_modelopt.measuring.worker.metrics import bootstrap

    monkeypatch.setattr(bootstrap, "_MOST_COUNTS", 50 * 300)  # 300 resamples at a time, and a last part of 200
    assert bounds(before, after) == whole


def test_a_ratio_of_sums_is_resampled_as_such() -> None:
    """R2, which is no mean of anything, from its four sums; numpy computes it from the examples that it draws."""
    targets = NOISE.normal(size=300)
    answers = [targets + scale * NOISE.normal(size=300) for scale in (0.3, 0.5)]
    sums = [numpy.stack([targets**2, targets, (targets - a) ** 2, numpy.ones(300)], axis=1) for a in answers]
    assert list(R2Score()._defaults) == ["sum_squared_error", "sum_error", "residual", "total"]
    metric = Sums(R2Score())
    metric.row(R2Score())
    found = bounds(sums[0], sums[1], 4, lambda total, _: metric.score(total))
    drops = []
    for _ in range(4000):
        drawn = NOISE.integers(300, size=300)
        t = targets[drawn]
        variance = ((t - t.mean()) ** 2).sum()
        drops.append(
            sum(sign * ((t - a[drawn]) ** 2).sum() for sign, a in zip((-1, 1), answers, strict=True)) / variance
        )
    low, high = numpy.percentile(drops, [5, 95])
    assert found.low == pytest.approx(low, abs=0.1 * (high - low))
    assert found.high == pytest.approx(high, abs=0.1 * (high - low))


@pytest.mark.parametrize("changed", [0, 1, FEWEST_CHANGED - 1])
def test_nearly_nothing_changed_is_no_reason_for_certainty(changed: int) -> None:
    """450 examples that all stayed as they were do not show that others will: an interval of [0, 0] would say so."""
    before = array("d", [1.0] * 450)
    after = array("d", [0.0] * changed + [1.0] * (450 - changed))
    found = paired_bootstrap(before, after, 1, mean, higher_is_better=True, seed=1)
    assert found == (
        f"{changed} of 450 examples are scored differently, and 5 are needed for an interval: so few "
        "say nothing about other examples"
    )
    assert isinstance(found, TooFewExamples)
    after = array("d", [0.0] * FEWEST_CHANGED + [1.0] * (450 - FEWEST_CHANGED))
    assert isinstance(paired_bootstrap(before, after, 1, mean, higher_is_better=True, seed=1), Interval)


def test_a_resample_without_a_score_leaves_none() -> None:
    def ratio(sums: torch.Tensor, _: int) -> float:
        return float(sums[0] / sums[1])

    before = array("d", [value for index in range(6) for value in (index, index < 3)])
    after = array("d", [value for index in range(6) for value in (index + 1, index < 3)])
    found = paired_bootstrap(before, after, 2, ratio, higher_is_better=True, seed=1)
    assert found == "the metric has no score on some of the resamples"


def test_more_examples_than_can_be_resampled_are_told() -> None:
    before, after = array("d", [1.0]) * 200_001, array("d", [2.0]) * 200_001
    found = paired_bootstrap(before, after, 1, mean, higher_is_better=True, seed=1)
    assert found == "200,001 examples are more than can be resampled in reasonable time, 200,000"


def test_sides_that_do_not_fit_each_other_are_told() -> None:
    for before, after in ((array("d"), array("d")), (array("d", [1.0]), array("d", [1.0, 2.0]))):
        found = paired_bootstrap(before, after, 1, mean, higher_is_better=True, seed=1)
        assert found == "the two scores are not made of the same sums over the examples, so these cannot be resampled"
