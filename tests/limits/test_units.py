"""Units: what a value means in numbers worked out by hand, and that every value that is not one is refused in words."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_modelopt.limits import units
from pytest_modelopt.limits.units import UnitError
from pytest_modelopt.results import figures

points_of_accuracy = partial(units.parse_points, unit_interval=True)
points_of_own = partial(units.parse_points, unit_interval=False)
points_of_any = partial(units.parse_points, unit_interval=None)
score_of_accuracy = partial(units.parse_score, unit_interval=True)
score_of_own = partial(units.parse_score, unit_interval=False)
score_of_any = partial(units.parse_score, unit_interval=None)

Parser = Callable[[object], float]
PARSERS: list[Parser] = [
    units.parse_bytes,
    units.parse_percentage,
    units.parse_growth,
    points_of_accuracy,
    points_of_own,
    points_of_any,
    score_of_accuracy,
    score_of_own,
    score_of_any,
    units.parse_factor,
    units.parse_time,
]

BY_HAND: list[tuple[Parser, object, float]] = [
    (units.parse_bytes, "6 MiB", 6291456),
    (units.parse_bytes, "6MB", 6000000),
    (units.parse_bytes, "500 kB", 500000),
    (units.parse_bytes, "1.5 GiB", 1610612736),
    (units.parse_bytes, "2 GB", 2000000000),
    (units.parse_bytes, "3 KiB", 3072),
    (units.parse_bytes, " 512 B ", 512),
    (units.parse_bytes, "0.3 KiB", 307),  # 307.2
    (units.parse_percentage, "60%", 0.6),
    (units.parse_percentage, "29 %", 0.29),  # 29 / 100 without a detour through a product of floats
    (units.parse_percentage, 0.6, 0.6),
    (units.parse_percentage, "1e-3", 0.001),
    (units.parse_percentage, 0, 0),
    (units.parse_percentage, 1.0, 1),
    (units.parse_percentage, "1.0", 1),
    (units.parse_percentage, "1%", 0.01),
    (units.parse_percentage, "100%", 1),
    (units.parse_percentage, 0.01, 0.01),
    (units.parse_growth, "1%", 0.01),
    (units.parse_growth, 0.01, 0.01),
    (units.parse_growth, 1.0, 1),
    (units.parse_growth, "150%", 1.5),
    (units.parse_growth, "1000%", 10),
    (units.parse_growth, 0, 0),
    (points_of_accuracy, "1 pp", 0.01),
    (points_of_accuracy, "0.28pp", 0.0028),
    (points_of_accuracy, "0 pp", 0),
    (points_of_accuracy, 0, 0),
    (points_of_accuracy, 0.01, 0.01),
    (points_of_own, 2.5, 2.5),
    (points_of_any, "1 pp", 0.01),
    (points_of_any, 2.5, 2.5),
    (score_of_accuracy, 0.97, 0.97),
    (score_of_accuracy, "97%", 0.97),
    (score_of_accuracy, 1.0, 1),
    (score_of_accuracy, "100%", 1),
    (score_of_own, 1, 1),
    (score_of_any, 1, 1),
    (points_of_any, 1, 1),
    (score_of_own, -1.5, -1.5),
    (score_of_own, "23.5", 23.5),
    (score_of_any, "97%", 0.97),
    (score_of_any, -3, -3),
    (units.parse_factor, "1.3x", 1.3),
    (units.parse_factor, "1.3", 1.3),
    (units.parse_factor, 1.3, 1.3),
    (units.parse_factor, 2, 2),
    (units.parse_factor, "+30%", 1.3),
    (units.parse_factor, "-10%", 0.9),
    (units.parse_time, "20 s", 20),
    (units.parse_time, "5ms", 0.005),
    (units.parse_time, "250 us", 0.00025),
    (units.parse_time, "250 \u00b5s", 0.00025),
    (units.parse_time, "250 \u03bcs", 0.00025),
    (units.parse_time, "2 min", 120),
    (units.parse_time, "43200 min", 2592000),
]


@pytest.mark.parametrize(("parse", "written", "expected"), BY_HAND)
def test_a_value_is_the_float_nearest_to_what_is_written(parse: Parser, written: object, expected: float) -> None:
    assert parse(written) == expected


REFUSED: list[tuple[Parser, object, list[str]]] = [
    (units.parse_bytes, "6 Mb", ["'6 Mb'", "did you mean `6 MB` (megabytes"]),
    (units.parse_bytes, "6 mib", ["'6 mib'", "did you mean `6 MiB`"]),
    (units.parse_bytes, "6 M", ["`6 MB`", "`6 MiB`"]),
    (units.parse_bytes, "6 megabytes", ["did you mean `6 MB`"]),
    (units.parse_bytes, "1 kb", ["did you mean `1 kB`"]),
    (units.parse_bytes, "6 TB", ["'TB'", "GiB", "for example `6 MiB`"]),
    (units.parse_bytes, "6", ["has no unit"]),
    (units.parse_bytes, 1.5, ["has no unit"]),
    (units.parse_bytes, 6, ["6 has no unit", "for example `6 MiB`"]),
    (units.parse_bytes, 0, ["has no unit"]),
    (units.parse_bytes, "1,5 MiB", ["comma", "with a point for decimals"]),
    (units.parse_bytes, "-3 MiB", ["less than nothing"]),
    (units.parse_bytes, "1e300 GB", ["more than any machine has"]),
    (units.parse_percentage, 60, ["write 60%"]),
    *(
        (parse, one, [f"{one!r} could mean 1% or 100%; write `1%` or `100%`"])
        for parse in (units.parse_percentage, units.parse_growth, score_of_accuracy)
        for one in (1, "1", " 1 ", "+1", "01", "1e0")
    ),
    (units.parse_growth, 1.5, ["1.5 could mean 1.5% or 150%; write `1.5%` or `150%`"]),
    (units.parse_growth, 50, ["50 could mean 50% or 5000%"]),
    (units.parse_growth, "1001%", ["'1001%' would allow more than 11 times as much, which is no limit; write a"]),
    (units.parse_growth, "1e300%", ["which is no limit"]),
    (units.parse_growth, "2x", ["has a unit that does not fit, 'x'"]),
    (units.parse_growth, "5 MiB", ["has a unit that does not fit, 'MiB'"]),
    (units.parse_growth, "-5%", ["is negative"]),
    (units.parse_percentage, 1.5, ["write 1.5%"]),
    (units.parse_percentage, "120%", ["more than the whole"]),
    (units.parse_percentage, "-5%", ["negative"]),
    (units.parse_percentage, "60 percent", ["did you mean `60%`"]),
    (units.parse_percentage, "1 pp", ["did you mean `1%`"]),
    (points_of_accuracy, "1%", ["ambiguous", "of a score of 0.50", "0.495 or 0.49", "write `1 pp`"]),
    (points_of_accuracy, "2%", ["ambiguous", "0.49 or 0.48", "write `2 pp`"]),
    (points_of_accuracy, "80%", ["ambiguous", "write `80 pp`"]),
    (points_of_accuracy, 1, ["would allow every drop", "write 1 pp"]),
    (points_of_accuracy, "1 point", ["did you mean `1 pp`"]),
    (points_of_accuracy, "-1 pp", ["negative"]),
    (points_of_accuracy, "101 pp", ["more than the whole"]),
    (points_of_own, "1 pp", ["only a metric from 0 to 1", "`0.5`"]),
    (points_of_own, "1%", ["only a metric from 0 to 1"]),
    (points_of_any, "1%", ["ambiguous"]),
    (score_of_accuracy, 97, ["write 97%"]),
    (score_of_accuracy, "101%", ["above the best"]),
    (score_of_accuracy, -0.1, ["below the worst"]),
    (score_of_own, "97%", ["only a metric from 0 to 1"]),
    (units.parse_factor, "30%", ["30% as fast or 30% faster", "`+30%`", "`1.3x`"]),
    (units.parse_factor, "-100%", ["not above 0"]),
    (units.parse_factor, 0, ["not above 0"]),
    (units.parse_factor, "1.3 X", ["did you mean `1.3x`"]),
    (units.parse_factor, "+1.3x", ["sign"]),
    (units.parse_factor, "1e-400x", ["too small"]),
    (units.parse_time, 5, ["give a unit", "`5 s`"]),
    (units.parse_time, "5", ["give a unit"]),
    (units.parse_time, "5 m", ["`5 ms`", "`5 min`"]),
    (units.parse_time, "5 seconds", ["did you mean `5 s`"]),
    (units.parse_time, "1 min 30 s", ["'min 30 s'"]),
    (units.parse_time, "0 s", ["not above 0"]),
    (units.parse_time, "1e300 s", ["is longer than 30 days"]),
    (units.parse_time, "43201 min", ["is longer than 30 days"]),
    (units.parse_time, "-1 s", ["not above 0"]),
]


@pytest.mark.parametrize(("parse", "written", "phrases"), REFUSED)
def test_a_wrong_value_is_refused_with_the_text_and_the_way_out(
    parse: Parser, written: object, phrases: list[str]
) -> None:
    with pytest.raises(UnitError) as refusal:
        parse(written)
    for phrase in phrases:
        assert phrase in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_number_of_thousands_of_digits_is_refused_like_any_other() -> None:
    for parse in (units.parse_bytes, units.parse_percentage, points_of_own, score_of_own, units.parse_factor):
        with pytest.raises(UnitError, match="a number of thousands of digits"):
            parse(10**5000)


SENSELESS = [math.nan, math.inf, -math.inf, "nan", ".nan", "inf", "-inf", "NaN", True, False, None, "", "  ", "MiB"]
SENSELESS += [[1], {"limit": 1}, object(), "6 MiB 7", "1_000", "\u0663 MiB", "1e9999", "1" * 1000, "1 \x00"]


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize("written", SENSELESS, ids=lambda value: repr(value)[:20])
def test_no_kind_of_limit_accepts_what_is_no_quantity(parse: Parser, written: object) -> None:
    with pytest.raises(UnitError, match=r"write|give"):
        parse(written)


numbers = st.from_regex(r"[+-]?[0-9]{0,4}\.?[0-9]{0,4}([eE][+-]?[0-9]{1,4})?", fullmatch=True)
endings = st.sampled_from(["", " ", "B", " MiB", "%", " pp", "x", " s", "min", "us", "inf"])
anything = st.one_of(
    st.text(max_size=20),
    st.builds("".join, st.tuples(numbers, endings)),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.none(),
)


@given(anything)
def test_no_parser_ever_returns_what_is_not_finite(written: object) -> None:
    for parse in PARSERS:
        try:
            value = parse(written)
        except UnitError:
            continue
        assert math.isfinite(value)
        assert not isinstance(value, bool)


@given(st.integers(min_value=0, max_value=2**50))
def test_bytes_shown_with_enough_digits_are_read_back(count: int) -> None:
    assert abs(units.parse_bytes(figures.format_bytes(count, digits=17)) - count) <= 1


@given(st.floats(min_value=1e-4, max_value=1))
def test_shares_shown_with_enough_digits_are_read_back(share: float) -> None:
    shown = figures.format_percentage(share, digits=17)
    assert math.isclose(units.parse_percentage(shown if share < 1 else 1.0), share, rel_tol=1e-12)


@given(st.floats(min_value=1e-6, max_value=1e4))
def test_times_and_factors_shown_with_enough_digits_are_read_back(value: float) -> None:
    assert math.isclose(units.parse_time(figures.format_time(value, digits=15)), value, rel_tol=1e-12)
    assert math.isclose(units.parse_factor(figures.format_factor(value, digits=15)), value, rel_tol=1e-12)


SHOWN = [
    (figures.format_bytes(3365929), "3.21 MiB"),  # 3.21 * 1048576 = 3365928.96
    (figures.format_bytes(512), "512 B"),
    (figures.format_bytes(1023), "1023 B"),
    (figures.format_bytes(1024), "1 KiB"),
    (figures.format_bytes(1048575), "1 MiB"),
    (figures.format_bytes(1048575, digits=9), "1023.99902 KiB"),  # 1048575 / 1024 = 1023.9990234375
    (figures.format_bytes(5 * 2**40), "5120 GiB"),
    (figures.format_percentage(0.562), "56.2%"),
    (figures.format_percentage(1), "100%"),
    (figures.format_percentage(0), "0%"),
    (figures.format_points(0.0028), "0.28 pp"),
    (figures.format_points(-0.0028), "-0.28 pp"),
    (figures.format_points(1 / 360), "0.278 pp"),
    (figures.format_factor(1.42), "1.42x"),
    (figures.format_factor(12345.6), "12346x"),
    (figures.format_time(0.00431), "4.31 ms"),
    (figures.format_time(0.00025), "250 us"),
    (figures.format_time(0.99999), "1 s"),
    (figures.format_time(600), "10 min"),
    (figures.format_number(-0.0), "0"),
]


@pytest.mark.parametrize(("shown", "expected"), SHOWN)
def test_a_figure_is_shown_in_the_unit_in_which_people_say_it(shown: str, expected: str) -> None:
    assert shown == expected


def test_a_figure_just_beyond_its_limit_looks_different_when_asked_for_more_digits() -> None:
    limit, broken = 3 * 2**20, 3 * 2**20 + 1
    assert figures.format_bytes(broken) == figures.format_bytes(limit)
    assert figures.format_bytes(broken, digits=9) != figures.format_bytes(limit, digits=9)
    assert figures.format_factor(1.2999999, digits=8) == "1.2999999x"


def test_units_limits_and_spelling_need_the_standard_library_only() -> None:
    program = (
        "import sys, pytest_modelopt.limits.catalogue, pytest_modelopt.limits.spelling\n"
        "sys.exit(' '.join({'torch', 'numpy', 'yaml', 'pydantic'} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
