"""Head against base: what moved is planted by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pytest_modelopt.results.base import Base
from pytest_modelopt.results.case import ORIGINAL, Case
from pytest_modelopt.results.observations import Observations, ProviderSession
from tests.diagnosis.cases_by_hand import only, rules, sound
from tests.reporting.records_by_hand import MIB

SAME = {"weights_bytes": MIB, "call_peak_bytes": MIB}


def since_the_base(before: dict[str, Any], after: dict[str, Any]) -> Case:
    """The same recipe on both sides; the arguments are fields of the two measurements."""
    made = sound(base=Base("1a2b3c", "compared"))
    assert made.variant is not None
    return replace(
        made, reference=replace(made.variant, **{**SAME, **before}), variant=replace(made.variant, **{**SAME, **after})
    )


def test_the_part_of_the_memory_that_moved_is_told() -> None:
    finding = only(since_the_base({}, {"call_peak_bytes": 3 * MIB}))
    assert (finding.rule, finding.explains, finding.is_note) == ("memory-moved", ("memory",), False)
    assert (
        finding.text
        == "of its memory what a call needs beside them went from 1 MiB to 3 MiB, its weights did not change"
    )
    assert only(since_the_base({"weights_bytes": 2 * MIB}, {"call_peak_bytes": 3 * MIB})).text == (
        "of its memory its weights went from 2 MiB to 1 MiB, what a call needs beside them went from 1 MiB to 3 MiB"
    )
    assert rules(since_the_base({}, {})) == []


def test_another_runtime_since_the_base_is_told() -> None:
    finding = only(since_the_base({}, {"runtime": "OpenVINO"}))
    assert (finding.rule, finding.is_note) == ("runtime-changed", True)
    assert finding.text == "it runs on OpenVINO now and ran on torch at the base, so every figure may be another"


def test_a_session_that_fell_back_to_the_cpu_is_told_of_head_and_base() -> None:
    session = ProviderSession("ONNX Runtime", ("CUDAExecutionProvider",), ("CPUExecutionProvider",))
    fell_back = {"observations": Observations(sessions=(session,))}
    text = only(since_the_base(fell_back, fell_back)).text
    assert text.startswith("the base asked ONNX Runtime for CUDAExecutionProvider and runs on CPUExecutionProvider; ")
    of_original = replace(since_the_base({}, fell_back), recipe=ORIGINAL)
    assert "the head asked ONNX Runtime" in only(of_original).text
