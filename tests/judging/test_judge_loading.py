"""Verdicts on the tail of the latency and on loading, by figures that are made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_modelopt.judging.judge import judge
from pytest_modelopt.limits.catalogue import LIMITS, is_open, parse_value
from pytest_modelopt.reporting.messages.verdicts import format_verdict
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.consistency.contradictions import disagreement_of
from pytest_modelopt.results.json import RecordError, case_from_data, case_to_data
from pytest_modelopt.results.timed_pairs import Timing
from pytest_modelopt.results.verdicts import Verdict
from pytest_modelopt.statistics.samples import Samples
from tests.reporting.drawn_tables import details
from tests.reporting.records_by_hand import case, limit, record, timing

MS = 1_000_000


def loaded(original_ns: int, variant_ns: int, pairs: int = 8) -> Timing:
    """Processes that took two seconds for each pair, one call each."""
    made = timing(pairs, original_ns, variant_ns)
    of = tuple(
        replace(
            pair,
            launch=index + 1,
            at_ms=2000 * index,
            reference_calls=1,
            variant_calls=1,
            reference_block_ns=original_ns,
            variant_block_ns=variant_ns,
        )
        for index, pair in enumerate(made.pairs)
    )
    return replace(made, pairs=of, seconds=2.0 * pairs)


def verdict_of(of: Case, name: str, text: str) -> tuple[Verdict, str]:
    stated = limit(name, parse_value(name, text), text)
    (verdict,) = judge(replace(of, limits=(stated,)), timed_limits=1).verdicts
    return verdict, format_verdict(of, verdict)


LOADED = replace(case(), loading=loaded(300 * MS, 100 * MS))
CALLS = (*(9 * (1 * MS,)), 3 * MS)
TAILED = case(timing=replace(timing(100, MS, MS), variant_calls_ns=100 * (CALLS,)))


@pytest.mark.parametrize(
    ("name", "text", "outcome", "said"),
    [
        ("max_load_time", "200 ms", "pass", "100 ms [81.4 ms, 120 ms] over 8 pairs of fresh processes"),
        ("max_load_time", "50 ms", "fail", "100 ms [81.4 ms, 120 ms] over 8 pairs of fresh processes, 100% more than"),
        ("max_load_time", "105 ms", "inconclusive", "the limit lies inside that interval: pairs spread by 5.4%"),
        ("min_load_speedup", "2x", "pass", "3x ["),
        ("min_load_speedup", "4x", "fail", "3x ["),
        ("min_load_speedup", "3x", "inconclusive", "over 8 pairs of fresh processes in 16 s"),
    ],
)
def test_loading_is_judged_by_its_pairs(name: str, text: str, outcome: str, said: str) -> None:
    verdict, told = verdict_of(LOADED, name, text)
    assert verdict.outcome == outcome
    assert verdict.measured == pytest.approx(0.1 if name == "max_load_time" else 3)
    assert said.partition(" [")[0] in told
    assert "pairs of fresh processes" in told


def test_what_was_not_loaded_is_not_measured_and_says_why() -> None:
    """Whatever the blocks of warm calls say."""
    without = case(timing=timing(100, 3 * MS, MS))
    assert without.variant is not None
    lacks = replace(without, variant=replace(without.variant, unmeasured={"loading": "it cannot be saved"}))
    verdict, told = verdict_of(lacks, "max_load_time", "60 s")
    assert (verdict.outcome, verdict.is_red) == ("not measured", True)
    assert "it cannot be saved" in told


@pytest.mark.parametrize(
    ("text", "outcome"), [("4 ms", "pass"), ("1.5 ms", "fail"), ("3.05 ms", "inconclusive"), ("2.9 ms", "inconclusive")]
)
def test_the_tail_is_judged_by_single_calls(text: str, outcome: str) -> None:
    """One call of ten takes 3 ms, and 95% of all are done by then; the mean of a block is 1 ms."""
    verdict, told = verdict_of(TAILED, "max_p95_latency", text)
    assert verdict.outcome == outcome
    assert verdict.measured == pytest.approx(3e-3)
    assert "over 100 pairs with 1000 single calls" in told


def test_without_single_calls_the_tail_is_not_measured() -> None:
    verdict, told = verdict_of(case(timing=timing(100, MS, MS)), "max_p95_latency", "1 s")
    assert verdict.outcome == "not measured"
    assert "single calls were not timed, since no limit of that run asked for them" in told


def test_few_calls_decide_nothing() -> None:
    few = case(timing=replace(timing(4, MS, MS), variant_calls_ns=4 * (CALLS,)))
    verdict, told = verdict_of(few, "max_p95_latency", "1 s")
    assert verdict.outcome == "inconclusive"
    assert "too few calls give no interval" in told


def test_blocks_of_calls_decide_the_tail_and_nothing_about_loading() -> None:
    pairs = TAILED.timing.pairs if TAILED.timing else ()
    few, many = Samples.of(pairs[:4], None, 4 * [CALLS]), Samples.of(pairs, None, 100 * [CALLS])
    tail, load = limit("max_p95_latency", 4e-3, "4 ms"), limit("max_load_time", 1.0, "1 s")
    assert is_open([tail, load], few, 2)
    assert not is_open([tail, load], many, 2)
    assert not is_open([load], few, 1)
    assert all(LIMITS[each.name].is_timed for each in (tail, load)), "they share the risk of a false FAIL"


def test_calls_of_several_examples_are_told_as_examples_a_second() -> None:
    """32 in the 5 ms of the variant are 6400; of one example the latency says it."""
    many = replace(case(timing=timing(100, 4 * MS, 5 * MS)), batch_size=32)
    assert details(record(many))["latency"] == ("4 -> 5 ms (6400/s)",)
    assert details(record(replace(many, batch_size=1)))["latency"] == ("4 -> 5 ms",)


def test_they_are_in_the_record_and_must_agree() -> None:
    both = replace(TAILED, loading=LOADED.loading)
    assert disagreement_of(both) == ""
    assert case_from_data(case_to_data(both)) == both
    assert both.timing is not None
    assert both.loading is not None
    fast = replace(both, timing=replace(both.timing, variant_calls_ns=100 * ((1000,),)))
    assert "timing.variant_calls_ns takes 1000 on average, and no pair's call less than 1000000" in disagreement_of(
        fast
    )
    few = replace(both, timing=replace(both.timing, variant_calls_ns=(CALLS,)))
    with pytest.raises(RecordError, match=r"timing\.variant_calls_ns: must have an entry for each pair, or none"):
        case_from_data(case_to_data(few))
    none = replace(both, timing=replace(both.timing, variant_calls_ns=100 * ((),)))
    with pytest.raises(RecordError, match=r"timing\.variant_calls_ns: must hold whole numbers of at least 1"):
        case_from_data(case_to_data(none))
    twice = replace(both.loading.pairs[0], variant_calls=2, variant_block_ns=200 * MS)
    again = replace(both, loading=replace(both.loading, pairs=(twice, *both.loading.pairs[1:])))
    assert "loading.pairs holds 2 calls at 0: a process gives its first answer once" in disagreement_of(again)
    sooner = replace(both, loading=loaded(300 * MS, MS // 4))
    assert "one call of the variant takes 1000000 ns at least, and loading with one call takes 250000 at most" in (
        disagreement_of(sooner)
    )
    quick = replace(both.loading.pairs[0], variant_ns=1)
    edited = replace(both, loading=replace(both.loading, pairs=(quick, *both.loading.pairs[1:])))
    assert "loading.pairs.variant_ns[0] is 1, but 1 calls took 100000000 ns" in disagreement_of(edited)
