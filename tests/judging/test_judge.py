"""Verdicts, from cases made by hand: exact at the limit, in words, and never green where nothing was measured."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_modelopt.judging.judge import judge
from pytest_modelopt.limits.latency import interval_of, latencies_s, speedup_of
from pytest_modelopt.reporting.cells import latency_cells, speedup_cells
from pytest_modelopt.results.answers import Agreement, Slices
from pytest_modelopt.results.base import Base
from pytest_modelopt.results.case import Case, CaseError
from pytest_modelopt.results.measurement import Coverage, LayerCoverage, ProcessMemory
from pytest_modelopt.results.outcome import case_outcome
from pytest_modelopt.results.timed_pairs import EarlierRuns, Timing
from pytest_modelopt.results.verdicts import Limit
from pytest_modelopt.statistics.samples import Samples
from pytest_modelopt.statistics.timing import ALPHA_PASS, alpha_fail, variant_latency
from tests.judging.judged import Judged, judged
from tests.reporting.records_by_hand import by_second, case, measurement, reference_changed, timing, variant_changed


def faster(*speedups: float, seconds: int = 10) -> Timing:
    """A variant that takes 1 ms; second after second the original takes as many times that."""
    return timing(20 * seconds, by_second(*(round(1e6 * each) for each in speedups)), 1_000_000)


PROCESS_MEMORY = ProcessMemory((7000, 7000, 7000), "memray")
CASE = case(
    "r",
    "m",
    reference=measurement(
        None, size=10_000, weights=9_000, peak=1_000, score=0.9, examples=1000, process_memory=PROCESS_MEMORY
    ),
    variant=measurement(
        "r", size=4_000, weights=3_500, peak=500, score=0.89, examples=1000, process_memory=PROCESS_MEMORY
    ),
    coverage=Coverage((LayerCoverage("a", "Linear", 700, 700), LayerCoverage("b", "Conv2d", 300, 0)), ()),
    agreement=Agreement(1000, right_to_wrong=15, wrong_to_right=5, flips=30),
    slices=Slices(("0", "1"), True, (500, 500), (0.02, 0.0), (12, 3), (2, 3)),
    timing=faster(2.0),
)


def limit(name: str, value: float, text: str = "L", level: Any = "error") -> Limit:
    return Limit(name, value, text, level, "budgets.yaml", 7)


def verdict(name: str, value: float, case: Case = CASE, timed_limits: int = 1) -> Judged:
    return judged(case, limit(name, value), timed_limits=timed_limits)


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
    ("min_speedup", 2.0, 1.9, 2.12),
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
        variant_changed(CASE, score=0.893),
        agreement=Agreement(1000, right_to_wrong=7, wrong_to_right=0, flips=7),
    )
    assert verdict("max_accuracy_drop", 0.007, case).outcome == "pass"
    assert verdict("max_flips", 0.007, case).outcome == "pass"


def test_the_sentence_gives_limit_figure_by_how_much_and_where() -> None:
    told = judged(CASE, limit("max_memory", 3_500, "3.5 kB"))
    assert told.sentence == (
        "m/r: max_memory 3.5 kB is broken: 3.91 KiB measured, 14.3% more than the limit. (budgets.yaml:7)"
    )


def test_a_broken_limit_never_looks_like_a_kept_one_by_rounding() -> None:
    case = variant_changed(CASE, size_bytes=6 * 2**20 + 1)
    told = verdict("max_size", 6 * 2**20, case)
    assert told.outcome == "fail"
    assert "6 MiB measured" not in told.sentence


def test_a_metric_that_is_better_when_lower_turns_the_direction_around() -> None:
    case = replace(CASE, metric="m:wer", higher_is_better=False, agreement=None)
    case = variant_changed(reference_changed(case, score=2.0), score=2.5)
    assert verdict("max_accuracy_drop", 0.5, case).outcome == "pass"
    assert verdict("max_accuracy_drop", 0.4, case).outcome == "fail"
    assert verdict("min_accuracy", 2.4, case).outcome == "fail"
    assert verdict("min_accuracy", 2.6, case).outcome == "pass"


FEW = replace(faster(2.0), pairs=faster(2.0).pairs[:3], seconds=0.15)
WHY_INCONCLUSIVE = [
    (FEW, "2x (fewer than 4 pairs give no interval) over 3 pairs in 0.15 s, and that is too little to decide anything"),
    (
        faster(2.0, 2.6, 2.0, 2.9),  # all at 2x at best
        "2x [1.68x, 2.52x] over 200 pairs in 10 s, and the limit lies inside that interval: estimates of one second "
        "spread by 13%, so no time would decide a limit that is so near; give a limit further from what is measured",
    ),
    (
        faster(2.1, seconds=1),
        "2.1x [1.81x, 2.58x] over 20 pairs in 1 s, and the limit lies inside that interval: ",
    ),
]


@pytest.mark.parametrize(("pairs", "why"), WHY_INCONCLUSIVE)
def test_an_undecided_limit_says_what_is_missing(pairs: Timing, why: str) -> None:
    told = verdict("min_speedup", 1.95, replace(CASE, timing=pairs))
    assert told.outcome == "inconclusive"
    assert why in told.sentence


def test_the_time_that_an_undecided_limit_is_said_to_take_is_enough() -> None:
    """Of pairs that go on as they are: with more of them the limit is decided, and with half of them it was not."""
    seconds, swings = 5, (2.0, 2.1)
    told = verdict("min_speedup", 1.88, replace(CASE, timing=faster(*swings, seconds=seconds)))
    assert told.outcome == "inconclusive"
    found = re.search(r"so about (\d+) s of timing would decide it \(`time_limit`\)", told.sentence)
    assert found is not None, told.sentence
    enough = int(found[1])
    assert enough > seconds
    assert verdict("min_speedup", 1.88, replace(CASE, timing=faster(*swings, seconds=enough))).outcome == "pass"


UNMEASURED = [
    ("max_memory", variant_changed(CASE, weights_bytes=None, unmeasured={"memory": "no storage"})),
    ("min_memory_reduction", reference_changed(CASE, call_peak_bytes=None)),
    ("max_process_memory", variant_changed(CASE, process_memory=None)),
    ("max_process_memory", variant_changed(CASE, process_memory=ProcessMemory((), "memray"))),
    ("max_size", variant_changed(CASE, size_bytes=None)),
    ("min_size_reduction", replace(CASE, reference=None)),
    ("max_accuracy_drop", replace(variant_changed(CASE, score=None), agreement=None)),
    ("min_accuracy", variant_changed(CASE, score=None)),
    ("max_slice_drop", replace(CASE, slices=None)),
    ("max_slice_drop", replace(CASE, slices=Slices((), True, (), (), (), ()))),
    ("max_flips", replace(CASE, agreement=None)),
    ("min_coverage", replace(CASE, coverage=None)),
    ("min_speedup", replace(CASE, timing=None)),
    ("max_latency", replace(CASE, timing=replace(faster(2.0), pairs=()))),
]


@pytest.mark.parametrize(("name", "of"), UNMEASURED, ids=[name for name, _ in UNMEASURED])
def test_what_was_not_measured_is_never_green(name: str, of: Case) -> None:
    value = 1e12 if name.startswith("max") else 0.0  # the most generous of limits
    told = verdict(name, value, of)
    assert told.outcome == "not measured"
    assert told.is_red
    assert "was not measured, which counts as broken" in told.sentence


def test_the_reason_why_a_figure_is_missing_stands_in_the_sentence() -> None:
    name, of = UNMEASURED[0]
    assert "(r: no storage)" in verdict(name, 1e12, of).sentence


def test_a_limit_that_nobody_knows_stays_unjudged() -> None:
    """From the record of another version: it is told as not judged, which counts as broken."""
    known, unknown = limit("max_size", 4000), limit("max_heat", 4000)
    of = judge(replace(CASE, limits=(known, unknown)), timed_limits=0)
    assert [verdict.limit.name for verdict in of.verdicts] == ["max_size"]
    assert case_outcome(of, strict=False) == "fail"


def test_an_original_of_no_bytes_has_no_reduction() -> None:
    case = reference_changed(CASE, size_bytes=0)
    assert verdict("min_size_reduction", 0.0, case).outcome == "not measured"


def test_a_case_in_error_has_no_verdict_at_all() -> None:
    case = replace(CASE, limits=(limit("max_memory", 1e12),), error=CaseError("load", "no"))
    assert judge(case, timed_limits=0).verdicts == ()


def test_a_broken_limit_of_level_warn_is_broken_but_not_red() -> None:
    (told,) = judge(replace(CASE, limits=(limit("max_memory", 1, level="warn"),)), timed_limits=0).verdicts
    assert told.outcome == "fail"
    assert not told.is_red


@pytest.mark.parametrize(
    ("speedups", "seconds", "value", "timed_limits", "outcome"),
    [
        # One second: an error of 5.59%, t of 6 degrees of freedom: 2.612 at 0.98, 3.707 at 0.995. From 1.728 to 2.461.
        ([2.0], 1, 1.72, 1, "pass"),
        ([2.0], 1, 1.74, 1, "inconclusive"),
        ([2.0], 1, 2.45, 1, "inconclusive"),
        ([2.0], 1, 2.47, 1, "fail"),
        # Ten of them: 1.871%, t of 15 degrees of freedom: 2.249, 2.947. From 1.918 to 2.113.
        ([2.0], 10, 1.917, 1, "pass"),
        ([2.0], 10, 1.92, 1, "inconclusive"),
        ([2.0], 10, 2.11, 1, "inconclusive"),
        ([2.0], 10, 2.12, 1, "fail"),
        # The risk of a false FAIL is shared by ten limits: t at 0.9995 is 4.073, so up to 2.158; that of a PASS is not.
        ([2.0], 10, 2.12, 10, "inconclusive"),
        ([2.0], 10, 2.16, 10, "fail"),
        ([2.0], 10, 1.917, 10, "pass"),
    ],
)
def test_timed_limits_are_judged_by_the_segments_of_their_pairs(
    speedups: list[float], seconds: int, value: float, timed_limits: int, outcome: str
) -> None:
    case = replace(CASE, timing=faster(*speedups, seconds=seconds))
    assert verdict("min_speedup", value, case, timed_limits).outcome == outcome


def test_more_pairs_of_the_same_seconds_are_no_more_evidence() -> None:
    """A state of the machine lasts for seconds, so ten times as many pairs in a second know no more of it."""
    few = faster(2.0, 2.05)
    many = replace(
        few,
        pairs=tuple(replace(pair, at_ms=pair.at_ms + 5 * n) for pair in few.pairs for n in range(10)),
    )
    assert speedup_cells([many], 1) == speedup_cells([few], 1)
    assert len(many.pairs) == 10 * len(few.pairs)


def test_slow_blocks_change_no_figure_while_a_fifth_is_fast() -> None:
    """What disturbs a machine makes programs slower: four of five blocks of the original took three times as long."""
    disturbed = timing(200, [2_000_000, *(4 * [6_000_000])], 1_000_000)
    assert latency_cells([disturbed]) == ["2 -> 1 ms"]
    assert verdict("min_speedup", 1.8, replace(CASE, timing=disturbed)).outcome == "pass"
    assert verdict("min_speedup", 2.3, replace(CASE, timing=disturbed)).outcome == "fail"


def test_a_latency_limit_is_judged_by_the_variants_own_blocks() -> None:
    """An error of 2.993%, since a second spreads by 8% before anything is known: 2.249 above, 2.947 below."""
    assert verdict("max_latency", 0.00108).outcome == "pass"
    assert verdict("max_latency", 0.00106).outcome == "inconclusive"
    assert verdict("max_latency", 0.00092).outcome == "inconclusive"
    assert verdict("max_latency", 0.00091).outcome == "fail"
    assert "1 ms [916 us, 1.07 ms] over 200 pairs" in verdict("max_latency", 0.0012).sentence


_FIGURES = st.lists(st.integers(100_000, 10_000_000), min_size=1, max_size=60)


@given(
    original=_FIGURES,
    variant=_FIGURES,
    pairs=st.integers(1, 90),
    share=st.floats(0.2, 5),
    name=st.sampled_from(["min_speedup", "max_latency", "max_slowdown"]),
    timed_limits=st.integers(1, 30),
)
def test_a_verdict_never_contradicts_the_interval_that_is_told_with_it(
    original: list[int], variant: list[int], pairs: int, share: float, name: str, timed_limits: int
) -> None:
    """Inside of it a limit is undecided, on its good side kept, and on the other one broken."""
    base = Base("1a2b", "compared") if name == "max_slowdown" else None
    case = replace(CASE, timing=timing(pairs, original, variant), base=base)
    assert case.timing is not None
    figure, (low, high) = _figure_and_interval(case.timing, name, timed_limits)
    value = figure * share if name != "max_slowdown" else (1 + figure) * share - 1
    told = verdict(name, value, case, timed_limits)
    assert low <= figure <= high
    assert told.measured == pytest.approx(figure, rel=1e-9, abs=1e-9)
    is_kept, is_broken = (value <= low, value > high) if name == "min_speedup" else (value >= high, value < low)
    if min(abs(value - low), abs(value - high)) > 1e-9 * abs(value):
        assert told.outcome == ("pass" if is_kept else "fail" if is_broken else "inconclusive")
    assert ("(fewer than 4 pairs give no interval)" in told.sentence) == (pairs < 4)


def _figure_and_interval(of: Timing, name: str, timed_limits: int) -> tuple[float, tuple[float, float]]:
    """As tables tell them."""
    if name == "max_latency":
        estimate = variant_latency(Samples.of(of.pairs))
        return latencies_s(of)[1], estimate.interval(alpha_fail(timed_limits), ALPHA_PASS)
    low, high = interval_of(speedup_of(of), timed_limits)
    if name == "min_speedup":
        return speedup_of(of).figure, (low, high)
    return 1 / speedup_of(of).figure - 1, (1 / high - 1, 1 / low - 1 if low > 0 else math.inf)


def beside_a_neighbour(canary_ns: int, at_best_ns: int | None = 20_000) -> Case:
    """2x in each pair, and a canary that takes 20 us where the machine is left alone."""
    of = faster(2.0)
    pairs = tuple(replace(pair, canary_ns=canary_ns) for pair in of.pairs)
    conditions = replace(of.conditions, canary_at_best_ns=at_best_ns)
    return replace(CASE, timing=replace(of, pairs=pairs, conditions=conditions))


def test_a_machine_far_from_its_best_state_decides_less_and_that_is_said() -> None:
    """20% more than at best is 0.132 beyond the tolerance; a ratio may follow 0.8 of that, so the error is 10.7%."""
    assert verdict("min_speedup", 1.8, beside_a_neighbour(20_000)).outcome == "pass"
    assert verdict("min_speedup", 1.8, beside_a_neighbour(21_000)).outcome == "pass"  # within the tolerance
    told = verdict("min_speedup", 1.8, beside_a_neighbour(24_000))
    assert told.outcome == "inconclusive"
    assert "a fixed piece of work took 20% longer than at best" in told.sentence
    assert "run it again when the machine is calm" in told.sentence
    assert verdict("min_speedup", 1.5, beside_a_neighbour(24_000)).outcome == "pass"


def test_large_models_are_decided_where_the_limit_is_further_away() -> None:
    """3% stay the same for a whole comparison, whatever its pairs show."""
    of = faster(2.0)
    large = replace(CASE, timing=replace(of, conditions=replace(of.conditions, are_large=True)))
    assert verdict("min_speedup", 1.88, replace(CASE, timing=of)).outcome == "pass"
    assert verdict("min_speedup", 1.88, large).outcome == "inconclusive"
    assert verdict("min_speedup", 1.75, large).outcome == "pass"


def test_earlier_runs_that_differ_decide_less_and_that_is_said() -> None:
    """Nine squared deviations of 20%, beside a guess that counts for two runs: 18% between runs."""
    of = replace(faster(2.0), earlier=EarlierRuns(10, 9, speedup=9 * 0.04, latency=0.0))
    told = verdict("min_speedup", 1.8, replace(CASE, timing=of))
    assert told.outcome == "inconclusive"
    assert "10 earlier runs of the same programs on this machine differ by 18% (standard deviation)" in told.sentence
    assert "give a limit further from what is measured" in told.sentence
    assert verdict("min_speedup", 1.0, replace(CASE, timing=of)).outcome == "pass"
    assert verdict("max_latency", 1.4e-3, replace(CASE, timing=of)).outcome == "pass", "its latency did not differ"


@pytest.mark.parametrize(("canary_ns", "at_best_ns"), [(24_000, None), (24_000, 0), (24_000, -5), (0, 20_000)])
def test_without_a_canary_or_its_best_nothing_is_known_of_the_state(canary_ns: int, at_best_ns: int | None) -> None:
    assert verdict("min_speedup", 1.8, beside_a_neighbour(canary_ns, at_best_ns)).outcome == "pass"
