"""Shares of members that are alike within their clusters, as tokens are within a sequence."""

from __future__ import annotations

import random

import pytest

from pytest_modelopt.statistics.proportions import (
    Z_ONE_SIDED_95,
    clustered_examples,
    clustered_share_bounds,
    share_bounds,
)
from pytest_modelopt.statistics.timing import student_quantile

pytestmark = pytest.mark.unit


def test_members_that_are_all_alike_count_as_their_clusters() -> None:
    """30 of 100 clusters are hit, with all of their 16 members: an effect of 16 x 99 / 100 for each."""
    found = clustered_examples(30 * 16, 30 * 16**2, 100, 16)
    assert found == pytest.approx(99 * (Z_ONE_SIDED_95 / student_quantile(0.95, 99)) ** 2)


def test_clusters_of_one_are_examples() -> None:
    few = clustered_share_bounds(30, 30, 1000, 1)
    assert few == pytest.approx(share_bounds(30, 1000), rel=1e-2)


def test_members_that_do_not_care_for_their_cluster_count_alone() -> None:
    """Each of 100 clusters has 4 of 16: there is no variance between them."""
    found = clustered_examples(400, 100 * 16, 100, 16)
    assert found == pytest.approx(1600 * (Z_ONE_SIDED_95 / student_quantile(0.95, 99)) ** 2)


@pytest.mark.parametrize(("count", "squares"), [(0, 0), (1600, 25600)])
def test_where_none_or_all_were_hit_each_cluster_counts_once(count: int, squares: int) -> None:
    assert clustered_examples(count, squares, 100, 16) == 100
    low, high = clustered_share_bounds(count, squares, 100, 16)
    assert (low, high) == pytest.approx(share_bounds(count // 16, 100))


@pytest.mark.parametrize("alike", [0.5, 2.0, 20.0])
def test_the_upper_bound_holds_for_clusters_of_every_kind(alike: float) -> None:
    """Beta-binomial hits with a share of 0.06; `alike` is the sum of the beta's parameters, small where all members of
    a cluster are hit together."""
    dice, held, runs, share, clusters, size = random.Random(3), 0, 400, 0.06, 60, 16
    for _ in range(runs):
        hits = []
        for _ in range(clusters):
            own = dice.betavariate(share * alike, (1 - share) * alike)
            hits.append(sum(dice.random() < own for _ in range(size)))
        held += clustered_share_bounds(sum(hits), sum(each**2 for each in hits), clusters, size)[1] >= share
    assert held / runs > 0.91, "95% but for chance (four standard errors)"


@pytest.mark.parametrize("wrong", [(-1, 1, 4, 2), (9, 81, 4, 2), (3, 1, 4, 2), (0, 0, 0, 2)])
def test_counts_that_cannot_be_are_refused(wrong: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="need hits of"):
        clustered_examples(*wrong)
