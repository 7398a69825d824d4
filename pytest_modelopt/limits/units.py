"""Values with units: one parser for each kind of value.

Parsed values are the floats nearest to the decimal numbers that were written: `60%` is 0.6, `0.28 pp` is 0.0028.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from fractions import Fraction

from pytest_modelopt.limits.spelling import shown

# The exponent has at most three digits, so that no text can ask for a number that takes forever to write out.
NUMBER_PATTERN = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?"
_QUANTITY = re.compile(rf"({NUMBER_PATTERN})\s*(.*)", re.DOTALL)
_LONGEST_TEXT = 200

BYTE_UNITS = {"B": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
TIME_UNITS = {
    "us": Fraction(1, 10**6),
    "\N{MICRO SIGN}s": Fraction(1, 10**6),
    "\N{GREEK SMALL LETTER MU}s": Fraction(1, 10**6),
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "min": Fraction(60),
}
_MOST_GROWTH = 10
"""What would be eleven times as large keeps any limit."""
_MOST_SECONDS = 30 * 86400
_MOST_BYTES = 2**53
"""Up to here a float holds every whole number of bytes."""

_BYTES_SAID = {
    "B": "bytes",
    "kB": "kilobytes, 1000 bytes",
    "MB": "megabytes, 1000 * 1000 bytes",
    "GB": "gigabytes, 1000 * 1000 * 1000 bytes",
    "KiB": "kibibytes, 1024 bytes",
    "MiB": "mebibytes, 1024 * 1024 bytes",
    "GiB": "gibibytes, 1024 * 1024 * 1024 bytes",
}
_TIMES_SAID = {
    "sec": "s",
    "secs": "s",
    "second": "s",
    "seconds": "s",
    "msec": "ms",
    "millisecond": "ms",
    "milliseconds": "ms",
    "usec": "us",
    "microsecond": "us",
    "microseconds": "us",
    "mins": "min",
    "minute": "min",
    "minutes": "min",
}
_POINTS_SAID = ("p", "pt", "pts", "ppt", "point", "points", "percentage point", "percentage points", "p.p.")
_PERCENT_SAID = ("percent", "per cent", "pct")

_EXPECT_BYTES = f"a number with one of the units {', '.join(BYTE_UNITS)}, for example `6 MiB`"
_EXPECT_PERCENTAGE = "a percentage from 0% to 100%, or a fraction from 0 to 1, for example `60%` or `0.6`"
_EXPECT_GROWTH = "a percentage from 0% to 1000%, or a fraction from 0 to 1, for example `10%` or `0.1`"
_EXPECT_POINTS_OR_FRACTION = "percentage points, or a fraction below 1, for example `1 pp` or `0.01`"
_EXPECT_OWN_UNIT = "a number of 0 or more in the metric's own unit, for example `0.5`"
_EXPECT_POINTS_OR_OWN_UNIT = (
    "percentage points, or a number of 0 or more in the metric's own unit, for example `1 pp` or `0.5`"
)
_EXPECT_SCORE = "a score from 0 to 1, or a percentage, for example `0.97` or `97%`"
_EXPECT_OWN_SCORE = "a number in the metric's own unit, for example `23.5`"
_EXPECT_ANY_SCORE = "a number in the metric's own unit, or a percentage, for example `0.97` or `97%`"
_EXPECT_FACTOR = "a factor above 0, or a signed percentage, for example `1.3x` or `+30%`"
_EXPECT_TIME = "a number with one of the units us, ms, s, min, for example `20 s`"


class UnitError(ValueError):
    """A value that is not what its kind asks for; the message is one sentence with the value and what to write."""


def parse_bytes(value: object) -> int:
    """Bytes from `6 MiB`, `500 kB` or `512 B`. A fraction of a byte is rounded down."""
    number, unit = _read(value, _EXPECT_BYTES)
    if unit and unit not in BYTE_UNITS:
        raise _unknown_unit(value, number, unit, _byte_units_meant(unit), _EXPECT_BYTES)
    if number < 0:
        raise _refusal(value, "is less than nothing", _EXPECT_BYTES)
    if not unit:
        raise _refusal(value, "has no unit", _EXPECT_BYTES)
    count = math.floor(number * BYTE_UNITS[unit])
    if count > _MOST_BYTES:
        raise _refusal(value, "is more than any machine has", _EXPECT_BYTES)
    return count


def parse_percentage(value: object) -> float:
    """A fraction in 0..1 from `60%`, 0.6, 0 or 1.0; a plain 1 could mean two things."""
    share, unit = _share(value, _EXPECT_PERCENTAGE)
    if share > 1:
        if not unit and share <= 100:
            raise UnitError(
                f"{shown(value)} is more than 1, the whole; if you mean a percentage, write {_plain(share)}%"
            )
        raise _refusal(value, "is more than the whole", _EXPECT_PERCENTAGE)
    return float(share)


def parse_growth(value: object) -> float:
    """A share of 0 or more from `10%`, `150%` (1.5) or 0.1: what grows may grow by more than the whole."""
    share, unit = _share(value, _EXPECT_GROWTH)
    if share > 1 and not unit:
        raise _two_percentages(value, share)
    if share > _MOST_GROWTH:
        raise _refusal(
            value, f"would allow more than {1 + _MOST_GROWTH} times as much, which is no limit", _EXPECT_GROWTH
        )
    return _float(share, value, _EXPECT_GROWTH)


def _share(value: object, expected: str) -> tuple[Fraction, str]:
    """A fraction of 0 or more, and the unit: `%`, or nothing."""
    number, unit = _read(value, expected)
    if unit not in ("", "%"):
        meant = [("%", "")] if unit in (*_PERCENT_SAID, "pp", *_POINTS_SAID) else []
        raise _unknown_unit(value, number, unit, meant, expected)
    if number < 0:
        raise _refusal(value, "is negative", expected)
    if not unit and _is_plain_one(value, number):
        raise _two_percentages(value, number)
    return number / 100 if unit else number, unit


def _is_plain_one(value: object, number: Fraction) -> bool:
    """Whether a 1 without a point is written: the whole, or one in a hundred. 1.0 is a fraction."""
    return number == 1 and "." not in str(value)


def _two_percentages(value: object, number: Fraction) -> UnitError:
    percent, share = _plain(number), _plain(100 * number)
    return UnitError(f"{shown(value)} could mean {percent}% or {share}%; write `{percent}%` or `{share}%`")


def parse_points(value: object, *, unit_interval: bool | None) -> float:
    """A drop in the metric's unit from `1 pp` (0.01) or from a bare number.

    `unit_interval` says whether the metric lies in 0..1 (then a bare number is a fraction below 1) or not (then points
    make no sense); None is for a metric of which nothing is known, where both forms are allowed.
    """
    expected = {True: _EXPECT_POINTS_OR_FRACTION, False: _EXPECT_OWN_UNIT, None: _EXPECT_POINTS_OR_OWN_UNIT}[
        unit_interval
    ]
    number, unit = _read(value, expected)
    if unit == "%":
        raise _ambiguous_percentage(value, number, unit_interval)
    if unit == "pp" and unit_interval is False:
        raise _refusal(value, "is in percentage points, which only a metric from 0 to 1 has", expected)
    if unit not in ("", "pp"):
        meant = [("pp", "percentage points")] if unit.lower() in ("pp", *_POINTS_SAID) else []
        raise _unknown_unit(value, number, unit, meant, expected)
    if number < 0:
        raise _refusal(value, "is negative, but a drop is counted upwards from 0", expected)
    if unit and number > 100:
        raise _refusal(value, "is more than the whole, 100 pp", expected)
    if not unit and unit_interval and number >= 1:
        raise UnitError(
            f"{shown(value)} would allow every drop of a score from 0 to 1; if you mean percentage points, "
            f"write {_plain(number)} pp"
        )
    return _float(number / 100 if unit else number, value, expected)


def parse_score(value: object, *, unit_interval: bool | None) -> float:
    """The floor of a score: 0.97 or `97%` for a metric in 0..1, else a number in its own unit, also below 0."""
    expected = {True: _EXPECT_SCORE, False: _EXPECT_OWN_SCORE, None: _EXPECT_ANY_SCORE}[unit_interval]
    number, unit = _read(value, expected)
    if unit == "%" and unit_interval is False:
        raise _refusal(value, "is a percentage, which only a metric from 0 to 1 has", expected)
    if unit not in ("", "%"):
        meant = [("%", "")] if unit in _PERCENT_SAID and unit_interval is not False else []
        raise _unknown_unit(value, number, unit, meant, expected)
    score = number / 100 if unit else number
    if unit_interval and not unit and _is_plain_one(value, number):
        raise _two_percentages(value, number)
    if unit_interval and 1 < score <= 100 and not unit:
        raise UnitError(f"{shown(value)} is above 1, the best score; if you mean a percentage, write {_plain(number)}%")
    if (unit_interval or unit) and not 0 <= score <= 1:
        raise _refusal(value, f"is {'above the best' if score > 1 else 'below the worst'} score", expected)
    return _float(score, value, expected)


def parse_factor(value: object) -> float:
    """A factor above 0 from `1.3x`, 1.3, `+30%` (1.3) or `-10%` (0.9)."""
    number, unit = _read(value, _EXPECT_FACTOR)
    signed = isinstance(value, str) and value.strip()[0] in "+-"
    percent = _plain(number)
    if unit == "%" and not signed:
        raise UnitError(
            f"{shown(value)} could mean {percent}% as fast or {percent}% faster; write `+{percent}%` or "
            f"`{_plain(1 + number / 100)}x` if you mean faster"
        )
    if unit not in ("", "x", "%"):
        meant = [("x", "times")] if unit.lower() in ("x", "times", "fold", "\N{MULTIPLICATION SIGN}") else []
        raise _unknown_unit(value, number, unit, meant, _EXPECT_FACTOR)
    if signed and unit != "%" and number > 0:
        raise _refusal(value, "has a sign, which only a percentage may have", _EXPECT_FACTOR)
    factor = 1 + number / 100 if unit == "%" else number
    if factor <= 0:
        raise _refusal(value, "is not above 0", _EXPECT_FACTOR)
    return _float(factor, value, _EXPECT_FACTOR, above_zero=True)


def parse_time(value: object) -> float:
    """Seconds from `20 s`, `5 ms`, `250 us` or `2 min`."""
    number, unit = _read(value, _EXPECT_TIME)
    if not unit:
        raise UnitError(f"{shown(value)} has no unit; give a unit (us, ms, s or min), for example `{_plain(number)} s`")
    if unit not in TIME_UNITS:
        raise _unknown_unit(value, number, unit, _time_units_meant(unit), _EXPECT_TIME)
    if number <= 0:
        raise _refusal(value, "is not above 0", _EXPECT_TIME)
    if number * TIME_UNITS[unit] > _MOST_SECONDS:
        raise _refusal(value, f"is longer than {_MOST_SECONDS // 86400} days", _EXPECT_TIME)
    return _float(number * TIME_UNITS[unit], value, _EXPECT_TIME, above_zero=True)


# --- reading and refusing --------------------------------------------------------------------------------------------


def _read(value: object, expected: str) -> tuple[Fraction, str]:
    """The exact decimal number and the unit, which may be empty."""
    if value is None:
        raise UnitError(f"there is no value; write {expected}")
    if isinstance(value, bool):
        raise _refusal(value, "is yes or no, not a quantity", expected)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _refusal(value, "is not a finite number", expected)
        return Fraction(repr(float(value))), ""
    if isinstance(value, int):
        return Fraction(int(value)), ""
    if not isinstance(value, str):
        raise _refusal(value, "is not a number or text", expected)
    if not value.strip():
        raise _refusal(value, "is empty", expected)
    if len(value) > _LONGEST_TEXT:
        raise _refusal(value, "is too long for a value", expected)
    return _read_text(value, expected)


def _read_text(value: str, expected: str) -> tuple[Fraction, str]:
    match = _QUANTITY.match(value.strip())
    if match is None:
        infinite = value.strip().lower().lstrip("+-.") in ("nan", "inf", "infinity")
        raise _refusal(value, "is not a finite number" if infinite else "does not begin with a number", expected)
    unit = " ".join(match[2].split())
    if re.match(r"[,_]?[0-9]", unit):
        reason = "has a comma in its number" if unit[0] == "," else "is not one number"
        raise _refusal(value, reason, f"{expected}, with a point for decimals")
    return Fraction(match[1]), unit


def _float(number: Fraction, value: object, expected: str, *, above_zero: bool = False) -> float:
    try:
        result = float(number)
    except OverflowError:
        raise _refusal(value, "is too large", expected) from None
    if above_zero and not result:
        raise _refusal(value, "is too small", expected)
    return result


def _refusal(value: object, why: str, expected: str) -> UnitError:
    return UnitError(f"{shown(value)} {why}; write {expected}")


def _unknown_unit(
    value: object, number: Fraction, unit: str, meant: Sequence[tuple[str, str]], expected: str
) -> UnitError:
    """A refusal with the units, each with what it is in words, that were probably meant."""
    if not meant:
        return _refusal(value, f"has a unit that does not fit, {shown(unit)}", expected)
    suggestions = [
        f"`{_plain(number)}{'' if name in ('%', 'x') else ' '}{name}`{f' ({words})' if words else ''}"
        for name, words in meant
    ]
    return UnitError(
        f"{shown(value)} has a unit that does not fit, {shown(unit)}; write {expected}; "
        f"did you mean {' or '.join(suggestions)}?"
    )


def _byte_units_meant(unit: str) -> list[tuple[str, str]]:
    word = unit.lower().rstrip("s")
    named = [known for known, said in _BYTES_SAID.items() if said.split(",")[0].rstrip("s") == word]
    alike = [known for known in BYTE_UNITS if known.lower() == unit.lower()]
    first_letter = [known for known in ("kB", "MB", "GB", "KiB", "MiB", "GiB") if word and known[0].lower() == word]
    return [(known, _BYTES_SAID[known]) for known in named or alike or first_letter]


def _time_units_meant(unit: str) -> list[tuple[str, str]]:
    if unit.lower() == "m":
        return [("ms", "milliseconds"), ("min", "minutes")]
    known = _TIMES_SAID.get(unit.lower(), unit.lower())
    return [(known, "")] if known in TIME_UNITS else []


def _ambiguous_percentage(value: object, number: Fraction, unit_interval: bool | None) -> UnitError:
    if unit_interval is False:
        return _refusal(value, "is a percentage, which only a metric from 0 to 1 has", _EXPECT_OWN_UNIT)
    share = number / 100
    example = ""
    if 0 < share < Fraction(1, 2):
        left = (Fraction(1, 2) * (1 - share), Fraction(1, 2) - share)
        example = f" (of a score of 0.50 that leaves {_plain(left[0])} or {_plain(left[1])})"
    percent = _plain(number)
    return UnitError(
        f"{shown(value)} is ambiguous: {percent}% of the original's score, or {percent} percentage "
        f"point{'' if number == 1 else 's'}{example}; write `{percent} pp` for percentage points"
    )


def _plain(number: Fraction) -> str:
    """A number in a suggestion: no exponent where it can be helped, no needless digits."""
    if number.denominator == 1 and abs(number) < 10**15:
        return str(number.numerator)
    try:
        return f"{float(number):.10g}"
    except OverflowError:
        return "..."
