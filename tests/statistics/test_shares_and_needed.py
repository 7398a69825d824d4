"""Wilson's bounds by published values, and how many examples a limit would need by trying them out."""

from __future__ import annotations

import math
from itertools import count
from statistics import NormalDist

import pytest

from pytest_modelopt.statistics.needed import examples_for_drop, examples_for_interval, examples_for_share
from pytest_modelopt.statistics.proportions import Z_ONE_SIDED_95, drop_bounds, share_bounds

TWO_SIDED_95 = NormalDist().inv_cdf(0.975)


@pytest.mark.parametrize(
    ("seen", "examples", "lower", "upper"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_score_interval_is_the_published_one(seen: int, examples: int, lower: float, upper: float) -> None:
    """Newcombe (1998), "Two-sided confidence intervals for the single proportion: comparison of seven methods",
    Statistics in Medicine 17, table I, method 3."""
    assert share_bounds(seen, examples, TWO_SIDED_95) == pytest.approx((lower, upper), abs=5e-5)


@pytest.mark.parametrize(("seen", "examples"), [(1, 2), (45, 360), (359, 360), (3, 4000)])
def test_a_bound_is_where_the_score_test_just_rejects(seen: int, examples: int) -> None:
    """The definition: |seen/N - p| = z sqrt(p (1 - p) / N)."""
    for bound in share_bounds(seen, examples):
        distance = abs(seen / examples - bound) / math.sqrt(bound * (1 - bound) / examples)
        assert distance == pytest.approx(Z_ONE_SIDED_95, rel=1e-9)


@pytest.mark.parametrize("examples", [1, 7, 20, 360, 10**9])
def test_nothing_seen_and_all_seen_are_bounded_by_the_ends_themselves(examples: int) -> None:
    least, most = share_bounds(0, examples), share_bounds(examples, examples)
    assert (least[0], most[1]) == (0.0, 1.0)
    assert all(share_bounds(0, n)[0] == 0.0 and share_bounds(n, n)[1] == 1.0 for n in range(1, 200))
    edge = Z_ONE_SIDED_95**2 / (examples + Z_ONE_SIDED_95**2)
    assert (least[1], most[0]) == pytest.approx((edge, 1 - edge), rel=1e-9)


@pytest.mark.parametrize(("seen", "examples"), [(0, 0), (-1, 5), (6, 5)])
def test_an_impossible_share_is_refused(seen: int, examples: int) -> None:
    with pytest.raises(ValueError, match="need 0 <= count"):
        share_bounds(seen, examples)


def test_a_drop_of_one_example_is_bounded_by_what_one_example_can_say() -> None:
    """Solved by hand. b = N = 1: Z(L) = sqrt((1 - L) / (1 + L)), so the bounds are (1 - z2) / (1 + z2) and 1."""
    z2 = Z_ONE_SIDED_95**2
    assert drop_bounds(1, 0, 1) == pytest.approx(((1 - z2) / (1 + z2), 1.0), abs=1e-12)
    assert drop_bounds(0, 1, 1) == pytest.approx((-1.0, (z2 - 1) / (1 + z2)), abs=1e-12)
    unchanged = z2 / (1 + z2)  # Z(L) = -sqrt(L / (1 - L))
    assert drop_bounds(0, 0, 1) == pytest.approx((-unchanged, unchanged), abs=1e-12)


@pytest.mark.parametrize(("b", "c"), [(5, 0), (0, 5), (3, 2), (250, 250), (1000, 0)])
def test_where_every_example_changed_the_bounds_enclose_the_drop(b: int, c: int) -> None:
    lower, upper = drop_bounds(b, c, b + c)
    assert -1 <= lower <= (b - c) / (b + c) <= upper <= 1
    assert lower < upper


# Right to wrong, wrong to right, N, limit: undecided each, as the test sees for itself.
UNDECIDED = [(3, 1, 400, 0.01), (0, 0, 100, 0.02), (9, 2, 100, 0.05), (1, 0, 50, 0.03), (2, 5, 100, 0.01)]


@pytest.mark.parametrize(("b", "c", "examples", "limit"), UNDECIDED)
def test_the_examples_that_a_drop_would_need_are_found_by_trying(b: int, c: int, examples: int, limit: float) -> None:
    def is_decided(times: int) -> bool:
        lower, upper = drop_bounds(times * b, times * c, times * examples)
        return upper <= limit or lower > limit

    assert not is_decided(1)
    times = next(times for times in count(2) if is_decided(times))
    needed = examples_for_drop(b, c, examples, limit)
    assert needed is not None
    assert (times - 1) * examples < needed <= times * examples


@pytest.mark.parametrize(
    ("seen", "examples", "limit"), [(3, 400, 0.01), (0, 100, 0.02), (93, 100, 0.9), (7, 100, 0.05), (100, 100, 0.98)]
)
def test_the_examples_that_a_share_would_need_are_found_by_trying(seen: int, examples: int, limit: float) -> None:
    def is_decided(times: int) -> bool:
        lower, upper = share_bounds(times * seen, times * examples)
        return upper < limit or lower > limit

    assert not is_decided(1)
    times = next(times for times in count(2) if is_decided(times))
    needed = examples_for_share(seen, examples, limit)
    assert needed is not None
    assert (times - 1) * examples < needed <= times * examples


def test_no_number_of_examples_decides_a_limit_that_was_measured_itself() -> None:
    assert examples_for_drop(7, 0, 1000, 0.007) is None
    assert examples_for_drop(3, 3, 10, 0.0) is None
    assert examples_for_share(300, 300, 1.0) is None
    assert examples_for_share(0, 300, 0.0) is None
    assert examples_for_interval(0.3, 0.1, 0.5, 100, 0.3) is None


def test_at_the_ends_of_the_scale_one_contrary_example_decides() -> None:
    assert examples_for_share(1, 300, 0.0) == 1
    assert examples_for_share(299, 300, 1.0) == 1


def test_the_half_width_of_an_interval_shrinks_with_the_root() -> None:
    """0.2 wide on its upper side on 100 examples, 0.05 to go: sixteen times as many."""
    assert examples_for_interval(0.5, 0.45, 0.7, 100, 0.55) == pytest.approx(1600, abs=1)
    assert examples_for_interval(0.5, 0.4, 0.7, 100, 0.45) == pytest.approx(400, abs=1)
