"""About how many examples would decide a limit that the examples at hand leave undecided.

All of them suppose that the shares stay what they are here. The statistic of a score bound then grows with the root of
the number of examples, and the half-width of an interval shrinks with it, so the smallest number follows without a
search. `None` stands where no number would do: what is measured is the limit itself.
"""

from __future__ import annotations

import math

from pytest_modelopt.statistics.proportions import Z_ONE_SIDED_95, drop_statistic

_MOST = 10.0**18
"""Nobody has more, and a record's whole numbers have 64 bits."""


def examples_for_drop(
    right_to_wrong: int, wrong_to_right: int, examples: int, limit: float, z: float = Z_ONE_SIDED_95
) -> int | None:
    """Until one of Tango's bounds (`drop_bounds`) reaches `limit`."""
    if _is_same(right_to_wrong - wrong_to_right, examples * limit):
        return None
    return _enough(examples, drop_statistic(right_to_wrong, wrong_to_right, examples, limit), z)


def examples_for_share(count: float, examples: float, limit: float, z: float = Z_ONE_SIDED_95) -> int | None:
    """Until one of Wilson's bounds (`share_bounds`) reaches `limit`."""
    if _is_same(count, examples * limit):
        return None
    spread = math.sqrt(examples * limit * (1 - limit)) if 0 < limit < 1 else 0.0
    return _enough(examples, (count - examples * limit) / spread if spread else math.inf, z)


def examples_for_interval(drop: float, low: float, high: float, examples: int, limit: float) -> int | None:
    """Until the end of an interval around `drop` that lies towards `limit` reaches it."""
    distance = abs(limit - drop)
    if _is_same(drop, limit):
        return None
    half = max(0.0, high - drop if limit > drop else drop - low)
    return _counted(examples * (half / distance) ** 2)


def _enough(examples: float, statistic: float, z: float) -> int:
    return _counted(examples * (z / statistic) ** 2)


def _counted(examples: float) -> int:
    return max(1, math.ceil(min(examples, _MOST)))


def _is_same(measured: float, limit: float) -> bool:
    """Up to rounding: 7 of 1000 are the limit of 0.007."""
    return math.isclose(measured, limit, rel_tol=1e-12, abs_tol=1e-12)
