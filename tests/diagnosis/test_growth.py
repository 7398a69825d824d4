"""What made memory or size larger is named: each part is planted by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pytest_modelopt.results.case import Case
from pytest_modelopt.results.observations import Makeup
from tests.diagnosis.cases_by_hand import Told, sound, told
from tests.reporting.records_by_hand import MIB, limit, verdict

BEFORE = Makeup({"body.0.weight": 3 * MIB, "body.0.bias": 64}, 4096, {}, "`body.1` (ReLU) in aten::relu", MIB // 2)
AFTER = Makeup(
    {"body.0.values": MIB, "body.0.scales": 4 * MIB, "body.0.bias": 64, "tiny": 128},
    8192,
    {"rnn (LSTM)": 900, "": 100},
    "`body.0` (Int8Linear) in aten::mul",
    3 * MIB,
)


def with_makeup(of: Case, before: Makeup | None = BEFORE, after: Makeup | None = AFTER, **figures: Any) -> Case:
    """`of`, whose parts these are; `figures` are the variant's, those of the original are 4 MiB each."""
    assert of.reference is not None
    assert of.variant is not None
    assert of.reference.observations is not None
    assert of.variant.observations is not None
    original = replace(of.reference, observations=replace(of.reference.observations, makeup=before))
    variant = replace(of.variant, observations=replace(of.variant.observations, makeup=after), **figures)
    return replace(of, reference=original, variant=variant)


def found(of: Case) -> dict[str, Told]:
    return {finding.rule: finding for finding in told(of, None) if finding.rule in ("memory-in-layer", "size-in-file")}


def test_the_layer_that_raised_the_peak() -> None:
    finding = found(with_makeup(sound(), call_peak_bytes=9 * MIB))["memory-in-layer"]
    assert finding.explains == ("memory",)
    assert finding.text == (
        "beside what it holds, a call takes 9 MiB at its peak, 3 MiB of it for `body.0` (Int8Linear) in aten::mul (a "
        "call of the original takes 4 MiB at its peak, in `body.1` (ReLU) in aten::relu)"
    )


def test_the_tensors_that_the_model_holds_more() -> None:
    finding = found(with_makeup(sound(), weights_bytes=9 * MIB))["memory-in-layer"]
    assert finding.text == (
        "the model holds 9 MiB and the original 4 MiB: `body.0.scales` (+4 MiB) and `body.0.values` (+1 MiB) are new "
        "or larger, 1 tensor (3 MiB in all) gone or smaller"
    )


def test_the_parts_that_made_the_file_larger() -> None:
    finding = found(with_makeup(sound(), size_bytes=5 * MIB))["size-in-file"]
    assert finding.explains == ("size",)
    assert finding.text.startswith("of the saved file `body.0.scales` (+4 MiB) and `body.0.values` (+1 MiB) are new")
    assert "structure" not in finding.text


def test_a_file_that_is_hardly_larger_needs_no_reason() -> None:
    assert found(with_makeup(sound(), size_bytes=4 * MIB + MIB // 50)) == {}


def test_a_program_that_made_the_file_larger() -> None:
    after = replace(AFTER, tensors={"body.0.values": 40}, other_bytes=5 * MIB)
    finding = found(with_makeup(sound(), after=after, size_bytes=5 * MIB))["size-in-file"]
    assert finding.text == (
        "of the saved file what is no tensor in it (structure, code, settings) takes 5 MiB, and 4 KiB in the "
        "original's: a graph of 1,000 operations, 900 of them of rnn (LSTM)"
    )


def test_a_limit_that_is_not_kept_though_nothing_is_worse() -> None:
    of, memory, size = with_makeup(sound()), limit("max_memory", MIB, "1 MiB"), limit("max_size", 1024, "1 KiB")
    assert found(of) == {}
    assert list(found(replace(of, verdicts=(verdict(memory, "fail", 2 * MIB),)))) == ["memory-in-layer"]
    for others in (verdict(memory, "pass", 2 * MIB), verdict(size, "fail", 2 * MIB)):
        assert found(replace(of, verdicts=(others,))) == {}, "smaller parts are no reason for a file that is too large"


def test_what_nobody_saw_is_not_told() -> None:
    assert found(with_makeup(sound(), after=None, call_peak_bytes=9 * MIB)) == {}
    assert found(with_makeup(sound(), before=None, size_bytes=9 * MIB)) == {}
    unseen = replace(AFTER, peak_in="", peak_own_bytes=0)
    assert found(with_makeup(sound(), after=unseen, call_peak_bytes=9 * MIB)) == {}
    elsewhere = with_makeup(sound(), call_peak_bytes=9 * MIB)
    assert elsewhere.variant is not None
    assert found(replace(elsewhere, variant=replace(elsewhere.variant, hidden_bytes=MIB))) == {}
