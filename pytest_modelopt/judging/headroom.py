"""The tightest value of a limit that a measured case keeps for certain, and that value with room to spare."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace

from pytest_modelopt.judging.judge import judge
from pytest_modelopt.limits.accuracy import MIN_ACCURACY
from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.verdicts import Limit, Verdict

_PRECISION = 1e-10
"""To which a limit is looked for, as a share of it: far finer than any that is written."""


def judged(case: Case, limit: Limit, value: float, timed_limits: int) -> Verdict:
    """What the verdict on the case would be if the limit were stated as `value`. A waiver plays no part."""
    changed = replace(limit, value=value, waiver=None)
    others = tuple(each for each in case.limits if each.name == MIN_ACCURACY.name != limit.name)  # drops depend on it
    return judge(replace(case, limits=(changed, *others)), timed_limits=timed_limits).verdicts[0]


def tightest(case: Case, limit: Limit, measured: float | None, timed_limits: int) -> float | None:
    """The tightest value, in the limit's base unit, that the case keeps for certain; None where there is none.

    Found by asking the judge, so for whatever it decides by: a figure that repeats is its own tightest limit, of
    several processes it is the worst one, and of timed pairs and of populations it is the end of the interval.
    `measured` is the figure of the verdict.
    """
    from_above = LIMITS[limit.name].bounds_from_above(case)
    low, high = LIMITS[limit.name].domain

    def keeps(value: float) -> bool:
        return judged(case, limit, value, timed_limits).outcome == "pass"

    loose, tight = (high, low) if from_above else (low, high)
    if not keeps(loose):
        return None
    if keeps(tight):
        return tight
    if measured is not None and low <= measured <= high and keeps(measured):
        return measured  # exactly: nobody is decided by a bound on the better side of what was measured
    return _boundary(keeps, loose, tight)


def with_headroom(case: Case, limit: Limit, end: float, measured: float | None, headroom: float) -> float | None:
    """The limit that leaves `headroom` (a share, 0.05 for 5%) beyond `end`, in its base unit.

    A share of the bytes, the time, or the weights that were changed; for reductions of the bytes that are left. Of
    answers: a share of the drop, of the flips, or of the errors behind a score from 0 to 1, and at least one example,
    since less would be no room. None where a share of nothing was asked for, which is no room either.
    """
    if not headroom:
        return end
    value = LIMITS[limit.name].with_room(case, limit, end, measured, headroom)
    return None if value is None else float(f"{value:.9g}")  # 3.0000000001 is 3, and not rounded up from there


# --- where keeping a limit ends --------------------------------------------------------------------------------------


def _boundary(keeps: Callable[[float], bool], loose: float, tight: float) -> float:
    """The value nearest to `tight` that is kept. Floats are halved in their order, so any scale takes few steps."""
    good, bad = _place(loose), _place(tight)
    while abs(good - bad) > 1 and not _are_close(_float(good), _float(bad)):
        middle = (good + bad) // 2
        if keeps(_float(middle)):
            good = middle
        else:
            bad = middle
    return _float(good)


def _are_close(a: float, b: float) -> bool:
    return abs(a - b) <= _PRECISION * max(abs(a), abs(b))


def _place(value: float) -> int:
    """The place of a float among all floats, in their order; 0 has 0."""
    (bits,) = struct.unpack(">q", struct.pack(">d", abs(value)))
    return int(bits) if value >= 0 else -int(bits)


def _float(place: int) -> float:
    (value,) = struct.unpack(">d", struct.pack(">q", abs(place)))
    return float(value) if place >= 0 else -float(value)
