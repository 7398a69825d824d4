"""The tightest value that a case keeps for certain, and the same with room: figures that can be checked by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_modelopt.judging.headroom import judged, tightest, with_headroom
from pytest_modelopt.limits.latency import interval_of, speedup_of
from pytest_modelopt.results.answers import Interval
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.measurement import Coverage, LayerCoverage, ProcessMemory
from pytest_modelopt.results.verdicts import Waiver
from pytest_modelopt.statistics.samples import Samples
from pytest_modelopt.statistics.timing import ALPHA_PASS, alpha_fail, variant_latency
from tests.judging.answers_by_hand import Z2, answered, sliced, varying
from tests.reporting.records_by_hand import MIB, ORIGINAL, by_second, case, limit, measurement, timing

WIDE = timing(200, by_second(4_000_000, 4_200_000), by_second(3_000_000, 3_100_000))


def end_of(of: Case, name: str, stated: float = 0.5) -> float | None:
    bound = limit(name, stated, "L")
    return tightest(of, bound, judged(of, bound, stated, 1).measured, 1)


def room_of(of: Case, name: str, end: float, headroom: float = 0.05, measured: float | None = None) -> float | None:
    return with_headroom(of, limit(name, 0.5, "L"), end, end if measured is None else measured, headroom)


def in_processes(original: tuple[int, ...], variant: tuple[int, ...]) -> Case:
    before, after = ProcessMemory(original, "memray"), ProcessMemory(variant, "memray")
    return case(
        reference=replace(ORIGINAL, process_memory=before),
        variant=replace(measurement("onnxruntime"), process_memory=after, runtime="ONNX Runtime"),
    )


# --- the tightest value ----------------------------------------------------------------------------------------------


def test_a_figure_that_repeats_is_its_own_tightest_limit_to_the_bit() -> None:
    of = case()  # 2 MiB of 8 MiB, 1 MiB of 4 MiB saved
    assert end_of(of, "max_memory", 3 * MIB) == 2 * MIB
    assert end_of(of, "max_memory", 1 * MIB) == 2 * MIB
    assert end_of(of, "max_size", 9.0) == MIB
    assert end_of(of, "min_memory_reduction") == 0.75
    assert end_of(answered(400, lost=3), "max_flips") == 3 / 400
    assert end_of(sliced((200, 1, 0), (45, 4, 1)), "max_slice_drop") == pytest.approx(3 / 45, rel=1e-8)


def test_of_several_processes_the_worst_one_counts() -> None:
    of = in_processes((200, 205, 210), (100, 110, 120))
    assert end_of(of, "max_process_memory", 111.0) == pytest.approx(120, rel=1e-8)
    assert end_of(of, "max_memory", 999.0) == pytest.approx(120, rel=1e-8)
    assert end_of(of, "min_memory_reduction") == pytest.approx(1 - 120 / 200, rel=1e-8)


def test_of_timed_pairs_the_certain_end_of_the_interval_counts_and_not_the_estimate() -> None:
    of = case(timing=WIDE)
    low, high = interval_of(speedup_of(WIDE), 1)
    assert low < 4 / 3 < high
    assert end_of(of, "min_speedup") == pytest.approx(low, rel=1e-8)
    _, slowest = variant_latency(Samples.of(WIDE.pairs)).interval(alpha_fail(1), ALPHA_PASS)
    assert slowest > 0.003
    assert end_of(of, "max_latency", 1.0) == pytest.approx(slowest, rel=1e-8)


def test_too_few_pairs_are_certain_of_nothing() -> None:
    assert end_of(case(timing=timing(3)), "min_speedup") is None


def test_of_a_population_the_bound_counts() -> None:
    """Of 0 changed in 450, z2 / (450 + z2), which is 0.6%."""
    of = answered(450, inference="population")
    for name in ("max_flips", "max_accuracy_drop"):
        assert end_of(of, name) == pytest.approx(Z2 / (450 + Z2), rel=1e-6)
    of = replace(of, agreement=None, metric="shop:r2", interval=Interval(-0.01, 0.02))
    assert end_of(of, "max_accuracy_drop") == pytest.approx(0.02, rel=1e-8)


def test_of_answers_that_do_not_repeat_the_worst_pass_counts() -> None:
    """Dropped from 90% to 88% of 200, and to 86% in the other pass."""
    of = varying(answered(200, lost=4), 0.86, 6)
    assert end_of(of, "max_accuracy_drop") == pytest.approx(8 / 200, rel=1e-8)
    assert end_of(of, "min_accuracy") == pytest.approx(0.86, rel=1e-8)


def test_a_variant_that_is_better_drops_by_no_less_than_nothing() -> None:
    assert end_of(answered(400, won=3), "max_accuracy_drop") == 0.0


def test_a_variant_that_is_larger_keeps_no_reduction() -> None:
    assert end_of(case(variant=measurement("x", size=5 * MIB)), "min_size_reduction") is None


@pytest.mark.parametrize("score", [0.25, -31.5, 0.0])
@pytest.mark.parametrize("higher_is_better", [True, False])
def test_a_score_of_any_sign_is_its_own_floor_or_ceiling(score: float, higher_is_better: bool) -> None:
    of = case(
        metric="shop:score",
        higher_is_better=higher_is_better,
        reference=measurement(None, score=score),
        variant=measurement("x", score=score),
    )
    assert end_of(of, "min_accuracy") == score
    found = tightest(of, limit("min_accuracy", 0.5, "L"), None, 1)  # without being told where to look
    assert found == pytest.approx(score, rel=1e-8, abs=1e-300)


def test_a_drop_against_a_floor_that_the_original_misses_is_certain_of_nothing() -> None:
    of = replace(answered(400, lost=4, score=0.5), limits=(limit("min_accuracy", 0.9, "90%"),))
    assert end_of(of, "max_accuracy_drop") is None


def test_a_waiver_does_not_make_a_value_kept() -> None:
    waiver = Waiver("2999-01-01", "because", "budgets.yaml", 3)
    waived = replace(limit("max_memory", 3 * MIB, "3 MiB"), waiver=waiver)
    assert judged(case(), waived, 1.0, 1).limit.waiver is None
    assert judged(case(), waived, 1.0, 1).outcome == "fail"


@given(st.integers(0, 450), st.integers(0, 450), st.sampled_from(["max_flips", "max_accuracy_drop", "min_accuracy"]))
def test_what_is_found_is_kept_and_hardly_anything_tighter_is(lost: int, won: int, name: str) -> None:
    of = answered(900, lost=lost, won=won)
    end = end_of(of, name)
    assert end is not None
    stated = limit(name, end, "L")
    assert judged(of, stated, end, 1).outcome == "pass"
    tighter = end - 1e-6 if name.startswith("max") else end + 1e-6
    assert judged(of, stated, tighter, 1).outcome == "fail" or (end == 0.0 and lost <= won)


# --- with headroom ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "end", "headroom", "expected"),
    [
        ("max_memory", 2_000_000.0, 0.05, 2_100_000.0),
        ("max_process_memory", 100.0, 0.5, 150.0),
        ("max_size", 100.0, 0.0, 100.0),
        ("max_latency", 0.004, 0.25, 0.005),
        ("min_speedup", 2.1, 0.05, 2.0),
        ("min_memory_reduction", 0.6, 0.05, 0.58),  # 40% are left, 42% may be
        ("min_size_reduction", 0.02, 0.05, 0.0),  # 98% are left, and 102.9% is no reduction
        ("min_coverage", 0.9, 0.1, 0.81),
        ("max_memory_growth", 0.1, 0.1, 0.21),
        ("max_size_growth", 0.0, 0.1, 0.1),
        ("max_slowdown", 0.2, 0.05, 0.26),
        ("max_slowdown", 0.99, 0.5, 1.985),
    ],
)
def test_a_share_of_what_was_measured(name: str, end: float, headroom: float, expected: float) -> None:
    found = room_of(case(timing=WIDE), name, end, headroom)
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "end", "headroom", "expected"),
    [
        ("max_flips", 0.0, 0.05, 1 / 400),  # a share of nothing is less than an example
        ("max_flips", 4 / 400, 0.05, 5 / 400),  # so are 5% of four
        ("max_flips", 100 / 400, 0.05, 105 / 400),
        ("max_flips", 1.0, 0.05, 1.0),
        ("max_flips", 0.0, 0.0, 0.0),
        ("max_accuracy_drop", 4 / 400, 0.05, 5 / 400),
        ("max_accuracy_loss", 100 / 400, 0.05, 105 / 400),
        ("max_accuracy_drop", 1.0, 0.5, 1.0),
        ("min_accuracy", 0.9, 0.5, 0.85),  # 10% of errors, 15% may be
        ("min_accuracy", 1.0, 0.05, 399 / 400),
        ("min_accuracy", 0.0, 0.05, 0.0),
    ],
)
def test_of_answers_at_least_one_example(name: str, end: float, headroom: float, expected: float) -> None:
    found = room_of(answered(400), name, end, headroom)
    assert found == pytest.approx(expected, rel=1e-6)


def test_of_slices_one_example_of_the_worst() -> None:
    of = sliced((200, 1, 0), (45, 4, 1))
    assert room_of(of, "max_slice_drop", 3 / 45) == pytest.approx(4 / 45)
    assert room_of(of, "max_slice_drop", 3 / 45, headroom=1.0) == pytest.approx(6 / 45)


def test_a_gain_is_its_own_room() -> None:
    """Three examples won: none may be lost. One won: as many as none. Without a gain, one may."""
    assert room_of(answered(400, won=3), "max_accuracy_drop", 0.0, measured=-3 / 400) == 0.0
    assert room_of(answered(400, won=1), "max_accuracy_drop", 0.0, measured=-1 / 400) == 0.0
    assert room_of(answered(400), "max_accuracy_drop", 0.0, measured=0.0) == 1 / 400


@pytest.mark.parametrize(
    ("name", "higher_is_better", "end", "expected"),
    [
        ("min_accuracy", True, 20.0, 19.0),
        ("min_accuracy", True, -20.0, -21.0),
        ("min_accuracy", False, 20.0, 21.0),
        ("min_accuracy", False, -20.0, -19.0),
        ("max_accuracy_drop", True, 2.0, 2.1),
        ("max_accuracy_drop", True, 0.0, None),
        ("max_accuracy_drop", True, 1e-12, None),
    ],
)
def test_a_metric_that_counts_nothing(name: str, higher_is_better: bool, end: float, expected: float | None) -> None:
    """A share of the figure, whatever its sign; of no drop there is no share."""
    of = case(metric="shop:score", higher_is_better=higher_is_better)
    found = room_of(of, name, end)
    assert found == (None if expected is None else pytest.approx(expected))
    assert room_of(of, name, end, headroom=0.0) == end


def test_a_gain_of_a_metric_that_counts_nothing_is_its_own_room() -> None:
    of = case(metric="shop:score")
    assert room_of(of, "max_accuracy_drop", 0.0, measured=-0.5) == 0.0
    assert room_of(of, "max_accuracy_drop", 0.0, measured=-1e-12) is None


def test_coverage_is_its_own_tightest_limit() -> None:
    layers = (LayerCoverage("a", "Linear", 90, 90), LayerCoverage("b", "Conv2d", 10, 0))
    assert end_of(case(coverage=Coverage(layers, ())), "min_coverage") == 0.9
