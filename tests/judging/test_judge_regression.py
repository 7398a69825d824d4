"""Verdicts against a base, from cases made by hand: head is the variant, the base's measurement is the original."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pytest_modelopt.judging.judge import judge
from pytest_modelopt.limits.catalogue import is_open
from pytest_modelopt.results.answers import Agreement, Interval, Repeat
from pytest_modelopt.results.base import Base
from pytest_modelopt.results.case import Case, CaseError
from pytest_modelopt.results.measurement import ProcessMemory
from pytest_modelopt.results.observations import Observations
from pytest_modelopt.results.outcome import case_outcome, is_red
from pytest_modelopt.statistics.samples import Samples
from tests.judging.judged import Judged
from tests.judging.regressions_by_hand import COMMIT, NAMES, against, base, head, limit, slower, told, verdict
from tests.reporting.records_by_hand import MIB, reference_changed, timing, variant_changed

# --- size and memory -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "value", "outcome", "growth"),
    [
        (1_020_000, 0.02, "pass", 0.02),  # at the limit, which floats do not hit: 1.02 - 1 > 0.02
        (1_020_001, 0.02, "fail", 0.020001),
        (1_000_001, 0.0, "fail", 1e-6),
        (1_000_000, 0.0, "pass", 0.0),
        (500_000, 0.0, "pass", -0.5),
        (2_500_000, 1.5, "pass", 1.5),
        (2_500_001, 1.5, "fail", 1.500001),
    ],
)
def test_growth_is_compared_exactly(size: int, value: float, outcome: str, growth: float) -> None:
    done = verdict(head(size_bytes=size), "max_size_growth", value)
    assert done.outcome == outcome
    assert done.measured == pytest.approx(growth, abs=1e-12)
    grown = head(weights_bytes=int(1.5 * size) - 500_000)
    assert verdict(grown, "max_memory_growth", value).outcome == outcome


def test_the_sentence_of_a_growth_names_the_base_both_figures_and_by_how_much() -> None:
    of = variant_changed(base(size_bytes=MIB), size_bytes=MIB * 11 // 10)
    assert told(of, "max_size_growth", 0.02, "2%") == (
        f"is broken: 10% more than at {COMMIT} (1.1 MiB, was 1 MiB), 8 percentage points above the limit"
    )
    assert told(of, "max_size_growth", 0.1, "10%") == f"holds: 10% more than at {COMMIT} (1.1 MiB, was 1 MiB)"
    assert told(head(size_bytes=750_000), "max_size_growth", 0.0) == (
        f"holds: 25% less than at {COMMIT} (732 KiB, was 977 KiB)"
    )
    assert told(against(), "max_size_growth", 0.0) == f"holds: the same as at {COMMIT} (977 KiB)"


def test_a_growth_that_breaks_its_limit_by_a_hair_does_not_look_like_none() -> None:
    assert told(head(size_bytes=1_020_001), "max_size_growth", 0.02, "2%") == (
        f"is broken: 2.0001% more than at {COMMIT} (996 KiB, was 977 KiB), 0.0001 percentage points above the limit"
    )
    assert told(head(size_bytes=1_030_000), "max_size_growth", 0.02, "2%").endswith(
        ", 1 percentage point above the limit"
    )
    assert "(976.563 KiB, was 976.562 KiB)" in told(head(size_bytes=1_000_001), "max_size_growth", 0.0)


@pytest.mark.parametrize(("now", "outcome"), [(1, "fail"), (0, "pass")])
def test_from_nothing_every_growth_is_too_much(now: int, outcome: str) -> None:
    of = variant_changed(base(size_bytes=0), size_bytes=now)
    done = verdict(of, "max_size_growth", 9.0)
    assert (done.outcome, done.measured) == (outcome, None if now else 0.0)
    assert ("1 B measured, and nothing at 1a2b3c4d5e6f" in done.sentence) == (outcome == "fail")


def in_processes(before: tuple[int, ...], after: tuple[int, ...], meter: Any = "memray") -> Case:
    of = base(process_memory=ProcessMemory(before, "memray"), runtime="ONNX Runtime")
    return variant_changed(of, process_memory=ProcessMemory(after, meter), runtime="ONNX Runtime")


@pytest.mark.parametrize(
    ("value", "outcome"),
    [(0.32, "pass"), (0.3199, "inconclusive"), (0.0801, "inconclusive"), (0.08, "inconclusive"), (0.0799, "fail")],
)
def test_a_limit_within_the_spread_of_a_process_meter_is_inconclusive(value: float, outcome: str) -> None:
    """1,080 to 1,320 over 1,000: from 8% to 32% more, 20% in the middle."""
    of = in_processes((1000, 1000, 1000), (1320, 1080, 1200))
    done = verdict(of, "max_memory_growth", value)
    assert (done.outcome, done.measured) == (outcome, 0.2)
    assert " by memray in 3 fresh processes" in done.sentence
    if outcome == "inconclusive":
        assert "within the measured spread, 8% to 32%; give a limit" in done.sentence


def test_the_spread_of_the_base_counts_too() -> None:
    of = in_processes((900, 1000, 1200), (1200, 1200, 1200))
    assert "spread, 0% to 33.3333%;" in verdict(of, "max_memory_growth", 0.2).sentence
    assert (
        "spread, 0% to without bound;"
        in verdict(in_processes((0, 1000, 1200), (1200, 1200, 1200)), "max_memory_growth", 0.2).sentence
    )


def test_two_meters_are_not_compared() -> None:
    done = verdict(in_processes((1000,), (1000,), "VmHWM"), "max_memory_growth", 0.5)
    assert done.outcome == "inconclusive"
    assert f"it was measured by memray at {COMMIT} and by VmHWM here" in done.sentence
    plain = variant_changed(reference_changed(in_processes((1000,), (1000,), "VmHWM"), runtime=None), runtime=None)
    assert verdict(plain, "max_memory_growth", 0.0).outcome == "pass"  # torch's allocator then counts for both


# --- accuracy --------------------------------------------------------------------------------------------------------


def lost(right_to_wrong: int, wrong_to_right: int = 0, **changes: Any) -> Case:
    made = head(score=0.9 - (right_to_wrong - wrong_to_right) / 1000)
    return replace(made, agreement=Agreement(1000, right_to_wrong, wrong_to_right, 20), **changes)


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize(("examples", "outcome"), [(7, "pass"), (8, "fail")])
def test_a_loss_of_exactly_the_limit_holds_whatever_floats_make_of_it(
    examples: int, outcome: str, counted: bool
) -> None:
    """0.9 - 0.893 is 0.007000000000000006 in floats. A saved record knows scores only."""
    of = lost(examples) if counted else replace(lost(examples), agreement=None)
    done = verdict(of, "max_accuracy_loss", 0.007)
    assert (done.outcome, done.measured) == (outcome, examples / 1000)


def test_a_score_that_is_no_share_of_the_examples_is_compared_as_it_is() -> None:
    of = replace(head(score=0.8904), agreement=None)  # 890.4 of 1,000
    assert verdict(of, "max_accuracy_loss", 0.0097).outcome == "pass"
    assert verdict(of, "max_accuracy_loss", 0.0095).outcome == "fail"


def test_the_sentence_of_a_loss_names_the_base_and_both_scores() -> None:
    assert told(lost(17, 10), "max_accuracy_loss", 0.005, "0.5 pp") == (
        f"is broken: 0.7 pp worse than at {COMMIT} (89.3%, was 90%), 0.2 pp beyond the limit"
    )
    assert told(lost(0, 3), "max_accuracy_loss", 0.005) == f"holds: 0.3 pp better than at {COMMIT} (90.3%, was 90%)"
    assert told(lost(2, 2), "max_accuracy_loss", 0.0) == f"holds: neither better nor worse than at {COMMIT} (90%)"


def test_a_metric_in_its_own_unit_keeps_it_and_its_direction() -> None:
    of = replace(base(score=3.0), metric="shop:error", higher_is_better=False, agreement=None)
    of = variant_changed(of, score=3.5)
    assert told(of, "max_accuracy_loss", 0.25) == (
        f"is broken: 0.5 worse than at {COMMIT} (3.5, was 3), 0.25 beyond the limit"
    )
    assert verdict(replace(of, higher_is_better=True), "max_accuracy_loss", 0.0).outcome == "pass"


def test_a_loss_in_the_population_is_bounded_as_a_drop_is() -> None:
    none_lost = lost(0, inference="population")  # z2 / (1000 + z2) with z = 1.645: at most 0.27 points
    assert verdict(none_lost, "max_accuracy_loss", 0.0028).outcome == "pass"
    undecided = verdict(none_lost, "max_accuracy_loss", 0.0026)
    assert undecided.outcome == "inconclusive"
    assert f"neither better nor worse than at {COMMIT} (90%) on 1,000 examples, -0.27 pp to" in undecided.sentence
    many = verdict(lost(100, inference="population"), "max_accuracy_loss", 0.05)
    assert many.outcome == "fail"
    assert f"10 pp worse than at {COMMIT} (80%, was 90%) on 1,000 examples, at least" in many.sentence
    own = replace(
        lost(0, inference="population"),
        metric="shop:m",
        agreement=None,
        interval=Interval(-1, 2),
    )
    assert verdict(own, "max_accuracy_loss", 2.0).outcome == "pass"
    assert verdict(own, "max_accuracy_loss", 1.9).outcome == "inconclusive"


def test_a_population_without_an_interval_is_inconclusive_against_a_base() -> None:
    """A saved record has no single answers: nothing that head could mend."""
    of = replace(lost(20, inference="population"), agreement=None, no_interval="single answers are not saved")
    done = verdict(of, "max_accuracy_loss", 0.01)
    assert (done.outcome, done.measured) == ("inconclusive", 0.02)
    assert f"2 pp worse than at {COMMIT} (88%, was 90%), but the drop has no interval: single" in done.sentence
    assert "answers are not saved; `inference: set` judges" in done.sentence
    few = replace(of, interval_lacks_examples=True)
    assert (
        f"2 pp worse than at {COMMIT} (88%, was 90%) on 1,000 examples; single answers"
        in verdict(few, "max_accuracy_loss", 0.01).sentence
    )


def test_head_that_does_not_repeat_itself_is_judged_over_its_passes() -> None:
    of = variant_changed(lost(10), repeat=Repeat(1000, 0.87, 30))
    done = verdict(of, "max_accuracy_loss", 0.02)
    assert done.outcome == "inconclusive"
    assert "1 pp to 3 pp in other passes" in done.sentence
    assert "the head answers differently each time" in done.sentence
    of = reference_changed(lost(10), repeat=Repeat(1000, 0.91, 10))
    assert "the base answers differently each time" in verdict(of, "max_accuracy_loss", 0.0).sentence


def test_a_base_no_better_than_guessing_shows_no_loss_but_an_improvement_on_it_counts() -> None:
    seen = Observations(target_classes=10, output_classes=10, predicted_classes=10, rarer_targets=900)
    of = reference_changed(lost(0), score=0.1, observations=seen)
    done = verdict(variant_changed(of, score=0.1), "max_accuracy_loss", 0.01)
    assert (done.outcome, done.measured, done.is_red) == ("inconclusive", 0.0, False)
    assert "which says nothing: the base itself is right on 10% of the 1,000 examples, no more than" in done.sentence
    better = replace(variant_changed(of, score=0.9), agreement=Agreement(1000, 0, 800, 800))
    assert verdict(better, "max_accuracy_loss", 0.01).outcome == "pass"
    worse = replace(variant_changed(of, score=0.05), agreement=Agreement(1000, 50, 0, 50))
    assert verdict(worse, "max_accuracy_loss", 0.01).outcome == "fail"


def test_where_no_answer_changed_nothing_was_lost_however_bad_the_base_is() -> None:
    seen = Observations(target_classes=10, output_classes=10, predicted_classes=10, rarer_targets=900)
    side = reference_changed(lost(0), score=0.1, observations=seen).reference
    same = replace(lost(0), reference=side, variant=side, agreement=Agreement(1000, 0, 0, 0))
    assert verdict(same, "max_accuracy_loss", 0.0).outcome == "pass"
    swapped = replace(same, agreement=Agreement(1000, 1, 1, 2))
    assert verdict(swapped, "max_accuracy_loss", 0.0).outcome == "inconclusive"


def test_scores_on_other_examples_are_not_compared() -> None:
    done = verdict(head(data_fingerprint="beef"), "max_accuracy_loss", 0.5)
    assert done.outcome == "inconclusive"
    assert f"{COMMIT} was scored on other examples" in done.sentence
    assert verdict(head(data_fingerprint="beef"), "max_size_growth", 0.0).outcome == "pass"


# --- time ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head_ns", "value", "outcome", "slowdown"),
    [
        (5_000_000, 0.31, "pass", 0.25),  # 1.25 times exp(-0.0551) and exp(0.0421): from 18.3% to 30.4%
        (5_000_000, 0.30, "inconclusive", 0.25),
        (5_000_000, 0.25, "inconclusive", 0.25),  # a tie in every pair
        (5_000_000, 0.19, "inconclusive", 0.25),
        (5_000_000, 0.18, "fail", 0.25),
        (3_000_000, 0.0, "pass", -0.25),
        (10_000_000, 1.61, "pass", 1.5),
        (10_000_000, 1.36, "fail", 1.5),
    ],
)
def test_a_slowdown_is_the_share_by_which_a_call_takes_longer(
    head_ns: int, value: float, outcome: str, slowdown: float
) -> None:
    done = verdict(slower(head_ns), "max_slowdown", value)
    assert done.outcome == outcome
    assert done.measured == pytest.approx(slowdown)


def test_the_sentence_of_a_slowdown_gives_the_interval_in_percent_and_its_direction() -> None:
    assert told(slower(5_000_000), "max_slowdown", 0.1, "10%") == (
        f"is broken: 25% slower [18.3%, 30.4%] than {COMMIT} over 200 pairs, 15 percentage points above the limit"
    )
    assert told(slower(3_000_000), "max_slowdown", 0.1) == (
        f"holds: 25% faster [21.8%, 29%] than {COMMIT} over 200 pairs"
    )


def test_the_interval_has_its_ends_in_the_order_of_the_figure() -> None:
    """The end nearer to no difference comes first; where the ends differ in direction, each says which."""
    assert told(slower(4_400_000), "max_slowdown", 0.6).startswith("holds: 10% slower [4.1%, 14.7%] than")
    assert told(slower(3_600_000), "max_slowdown", 0.6).startswith("holds: 10% faster [6.13%, 14.8%] than")
    assert told(slower(4_000_000), "max_slowdown", 0.6).startswith("holds: 0% slower [5.36% faster, 4.3% slower] than")


def test_of_too_few_pairs_the_direction_is_told_and_no_interval() -> None:
    done = told(slower(5_000_000, pairs=3), "max_slowdown", 0.1)
    assert done.startswith(
        f"is inconclusive: 25% slower than {COMMIT} (fewer than 4 pairs give no interval) over 3 pairs in 0.15 s, and "
    )
    done = told(slower(3_000_000, pairs=3), "max_slowdown", 0.1)
    assert done.startswith(f"is inconclusive: 25% faster than {COMMIT} (fewer than 4 pairs give no interval) over")


def test_launches_that_contradict_each_other_decide_nothing() -> None:
    """Two launches read 25% slower and the third one equal: their own spread is the error."""
    of = against(timing=timing(200, 4_000_000, [*(140 * [5_000_000]), *(60 * [4_000_000])]))
    assert of.timing is not None
    assert [pair.launch for pair in of.timing.pairs][::20] == [1, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert verdict(of, "max_slowdown", 0.1).outcome == "inconclusive"
    assert verdict(slower(5_000_000), "max_slowdown", 0.1).outcome == "fail"


def test_timing_goes_on_until_the_slowdown_is_decided() -> None:
    for head_ns, goes_on in ((4_000_000, False), (5_600_000, False), (5_000_000, True)):
        timed = slower(head_ns).timing
        assert timed is not None
        assert is_open([limit("max_slowdown", 0.25)], Samples.of(timed.pairs), timed_limits=1) == goes_on


# --- what is not there -----------------------------------------------------------------------------------------------


def test_a_case_that_is_new_has_no_verdicts_and_is_not_red() -> None:
    of = judge(against(Base(COMMIT, "new", "no such model"), limits=(limit("max_size_growth", 0.0),)), timed_limits=0)
    assert of.verdicts == ()
    assert case_outcome(of, strict=True) == "new"


@pytest.mark.parametrize("name", NAMES)
def test_a_base_that_fails_by_itself_decides_nothing_and_one_that_cannot_be_run_is_red(name: str) -> None:
    failed = against(Base(COMMIT, "failed", "its factory raised KeyError: 'w'."), reference=None)
    unusable = against(Base(COMMIT, "unusable", "weights.pt is a Git LFS pointer."), reference=None)
    assert told(failed, name, 0.1) == (
        f"is inconclusive: there is nothing to compare with, since {COMMIT} fails: its factory raised KeyError: 'w'"
    )
    assert told(unusable, name, 0.1) == (
        f"was not measured, which counts as broken (the base {COMMIT} could not be brought to run: weights.pt is a Git "
        "LFS pointer)"
    )
    assert not is_red(judge(replace(failed, limits=(limit(name, 0.1),)), timed_limits=1), strict=False)
    assert is_red(judge(replace(failed, limits=(limit(name, 0.1),)), timed_limits=1), strict=True)
    assert is_red(judge(replace(unusable, limits=(limit(name, 0.1),)), timed_limits=1), strict=False)


MISSING = {
    "max_memory_growth": ("memory", {"weights_bytes": None}),
    "max_size_growth": ("size", {"size_bytes": None}),
    "max_accuracy_loss": ("score", {"score": None}),
    "max_slowdown": ("timing", {}),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_that_only_the_base_lacks_decides_nothing_and_one_that_head_lacks_is_red(name: str) -> None:
    figure, without = MISSING[name]
    at_base = base(unmeasured={figure: "not comparable: torch 2.7 then, 2.8 now."}, **without)
    at_head = head(unmeasured={figure: "it could not be saved"}, **without)
    both = replace(at_head, reference=at_base.reference)
    if name == "max_slowdown":
        at_base, at_head, both = (replace(each, timing=None) for each in (at_base, at_head, both))
    done = verdict(at_base, name, 0.1)
    assert (done.outcome, done.measured) == ("inconclusive", None)
    assert (
        f"{COMMIT} has no {figure} figure to compare with: not comparable: torch 2.7 then, 2.8 now. (" in done.sentence
    )
    for red in (at_head, both):
        assert verdict(red, name, 0.1).outcome == "not measured"
        assert told(red, name, 0.1) == "was not measured, which counts as broken (it could not be saved)"


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_that_is_missing_without_a_reason_is_red(name: str) -> None:
    figure, without = MISSING[name]
    of = replace(head(**without), timing=None)
    assert told(of, name, 0.1) == f"was not measured, which counts as broken (the run produced no {figure} figure)"
    told_nothing = variant_changed(of, unmeasured={figure: ""})  # as a stranger's record may say
    assert told(told_nothing, name, 0.1) == told(of, name, 0.1)
    assert verdict(against(variant=None), name, 0.1).outcome == "not measured"
    no_pairs = replace(of, timing=replace(timing(), pairs=()))
    assert verdict(no_pairs, name, 0.1).outcome == "not measured"


def test_on_a_foreign_runtime_it_is_the_process_meter_that_must_be_there() -> None:
    of = in_processes((1000,), (1000,))
    reason = {"process_memory": "not comparable: kernels AVX2 then, AVX512 now"}
    done = verdict(reference_changed(of, process_memory=None, unmeasured=reason), "max_memory_growth", 0.1)
    assert done.outcome == "inconclusive"
    assert "has no process_memory figure to compare with: not comparable: kernels" in done.sentence


def test_a_limit_on_the_wrong_side_was_not_measured() -> None:
    assert told(against(), "max_size", 10.0 * MIB).startswith(
        "was not measured, which counts as broken (it is no limit"
    )
    assert told(replace(against(), base=None), "max_size_growth", 0.1) == (
        "was not measured, which counts as broken (the run compared nothing with a base)"
    )


def test_a_case_in_error_has_no_verdicts() -> None:
    of = against(error=CaseError("load", "no"), limits=(limit("max_size_growth", 0.1),))
    assert judge(of, timed_limits=0).verdicts == ()


def test_a_saved_record_is_named_as_the_base() -> None:
    assert told(against(Base("saved.json", "compared")), "max_size_growth", 0.1).endswith("at saved.json (977 KiB)")


def test_a_metric_without_labels_says_nothing_of_the_model_as_it_is() -> None:
    """The original is held against itself, which always agrees. Where it is the same to the bit, nothing was lost."""

    def original(digests: tuple[str | None, str | None], flips: int, metric: str, recipe: str = "original") -> Judged:
        before, after = (Observations(digest=digest) for digest in digests)
        made = reference_changed(against(metric=metric, recipe=recipe), score=1.0, observations=before)
        made = variant_changed(made, score=1.0, observations=after)
        agreement = Agreement(1000, 0, 0, flips) if metric == "agreement" else None
        return verdict(replace(made, agreement=agreement), "max_accuracy_loss", 0.01)

    changed = original(("a", "b"), 930, "agreement")
    assert changed.outcome == "inconclusive"
    assert "930 of 1,000 answers are others" in changed.sentence
    assert original(("a", "b"), 0, "agreement").outcome == "pass"
    assert original(("a", "b"), 0, "cosine").outcome == "inconclusive"
    assert original((None, None), 0, "cosine").outcome == "inconclusive"
    assert original(("a", "a"), 0, "cosine").outcome == "pass"
    assert original(("a", "b"), 0, "cosine", recipe="bf16").outcome == "pass"
    assert original(("a", "b"), 930, "accuracy").outcome == "pass"
