"""A new value for a limit in the words of its author: in the same unit, rounded to the safe side."""

from __future__ import annotations

import math
import re
from fractions import Fraction

from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.limits.units import BYTE_UNITS, NUMBER_PATTERN, TIME_UNITS

_WRITTEN = re.compile(rf"\s*({NUMBER_PATTERN})(\s*)(.*?)\s*", re.DOTALL)
_DIGITS = 3
_DIGITS_OF_SCORES = 4
"""Scores lie near the best one: 99.87% says as much as 0.13% of errors."""


def reworded(name: str, text: str, value: float, *, up: bool) -> str:
    """`value` of limit `name`, in the limit's base unit, as the author of `text` would write it.

    Three significant digits (four of a score), and all before the point; rounded up or down, as `up` says. The text may
    be none that the limit takes (a percentage above 100%): whoever uses it has to parse it.
    """
    match = _WRITTEN.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a number with a unit")
    unit = match[3]
    exact = Fraction(repr(value))
    is_signed = LIMITS[name].unit == "factor" and unit == "%"
    amount = (exact - 1) * 100 if is_signed else exact / _size(unit)
    is_whole = LIMITS[name].unit == "bytes" and unit in ("", "B")
    digits = _DIGITS_OF_SCORES if LIMITS[name].unit == "score" else _DIGITS
    number = _rounded(amount, 0 if is_whole else _decimals(amount, digits), up=up)
    if number == "1" and not unit and LIMITS[name].unit in ("percentage", "score"):
        number = "1.0"  # a plain 1 could mean 1%
    sign = "+" if is_signed and not number.startswith("-") else ""
    return f"{sign}{number}{match[2]}{unit}"


def _size(unit: str) -> Fraction:
    """What one of the unit is in the limit's base unit."""
    if unit in ("%", "pp"):
        return Fraction(1, 100)
    return Fraction(BYTE_UNITS.get(unit) or TIME_UNITS.get(unit) or 1)


def _decimals(amount: Fraction, digits: int) -> int:
    before_point = math.floor(math.log10(abs(amount))) + 1 if amount else 1
    return max(0, digits - before_point)


def _rounded(amount: Fraction, decimals: int, *, up: bool) -> str:
    """A plain decimal number without needless zeros."""
    scaled = amount * 10**decimals
    units = math.ceil(scaled) if up else math.floor(scaled)
    digits = str(abs(units)).rjust(decimals + 1, "0")
    whole, fraction = digits[: len(digits) - decimals], digits[len(digits) - decimals :].rstrip("0")
    return f"{'-' if units < 0 else ''}{whole}{f'.{fraction}' if fraction else ''}"
