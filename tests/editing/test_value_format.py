"""New values in their author's words: the same unit and blanks, never on the wrong side of what they stand for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_modelopt.editing.value_format import reworded
from pytest_modelopt.limits.catalogue import LIMITS, parse_value

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("name", "text", "value", "up", "expected"),
    [
        ("max_memory", "3 MiB", 2.5 * MIB, True, "2.5 MiB"),
        ("max_memory", "3 MiB", 2.5 * MIB + 1, True, "2.51 MiB"),
        ("max_memory", "3MiB", 2.5 * MIB, True, "2.5MiB"),
        ("max_memory", "3  MiB", 2.5 * MIB, True, "2.5  MiB"),
        ("max_memory", "500 kB", 123_456, True, "124 kB"),
        ("max_memory", "2 MB", 1_234_567, True, "1.24 MB"),
        ("max_memory", "2000 KiB", 1234.5 * 1024, True, "1235 KiB"),
        ("max_size", "1048576", 943_718.4, True, "943719"),
        ("max_size", "512 B", 99.5, True, "100 B"),
        ("max_size", "1 GiB", 0.0, True, "0 GiB"),
        ("min_size_reduction", "60%", 0.6329, False, "63.2%"),
        ("min_size_reduction", "60 %", 0.6329, False, "63.2 %"),
        ("min_size_reduction", "0.6", 0.6329, False, "0.632"),
        ("min_size_reduction", ".6", 0.6329, False, "0.632"),
        ("max_flips", "2%", 1 / 450, True, "0.223%"),
        ("max_accuracy_drop", "1 pp", 1 / 450, True, "0.223 pp"),
        ("max_accuracy_drop", "0.01", 1 / 450, True, "0.00223"),
        ("max_accuracy_drop", "1 pp", 0.0, True, "0 pp"),
        ("min_speedup", "1.2x", 1.239, False, "1.23x"),
        ("min_speedup", "1.2 x", 1.239, False, "1.23 x"),
        ("min_speedup", "1.2", 1.239, False, "1.23"),
        ("min_speedup", "+30%", 1.2345, False, "+23.4%"),
        ("min_speedup", "+30%", 0.876, False, "-12.4%"),
        ("min_speedup", "-10%", 1.05, False, "+5%"),
        ("min_speedup", "-10%", 1.0, False, "+0%"),
        ("max_latency", "5 ms", 0.0034561, True, "3.46 ms"),
        ("max_latency", "12 ms", 0.009996, True, "10 ms"),
        ("max_latency", "2 min", 61.0, True, "1.02 min"),
        ("max_latency", "900 us", 0.000123, True, "123 us"),
        ("max_latency", "0.02 s", 0.01234, True, "0.0124 s"),
        ("min_accuracy", "97%", 0.98669, False, "98.66%"),
        ("min_accuracy", "0.97", 0.98669, False, "0.9866"),
        ("min_accuracy", "23.5", 21.239, False, "21.23"),
        ("min_accuracy", "-3.5", -3.7121, False, "-3.713"),
        ("min_accuracy", "-3.5", -3.7129, True, "-3.712"),
        ("min_accuracy", "0.5", 0.0123449, True, "0.01235"),
        ("max_flips", "0.95", 1.0, True, "1.0"),
        ("max_flips", "95%", 1.0, True, "100%"),
        ("min_accuracy", "0.95", 1.0, False, "1.0"),
    ],
)
def test_by_hand(name: str, text: str, value: float, up: bool, expected: str) -> None:
    assert reworded(name, text, value, up=up) == expected


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="'soon' is not a number with a unit"):
        reworded("max_latency", "soon", 1.0, up=True)


@given(
    st.sampled_from(
        [
            ("max_memory", "6 GiB"),
            ("max_memory", "6 B"),
            ("max_process_memory", "6 kB"),
            ("min_memory_reduction", "1%"),
            ("max_flips", "0.5"),
            ("min_speedup", "2x"),
            ("min_speedup", "+5%"),
            ("max_latency", "3 us"),
            ("max_latency", "3 min"),
            ("max_accuracy_drop", "1 pp"),
            ("min_accuracy", "0.5"),
        ]
    ),
    st.floats(0.001, 0.999),
    st.booleans(),
)
def test_it_is_read_as_no_less_or_no_more_and_near(stated: tuple[str, str], share: float, up: bool) -> None:
    """Within 1%, whatever the unit: a byte is the finest that bytes have."""
    name, text = stated
    value = float(round(share * 10**6)) if LIMITS[name].unit == "bytes" else share
    raw = reworded(name, text, value, up=up)
    bare = raw if not text.replace(".", "").isdecimal() else float(raw) if "." in raw else int(raw)
    read = parse_value(name, bare)
    assert read >= value - 1e-12 if up else read <= value + 1e-12
    finest = 1.0 if LIMITS[name].unit == "bytes" else 0.0
    amount = abs(value - 1) if text == "+5%" else value
    assert abs(read - value) <= 0.0101 * amount + finest
