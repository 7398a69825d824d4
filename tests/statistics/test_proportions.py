"""Tango's bounds: the values of the paper's formula, computed outside this project."""

from __future__ import annotations

import pytest

from pytest_modelopt.statistics.proportions import drop_bounds


@pytest.mark.parametrize(
    ("b", "c", "n", "upper_points"),
    [
        (0, 0, 300, 0.8938),
        (0, 0, 500, 0.5382),
        (10, 10, 500, 1.5591),
        (20, 20, 1000, 1.0720),
        (12, 8, 1000, 1.2026),
        (40, 20, 1000, 3.3284),
        (40, 40, 2000, 0.7469),
        (100, 100, 5000, 0.4681),
    ],
)
def test_upper_bounds_are_the_published_ones(b: int, c: int, n: int, upper_points: float) -> None:
    assert 100 * drop_bounds(b, c, n)[1] == pytest.approx(upper_points, abs=5e-5)


def test_lower_bound_is_the_published_one() -> None:
    assert 100 * drop_bounds(40, 20, 1000)[0] == pytest.approx(0.7426, abs=5e-5)


def test_exchanging_the_two_variants_mirrors_the_bounds() -> None:
    lower, upper = drop_bounds(17, 5, 400)
    mirrored_lower, mirrored_upper = drop_bounds(5, 17, 400)
    assert (mirrored_lower, mirrored_upper) == pytest.approx((-upper, -lower), abs=1e-12)


@pytest.mark.parametrize(("b", "c", "n"), [(0, 0, 0), (-1, 0, 5), (3, 3, 5)])
def test_impossible_counts_are_refused(b: int, c: int, n: int) -> None:
    with pytest.raises(ValueError, match="need 0 <= b"):
        drop_bounds(b, c, n)
