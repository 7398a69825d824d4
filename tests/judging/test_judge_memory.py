"""Memory that several processes measured: a limit within their spread is neither kept nor broken."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_modelopt.results.case import Case
from pytest_modelopt.results.measurement import Measurement, ProcessMemory, ProcessMeter
from pytest_modelopt.results.verdicts import Limit
from tests.judging.judged import Judged, judged
from tests.reporting import records_by_hand
from tests.reporting.records_by_hand import measurement


def side(recipe: str | None, runs: tuple[int, ...], runtime: str | None = None, tensors: int = 600) -> Measurement:
    weights, peak = (None, None) if runtime else (tensors - 100, 100)
    memory = ProcessMemory(runs, "memray") if runs else None
    return measurement(recipe, size=100, weights=weights, peak=peak, score=None, process_memory=memory, runtime=runtime)


def case(original: Measurement, variant: Measurement) -> Case:
    return records_by_hand.case("r", "m", reference=original, variant=variant)


IN_TORCH = case(side(None, (1000, 1010, 1005)), side("r", (500, 510, 502), tensors=300))
CONVERTED = case(side(None, (1000, 1010, 1005)), side("r", (500, 510, 502), "ONNX Runtime"))
BOTH_FOREIGN = case(side(None, (1000, 1010, 1005), "OpenVINO"), side("r", (500, 510, 502), "ONNX Runtime"))


def verdict(of: Case, name: str, value: float) -> Judged:
    return judged(of, Limit(name, value, "L", "error", "budgets.yaml", 7))


@pytest.mark.parametrize("of", [IN_TORCH, CONVERTED, BOTH_FOREIGN])
@pytest.mark.parametrize(
    ("value", "outcome"), [(511, "pass"), (510, "pass"), (509, "inconclusive"), (500, "inconclusive"), (499, "fail")]
)
def test_process_memory_passes_above_all_runs_and_fails_below_all_of_them(of: Case, value: int, outcome: str) -> None:
    told = verdict(of, "max_process_memory", value)
    assert (told.outcome, told.measured) == (outcome, 502)
    assert told.is_red == (outcome == "fail")


@pytest.mark.parametrize(("value", "outcome"), [(510, "pass"), (505, "inconclusive"), (499, "fail")])
def test_with_a_foreign_runtime_max_memory_is_judged_by_the_process_meter(value: int, outcome: str) -> None:
    assert verdict(CONVERTED, "max_memory", value).outcome == outcome
    assert verdict(IN_TORCH, "max_memory", 300).outcome == "pass", "in torch the tensor meter decides, exactly"
    assert verdict(IN_TORCH, "max_memory", 299).outcome == "fail"


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        (0.48, "pass"),
        (0.49, "pass"),  # 1 - 510/1000: the worst variant against the best original
        (0.495, "inconclusive"),
        (0.504, "inconclusive"),
        (0.505, "fail"),  # above 1 - 500/1010 = 0.50495
    ],
)
def test_a_reduction_takes_the_spread_of_both_sides(value: float, outcome: str) -> None:
    told = verdict(CONVERTED, "min_memory_reduction", value)
    assert told.outcome == outcome
    assert told.measured == pytest.approx(1 - 502 / 1005)
    assert verdict(IN_TORCH, "min_memory_reduction", 0.5).outcome == "pass", "600 to 300 bytes, by the tensor meter"


def test_the_sentence_names_the_meter_its_runs_and_the_spread() -> None:
    assert verdict(CONVERTED, "max_memory", 600).sentence == (
        "m/r: max_memory L holds: 502 B measured by memray in 3 fresh processes. (budgets.yaml:7)"
    )
    assert verdict(CONVERTED, "max_memory", 505).sentence == (
        "m/r: max_memory L is inconclusive: 502 B measured by memray in 3 fresh processes, and the limit lies within "
        "the measured spread, 500 B to 510 B; give a limit further from what is measured. (budgets.yaml:7)"
    )
    assert verdict(CONVERTED, "max_memory", 251).sentence == (
        "m/r: max_memory L is broken: 502 B measured by memray in 3 fresh processes, 100% more than the limit. "
        "(budgets.yaml:7)"
    )


def test_a_spread_is_shown_with_digits_that_tell_its_ends_apart() -> None:
    megabytes = case(side(None, (10**8,) * 3), side("r", (80_000_000, 80_004_000, 80_002_000), "LiteRT"))
    told = verdict(megabytes, "max_memory", 80_001_000)
    assert told.outcome == "inconclusive"
    assert "76.2939 MiB to 76.2978 MiB" in told.sentence


@pytest.mark.parametrize("name", ["max_memory", "min_memory_reduction", "max_process_memory"])
def test_a_foreign_variant_without_process_memory_is_not_measured_and_red(name: str) -> None:
    variant = replace(side("r", (), "ONNX Runtime"), unmeasured={"process_memory": "it cannot be saved"})
    told = verdict(case(side(None, (1000,)), variant), name, 1e12 if name.startswith("max") else 0.0)
    assert told.outcome == "not measured"
    assert told.is_red
    assert "(r: it cannot be saved)" in told.sentence


def test_tensors_of_the_original_are_never_compared_with_a_process_of_the_variant() -> None:
    original = replace(side(None, ()), unmeasured={"process_memory": "it cannot be saved"})
    told = verdict(case(original, side("r", (500,), "ONNX Runtime")), "min_memory_reduction", 0.0)
    assert told.outcome == "not measured"
    assert "(original: it cannot be saved)" in told.sentence


def test_two_process_meters_are_not_compared_with_each_other() -> None:
    meter: ProcessMeter = "VmHWM"
    original = replace(side(None, ()), process_memory=ProcessMemory((1000,), meter))
    told = verdict(case(original, side("r", (500,), "ONNX Runtime")), "min_memory_reduction", 0.0)
    assert told.outcome == "not measured"
    assert verdict(case(original, side("r", (500,), "ONNX Runtime")), "max_memory", 500).outcome == "pass"
