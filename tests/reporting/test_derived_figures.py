"""Figures that are made of others: one value wherever they are told, and a reason where there is none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_modelopt.judging.judge import judge
from pytest_modelopt.plugin.comparison import Comparison, NotMeasured
from pytest_modelopt.reporting.junit import properties
from pytest_modelopt.reporting.messages.verdicts import format_verdict
from pytest_modelopt.results.answers import Agreement
from pytest_modelopt.results.case import Case, CaseError
from tests.reporting.drawn_tables import details, table
from tests.reporting.records_by_hand import case, limit, measurement, record, timing


def scored(before: float, after: float, agreement: Agreement | None = None) -> Case:
    return replace(
        case(reference=replace(measurement(None), score=before), agreement=agreement),
        variant=replace(measurement("int8-dynamic"), score=after),
        limits=(limit("max_accuracy_drop", 0.01, "1 pp"),),
    )


def test_a_drop_is_what_was_counted_in_the_table_the_sentence_and_the_properties() -> None:
    """63 of 400 are 15.75 pp; the difference of the scores is 15.749999999999997 pp, which would be told as 15.7."""
    lost = scored(381 / 400, 318 / 400, Agreement(400, 63, 0, 63))
    assert 381 / 400 - 318 / 400 != 63 / 400
    judged = judge(lost, timed_limits=0)
    assert "15.8 pp measured" in format_verdict(judged, judged.verdicts[0])
    assert table(record(judged))["drop"] == ("", "✗ 15.8 of 1 pp")
    assert details(record(judged))["drop"][0].startswith("15.8 pp")
    assert dict(properties(judged))["modelopt.drop"] == Comparison(judged).accuracy_drop == 63 / 400


def test_scores_that_differ_by_rounding_have_no_drop_anywhere() -> None:
    same = scored(0.1 + 0.2, 0.3)
    assert dict(properties(same))["modelopt.drop"] == Comparison(same).accuracy_drop == 0.0


@pytest.mark.parametrize(
    ("without", "why"),
    [
        (replace(case(), variant=replace(measurement("x"), unmeasured={"timing": "others timed"})), "others timed"),
        (case(error=CaseError("timing", "the worker died")), "timing: the worker died"),
        (case(), "the run took no pairs"),
    ],
)
def test_a_speedup_without_timing_says_why_there_is_none(without: Case, why: str) -> None:
    for figure in ("speedup", "speedup_interval", "latency_s", "original_latency_s", "timing"):
        with pytest.raises(NotMeasured, match=f"has no speedup and no latency: {why}"):
            getattr(Comparison(without), figure)


def test_a_side_and_a_coverage_that_are_missing_are_said_with_the_reason() -> None:
    failed = Comparison(
        replace(case(error=CaseError("load", "no weights")), reference=None, variant=None, coverage=None)
    )
    for figure in ("original", "variant", "coverage"):
        with pytest.raises(NotMeasured, match=r"digits-vit/int8-dynamic has no .*: load: no weights"):
            getattr(failed, figure)


def test_the_latencies_of_both_sides_and_the_interval_belong_to_the_speedup() -> None:
    """4 ms and 5 ms in each pair."""
    timed = Comparison(case(timing=timing(200)))
    assert timed.original_latency_s / timed.latency_s == pytest.approx(timed.speedup)
    low, high = timed.speedup_interval
    assert timed.speedup == pytest.approx(0.8)
    assert low < timed.speedup < high


def test_reductions_are_one_number_in_the_limits_the_properties_and_the_fixtures() -> None:
    """1 - 2/3 is no float that 1/3 would be: what is counted in bytes is divided exactly, once."""
    third = replace(
        case(reference=replace(measurement(None), size_bytes=3, weights_bytes=2, call_peak_bytes=1)),
        variant=replace(measurement("int8-dynamic"), size_bytes=2, weights_bytes=1, call_peak_bytes=1),
        limits=(limit("min_size_reduction", 0.3, "30%"), limit("min_memory_reduction", 0.3, "30%")),
    )
    assert 1 - 2 / 3 != 1 / 3
    judged = judge(third, timed_limits=0)
    found, view = dict(properties(judged)), Comparison(judged)
    figures = [verdict.measured for verdict in judged.verdicts]
    properties_ = [found["modelopt.size_reduction"], found["modelopt.memory_reduction"]]
    assert [*figures, *properties_, view.size_reduction, view.memory_reduction] == [1 / 3] * 6
