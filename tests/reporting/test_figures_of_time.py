"""One speedup and one latency of a comparison, whoever tells them."""

from __future__ import annotations

import re

import pytest

from pytest_modelopt.judging.judge import judge
from pytest_modelopt.limits.latency import latencies_s
from pytest_modelopt.plugin.comparison import Comparison
from pytest_modelopt.reporting.files.metrics import render
from pytest_modelopt.reporting.junit import properties
from pytest_modelopt.results.timed_pairs import Timing
from tests.reporting.drawn_tables import details, table
from tests.reporting.records_by_hand import by_second, case, limit, record, timing

TIMINGS = [
    timing(),
    timing(3, 4_000_000, 1_234_567),
    timing(200, by_second(4_000_000, 4_700_000, 5_100_000), by_second(3_000_000, 2_900_000)),
    timing(97, [7_654_321, 8_000_000, 30_000_000], [1_000_003, 999_983, 1_200_000, 5_000_000, 1_100_000]),
]


@pytest.mark.parametrize("of", TIMINGS)
def test_the_two_latencies_have_the_speedup_as_their_ratio_wherever_they_are_told(of: Timing) -> None:
    limits = (limit("min_speedup", 0.01, "0.01x"), limit("max_latency", 1e-9, "1 ns"))
    measured = judge(case(timing=of, limits=limits), timed_limits=2)
    original_s, variant_s = latencies_s(of)
    exactly = pytest.approx(original_s / variant_s, rel=1e-12)
    comparison = Comparison(measured)
    assert comparison.speedup == exactly
    assert comparison.latency_s == variant_s
    told = dict(properties(measured))
    assert told["modelopt.speedup"] == exactly
    assert told["modelopt.latency_s"] == pytest.approx(variant_s, rel=1e-12)
    assert [verdict.measured for verdict in measured.verdicts] == [exactly, pytest.approx(variant_s, rel=1e-12)]
    text = render(record(measured))
    for name, figure in (("speedup_ratio", original_s / variant_s), ("latency_seconds", variant_s)):
        (value,) = re.findall(rf'^modelopt_{name}{{.*recipe="int8-dynamic"}} (\S+)$', text, re.MULTILINE)
        assert float(value) == pytest.approx(figure, rel=1e-9)
    shown = details(record(measured))
    one, other = _milliseconds(shown["latency"][0])
    assert one == pytest.approx(1000 * original_s, rel=0.005)
    assert float(shown["speedup"][0].split("x")[0]) == pytest.approx(one / other, rel=0.01)
    (told,) = re.findall(r"^(?:\? |✗ )?([\d.]+) of ", table(record(measured))["speedup"][1])
    assert float(told) == pytest.approx(one / other, rel=0.01)


def _milliseconds(text: str) -> tuple[float, float]:
    """Of '1.80 -> 0.88 ms'."""
    before, _, after, unit = text.split()
    size = {"ms": 1, "us": 1000}[unit]
    return float(before) / size, float(after) / size


def test_a_block_that_was_disturbed_is_in_no_figure() -> None:
    """The fastest fifth of each side: 4 ms and 2 ms, however slow the other four fifths were."""
    calm = timing(200, 4_000_000, 2_000_000)
    disturbed = timing(200, [4_000_000, *(4 * [9_000_000])], [*(4 * [5_000_000]), 2_000_000])
    assert latencies_s(disturbed) == pytest.approx(latencies_s(calm), rel=1e-12)
