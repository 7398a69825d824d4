"""Limits of models that generate: each takes the pairs, the bytes or the tokens that it is about."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pytest_modelopt.limits.catalogue import LIMITS, is_open
from pytest_modelopt.results.answers import Repeat
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.consistency.contradictions import disagreement_of
from pytest_modelopt.results.generation import CallMemory, Divergence, Generation, TokenAgreement
from pytest_modelopt.results.json import RecordError, case_from_data, case_to_data
from pytest_modelopt.results.timed_pairs import TimedCall
from pytest_modelopt.statistics.proportions import share_bounds
from pytest_modelopt.statistics.samples import Samples
from tests.judging.judged import judged
from tests.reporting.records_by_hand import case, limit, measurement, timing

pytestmark = pytest.mark.unit

CALL = Generation(new_tokens=8, prompt=12)
MEMORY = CallMemory(cache_bytes=5120, context=20, sequences=1, prefill_peak_bytes=9000, step_peak_bytes=6000)


def generating(flips: int = 10, squares: int = 30, sequences: int = 100) -> Case:
    """Twice as fast with the prompt, half as fast with the steps, and as fast as a whole."""
    sides = [
        replace(measurement(recipe, score=score), call_memory=MEMORY, examples=sequences)
        for recipe, score in ((None, 9.25), ("int8-dynamic", 9.3))
    ]
    return replace(
        case(),
        metric="perplexity",
        higher_is_better=False,
        generation=CALL,
        batch_size=1,
        reference=sides[0],
        variant=sides[1],
        agreement=None,
        slices=None,
        coverage=None,
        timing=timing(reference_ns=4_000_000, variant_ns=4_000_000),
        phases={
            "prefill": timing(reference_ns=2_000_000, variant_ns=1_000_000),
            "decode": timing(reference_ns=2_000_000, variant_ns=4_000_000),
        },
        tokens=TokenAgreement(sequences, 8, flips, squares, Divergence(0.01, 0.2, 800)),
    )


@pytest.mark.parametrize(
    ("name", "value", "text", "outcome", "measured"),
    [
        ("min_speedup", 0.5, "0.5x", "pass", 1.0),
        ("max_latency", 0.002, "2 ms", "fail", 0.004),
        ("min_prefill_speedup", 1.5, "1.5x", "pass", 2.0),
        ("min_prefill_speedup", 3.0, "3x", "fail", 2.0),
        ("max_first_token_latency", 0.002, "2 ms", "pass", 0.001),
        ("min_decode_speedup", 1.0, "1x", "fail", 0.5),
        ("min_decode_speedup", 0.3, "0.3x", "pass", 0.5),
        ("max_cache_memory", 5120, "5 KiB", "pass", 5120),
        ("max_cache_memory", 5119, "5119 B", "fail", 5120),
        ("max_flips", 0.02, "2%", "pass", 0.0125),
        ("max_flips", 0.01, "1%", "fail", 0.0125),
        ("max_accuracy_drop", 0.1, "0.1", "pass", 0.05),
        ("max_accuracy_drop", 0.01, "0.01", "fail", 0.05),
        ("min_accuracy", 9.4, "9.4", "pass", 9.3),
        ("min_accuracy", 9.2, "9.2", "fail", 9.3),
    ],
)
def test_each_limit_takes_its_own_figure(name: str, value: float, text: str, outcome: str, measured: float) -> None:
    found = judged(generating(), limit(name, value, text), timed_limits=1)
    assert found.outcome == outcome
    assert found.measured == pytest.approx(measured, rel=1e-6)


@pytest.mark.parametrize("call", ["whole", "prefill", "decode"])
def test_a_limit_is_open_for_its_own_pairs_only(call: TimedCall) -> None:
    pairs = timing(reference_ns=2_000_000, variant_ns=2_000_000).pairs
    limits = [limit(name, 1.0, "1x") for name in ("min_speedup", "min_prefill_speedup", "min_decode_speedup")]
    for stated in limits:
        kind = LIMITS[stated.name]
        assert is_open([stated], Samples.of(pairs), 1, call) == (kind.call == call)  # type: ignore[attr-defined]


def test_flips_in_the_population_are_bounded_by_sequence() -> None:
    """All flips in 12 of 100 sequences: as 12 of 100 examples, not as 96 of 800."""
    alike = replace(generating(flips=96, squares=12 * 64), inference="population")
    low, high = share_bounds(12, 100)
    found = judged(alike, limit("max_flips", 0.15, "15%"))
    assert found.outcome == "inconclusive"
    assert [found.verdict.low, found.verdict.high] == pytest.approx([low, high], rel=0.02)
    assert "12% measured on 100 examples" in found.sentence
    assert "examples would be needed" in found.sentence


def test_tokens_that_differ_each_time_decide_nothing() -> None:
    of = generating()
    assert of.variant is not None
    varying = replace(of, variant=replace(of.variant, repeat=Repeat(100, 9.31, None)))
    assert judged(varying, limit("max_flips", 0.5, "50%")).outcome == "inconclusive"


def test_a_model_that_is_called_once_has_none_of_these_figures() -> None:
    of = generating()
    assert of.variant is not None
    plain = replace(of, generation=None, phases={}, tokens=None, variant=replace(of.variant, call_memory=None))
    for name, text in (("min_decode_speedup", "1x"), ("max_cache_memory", "1 MiB")):
        found = judged(plain, limit(name, 1.0, text))
        assert found.outcome == "not measured"
        assert "the model is called once: state how it generates, `call: {generate:" in found.sentence


def test_the_figures_of_a_run_agree() -> None:
    assert disagreement_of(generating()) == ""


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"generation": None}, "generation is null, but phases, tokens or call_memory hold figures"),
        ({"higher_is_better": True}, "higher_is_better is true, but perplexity is better when it is lower"),
        ({"batch_size": 2}, "call_memory is of 1 sequences of 20 tokens, and the call has 2 of 20"),
        ({"generation": Generation(9, 12)}, "call_memory is of 1 sequences of 20 tokens, and the call has 1 of 21"),
        ({"tokens": TokenAgreement(100, 7, 10, 30)}, "10 flips in 100 sequences of 7, and generation.new_tokens is 8"),
        ({"tokens": TokenAgreement(100, 8, 801, 6408)}, "801 flips in 100 sequences of 8"),
        ({"tokens": TokenAgreement(100, 8, 10, 9)}, "tokens.squares is 9, which 10 flips in 100 sequences of 8 cannot"),
        ({"tokens": TokenAgreement(100, 8, 10, 81)}, "tokens.squares is 81, which 10 flips"),
        ({"tokens": TokenAgreement(100, 8, 400, 1599)}, "tokens.squares is 1599, which 400 flips"),
        ({"tokens": TokenAgreement(99, 8, 10, 30)}, "tokens.sequences is 99, and reference.examples 100"),
        ({"tokens": TokenAgreement(100, 8, 0, 0, Divergence(0.2, 0.1, 8))}, "mean 0.2 and the largest 0.1"),
        ({"tokens": TokenAgreement(100, 8, 0, 0, Divergence(0.1, 0.2, 801))}, "of 801 positions"),
        ({"phases": {"whole": timing()}}, "phases holds whole, which is no part of a call"),
        (
            {"phases": {"prefill": timing(variant_ns=7_000_000), "decode": timing(variant_ns=6_000_000)}},
            "one call of the variant takes 4000000 ns at most, and phases.prefill and phases.decode take 13000000 at",
        ),
        (
            {"phases": {"prefill": timing(reference_ns=13_000_000)}},
            "one call of the reference takes 4000000 ns at most, and phases.prefill take 13000000 at least",
        ),
        (
            {"phases": {"prefill": timing(variant_ns=1_000_000), "decode": timing(variant_ns=300_000)}},
            "one call of the variant takes 4000000 ns at least, and phases.prefill and phases.decode take 1300000 at",
        ),
    ],
)
def test_figures_that_cannot_both_be_true_are_found(changed: dict[str, object], told: str) -> None:
    assert told in disagreement_of(replace(generating(), **changed))  # type: ignore[arg-type]


def test_a_part_of_a_call_needs_no_more_memory_than_the_call() -> None:
    of = generating()
    assert of.variant is not None
    small = replace(of, variant=replace(of.variant, call_peak_bytes=4499))
    assert "variant.call_memory: a part of the call has a peak of 9000 bytes, and the whole call one of 4499" in (
        disagreement_of(small)
    )
    assert disagreement_of(replace(of, variant=replace(of.variant, call_peak_bytes=4500))) == ""


@pytest.mark.parametrize(
    ("calls", "told"),
    [
        (200 * ((),), "must hold whole numbers of at least 1 for each pair"),
        (200 * ((0,),), "must hold whole numbers of at least 1 for each pair"),
        (((1,),), "must have an entry for each pair, or none"),
    ],
)
def test_single_calls_of_a_part_are_checked_as_those_of_the_whole(calls: Any, told: str) -> None:
    decode = replace(generating().phases["decode"], variant_calls_ns=calls)
    with pytest.raises(RecordError, match=rf"phases\.decode\.variant_calls_ns: {told}"):
        case_from_data(case_to_data(replace(generating(), phases={"decode": decode})))


def test_pairs_of_a_part_are_checked_as_those_of_the_whole() -> None:
    of = generating()
    first = of.phases["decode"].pairs[0]
    wrong = replace(of.phases["decode"], pairs=(replace(first, variant_ns=1), *of.phases["decode"].pairs[1:]))
    assert "phases.decode.pairs.variant_ns[0] is 1" in disagreement_of(replace(of, phases={"decode": wrong}))
    assert disagreement_of(replace(of, variant=replace(of.variant, score=0.9))).startswith("variant.score is 0.9")  # type: ignore[type-var]


def test_room_for_flips_is_a_position_of_a_sequence_at_least() -> None:
    """One of eight positions in each of 100 sequences."""
    assert LIMITS["max_flips"].with_room(generating(), limit("max_flips", 0.5, "L"), 0.0, 0.0, 0.05) == 1 / 800
    assert (
        LIMITS["max_accuracy_drop"].with_room(generating(), limit("max_accuracy_drop", 0.5, "L"), 0.0, 0.0, 0.05)
        is None
    )
