"""Bounds that hold with few examples: against the binomial distribution itself, summed exactly."""

from __future__ import annotations

import math
from itertools import product

import pytest

from pytest_modelopt.statistics.certain import certain_drop, certain_share


def binomial(count: int, examples: int, share: float) -> float:
    return math.comb(examples, count) * share**count * (1 - share) ** (examples - count)


@pytest.mark.parametrize("alpha", [0.05, 0.001])
@pytest.mark.parametrize("examples", [5, 40, 128])
def test_each_bound_fails_at_most_with_its_probability(examples: int, alpha: float) -> None:
    bounds = [certain_share(count, examples, alpha) for count in range(examples + 1)]
    for share in (0.001, 0.01, 0.1, 0.25, 0.5, 0.9, 0.99):
        above = sum(binomial(count, examples, share) for count, (low, _) in enumerate(bounds) if low > share)
        below = sum(binomial(count, examples, share) for count, (_, high) in enumerate(bounds) if high < share)
        assert above <= alpha
        assert below <= alpha


def test_of_none_the_upper_bound_is_the_root_of_alpha() -> None:
    """(1 - p) ** N = alpha, by hand."""
    low, high = certain_share(0, 100, 0.05)
    assert low == 0
    assert high == pytest.approx(1 - 0.05**0.01, rel=1e-9)
    low, high = certain_share(100, 100, 0.05)
    assert low == pytest.approx(0.05**0.01, rel=1e-9)
    assert high == 1


def test_the_drop_fails_at_most_with_its_probability() -> None:
    """Of 12 examples, over all counts of lost and won."""
    examples, alpha, lost, won = 12, 0.05, 0.3, 0.05
    failed = 0.0
    for b, c in product(range(examples + 1), repeat=2):
        if b + c <= examples and certain_drop(b, c, examples, alpha) > lost - won:
            ways = math.comb(examples, b) * math.comb(examples - b, c)
            failed += ways * lost**b * won**c * (1 - lost - won) ** (examples - b - c)
    assert failed <= alpha
    assert certain_drop(120, 2, 200, 0.001) > 0.3  # and it is of use


@pytest.mark.parametrize("wrong", [(3, 2, 0.1), (-1, 5, 0.1), (1, 0, 0.1), (1, 2, 0.0), (1, 2, 1.0)])
def test_what_is_no_share_is_refused(wrong: tuple[int, int, float]) -> None:
    with pytest.raises(ValueError, match="need 0 <= count <= N"):
        certain_share(*wrong)
