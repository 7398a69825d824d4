"""Verdicts, from cases made by hand: exact at the limit, in words, and never green where nothing was measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pytest_modelopt.budgets.judge import judge
from pytest_modelopt.record.answers import Agreement, Slices
from pytest_modelopt.record.model import (
    Case,
    CaseError,
    Conditions,
    Coverage,
    LayerCoverage,
    Measurement,
    ProcessMemory,
    TimedPair,
    Timing,
    WorkerUse,
)
from pytest_modelopt.record.outcome import case_outcome
from pytest_modelopt.record.verdicts import Limit, Verdict

QUIET = Conditions(2, 0.1, 0.0, 0.0, 0.0, 0.0, WorkerUse(1, 0.0), WorkerUse(1, 0.0))


def measurement(recipe: str | None, *, size: int, weights: int, peak: int, score: float | None) -> Measurement:
    return Measurement(
        recipe, size, weights, peak, score, 1000, "f" * 64, process_memory=ProcessMemory((7000, 7000, 7000), "memray")
    )


def timing(speedups: list[float]) -> Timing:
    """Pairs of three launches in which four calls take the variant 4 ms and the original as many times that."""
    pairs = tuple(
        TimedPair(1 + 3 * n // len(speedups), False, round(4e6 * s), 4_000_000, 0, 0, 0, 0)
        for n, s in enumerate(speedups)
    )
    return Timing(pairs, 4, 4, seed=1, seconds=1.0, prepare_s=0.1, time_limit_s=20.0, threads=1, conditions=QUIET)


CASE = Case(
    id="budgets.yaml::m::r",
    model="m",
    recipe="r",
    metric="accuracy",
    higher_is_better=True,
    limits=(),
    batch_size=1,
    original=measurement(None, size=10_000, weights=9_000, peak=1_000, score=0.9),
    variant=measurement("r", size=4_000, weights=3_500, peak=500, score=0.89),
    coverage=Coverage((LayerCoverage("a", "Linear", 700, 700), LayerCoverage("b", "Conv2d", 300, 0)), ()),
    agreement=Agreement(1000, right_to_wrong=15, wrong_to_right=5, flips=30),
    slices=Slices(("0", "1"), True, (500, 500), (0.02, 0.0), (12, 3), (2, 3)),
    timing=timing([2.0] * 21),
)


def limit(name: str, value: float, text: str = "L", level: Any = "error") -> Limit:
    return Limit(name, value, text, level, "budgets.yaml", 7)


def verdict(name: str, value: float, case: Case = CASE, timed_limits: int = 1) -> Verdict:
    (only,) = judge(replace(case, limits=(limit(name, value),)), timed_limits=timed_limits).verdicts
    return only


# limit, figure by hand, the worst value that holds, the nearest that does not
AT_THE_LIMIT = [
    ("max_memory", 4000, 4000, 3999),
    ("min_memory_reduction", 0.6, 0.6, 0.6001),
    ("max_process_memory", 7000, 7000, 6999),
    ("max_size", 4000, 4000, 3999),
    ("min_size_reduction", 0.6, 0.6, 0.6001),
    ("max_accuracy_drop", 0.01, 0.01, 0.0099),
    ("min_accuracy", 0.89, 0.89, 0.8901),
    ("max_slice_drop", 0.02, 0.02, 0.0199),
    ("max_flips", 0.03, 0.03, 0.0299),
    ("min_coverage", 0.7, 0.7, 0.7001),
    ("max_latency", 0.001, 0.0011, 0.0009),
    ("min_speedup", 2.0, 1.99, 2.01),
]


@pytest.mark.parametrize(("name", "figure", "holds", "broken"), AT_THE_LIMIT)
def test_a_case_at_its_limit_holds_and_beyond_it_is_broken(
    name: str, figure: float, holds: float, broken: float
) -> None:
    kept, failed = verdict(name, holds), verdict(name, broken)
    assert (kept.outcome, failed.outcome) == ("pass", "fail")
    assert kept.measured == failed.measured == pytest.approx(figure, rel=1e-12)
    assert not kept.is_red
    assert failed.is_red


def test_a_drop_of_exactly_the_limit_holds_whatever_floats_make_of_it() -> None:
    """0.9 - 0.893 is 0.007000000000000006 in floats; 7 of 1000 examples are 0.7 points."""
    case = replace(
        CASE,
        variant=replace(CASE.variant, score=0.893),
        agreement=Agreement(1000, right_to_wrong=7, wrong_to_right=0, flips=7),
    )
    assert verdict("max_accuracy_drop", 0.007, case).outcome == "pass"
    assert verdict("max_flips", 0.007, case).outcome == "pass"


def test_the_sentence_gives_limit_figure_by_how_much_and_where() -> None:
    (told,) = judge(replace(CASE, limits=(limit("max_memory", 3_500, "3.5 kB"),)), timed_limits=0).verdicts
    assert told.sentence == (
        "m/r: max_memory 3.5 kB is broken: 3.91 KiB measured, 14.3% more than the limit. (budgets.yaml:7)"
    )


def test_a_broken_limit_never_looks_like_a_kept_one_by_rounding() -> None:
    case = replace(CASE, variant=replace(CASE.variant, size_bytes=6 * 2**20 + 1))
    told = verdict("max_size", 6 * 2**20, case)
    assert told.outcome == "fail"
    assert "6 MiB measured" not in told.sentence


def test_a_metric_that_is_better_when_lower_turns_the_direction_around() -> None:
    case = replace(CASE, metric="m:wer", higher_is_better=False, agreement=None)
    case = replace(case, original=replace(CASE.original, score=2.0), variant=replace(CASE.variant, score=2.5))
    assert verdict("max_accuracy_drop", 0.5, case).outcome == "pass"
    assert verdict("max_accuracy_drop", 0.4, case).outcome == "fail"
    assert verdict("min_accuracy", 2.4, case).outcome == "fail"
    assert verdict("min_accuracy", 2.6, case).outcome == "pass"


def one_launch(speedups: list[float], seconds: float) -> Case:
    return replace(
        CASE,
        timing=replace(
            timing(speedups), pairs=tuple(replace(p, launch=1) for p in timing(speedups).pairs), seconds=seconds
        ),
    )


WHY_INCONCLUSIVE = [
    (one_launch([2.0] * 50, 1.0), "which is not enough for this limit: the record holds 1 of the 3 launches"),
    (one_launch([2.0] * 50, 20.0), "this limit needs 3 launches of the workers, of which the time was enough for 1"),
    (replace(CASE, timing=replace(timing([2.0, 1.9] * 20), seconds=20.0)), "the limit lies inside that interval"),
    (
        replace(CASE, timing=timing([1.9] * 200 + [2.1] * 100)),
        "the launches of the workers contradict each other (1.9x, 1.9x, 2.1x), so more pairs would not help",
    ),
]


@pytest.mark.parametrize(("case", "why"), WHY_INCONCLUSIVE)
def test_an_undecided_limit_says_what_is_missing(case: Case, why: str) -> None:
    told = verdict("min_speedup", 1.95, case)
    assert told.outcome == "inconclusive"
    assert why in told.sentence


UNMEASURED = [
    ("max_memory", {"variant": replace(CASE.variant, weights_bytes=None, unmeasured={"memory": "no storage"})}),
    ("min_memory_reduction", {"original": replace(CASE.original, call_peak_bytes=None)}),
    ("max_process_memory", {"variant": replace(CASE.variant, process_memory=None)}),
    ("max_process_memory", {"variant": replace(CASE.variant, process_memory=ProcessMemory((), "memray"))}),
    ("max_size", {"variant": replace(CASE.variant, size_bytes=None)}),
    ("min_size_reduction", {"original": None}),
    ("max_accuracy_drop", {"variant": replace(CASE.variant, score=None), "agreement": None}),
    ("min_accuracy", {"variant": replace(CASE.variant, score=None)}),
    ("max_slice_drop", {"slices": None}),
    ("max_slice_drop", {"slices": Slices((), True, (), (), (), ())}),
    ("max_flips", {"agreement": None}),
    ("min_coverage", {"coverage": None}),
    ("min_speedup", {"timing": None}),
    ("max_latency", {"timing": replace(CASE.timing, pairs=())}),
]


@pytest.mark.parametrize(("name", "missing"), UNMEASURED, ids=[name for name, _ in UNMEASURED])
def test_what_was_not_measured_is_never_green(name: str, missing: dict[str, Any]) -> None:
    value = 1e12 if name.startswith("max") else 0.0  # the most generous of limits
    told = verdict(name, value, replace(CASE, **missing))
    assert told.outcome == "not measured"
    assert told.is_red
    assert "was not measured, which counts as broken" in told.sentence


def test_the_reason_why_a_figure_is_missing_stands_in_the_sentence() -> None:
    name, missing = UNMEASURED[0]
    assert "(r: no storage)" in verdict(name, 1e12, replace(CASE, **missing)).sentence


def test_a_limit_that_nobody_knows_stays_unjudged() -> None:
    """From the record of another version: it is told as not judged, which counts as broken."""
    known, unknown = limit("max_size", 4000), limit("max_heat", 4000)
    of = judge(replace(CASE, limits=(known, unknown)), timed_limits=0)
    assert [verdict.limit.name for verdict in of.verdicts] == ["max_size"]
    assert case_outcome(of, strict=False) == "fail"


def test_an_original_of_no_bytes_has_no_reduction() -> None:
    case = replace(CASE, original=replace(CASE.original, size_bytes=0))
    assert verdict("min_size_reduction", 0.0, case).outcome == "not measured"


def test_a_case_in_error_has_no_verdict_at_all() -> None:
    case = replace(CASE, limits=(limit("max_memory", 1e12),), error=CaseError("load", "no"))
    assert judge(case, timed_limits=0).verdicts == ()


def test_a_broken_limit_of_level_warn_is_broken_but_not_red() -> None:
    (told,) = judge(replace(CASE, limits=(limit("max_memory", 1, level="warn"),)), timed_limits=0).verdicts
    assert told.outcome == "fail"
    assert not told.is_red


@pytest.mark.parametrize(
    ("speedups", "value", "timed_limits", "outcome"),
    [
        ([2.0] * 6, 1.5, 1, "inconclusive"),  # E(6, 6) = 18.1 < 20
        ([2.0] * 7, 1.5, 1, "pass"),  # E(7, 7) = 31.9
        ([2.0] * 8, 3.0, 1, "inconclusive"),  # E(8, 8) = 56.8 < 100
        ([2.0] * 9, 3.0, 1, "fail"),  # E(9, 9) = 102.3
        ([2.0] * 11, 3.0, 4, "inconclusive"),  # E(11, 11) = 341 < 400: the risk is shared by four limits
        ([2.0] * 13, 3.0, 4, "fail"),
        ([2.0] * 15 + [1.0] * 5, 1.5, 1, "inconclusive"),  # E(20, 15) = 6.4
        ([2.0] * 11 + [1.0], 1.5, 1, "pass"),  # E(12, 11) = 52.4
    ],
)
def test_timed_limits_are_judged_by_the_evidence_of_their_pairs(
    speedups: list[float], value: float, timed_limits: int, outcome: str
) -> None:
    case = replace(CASE, timing=timing(speedups))
    assert verdict("min_speedup", value, case, timed_limits).outcome == outcome


def test_a_latency_limit_is_judged_by_the_variants_own_blocks() -> None:
    """Each block holds four calls in 4 ms: a latency of 1 ms."""
    assert verdict("max_latency", 0.0012).outcome == "pass"
    assert verdict("max_latency", 0.0008).outcome == "fail"
    assert "1 ms [1 ms, 1 ms] over 21 pairs" in verdict("max_latency", 0.0012).sentence
