"""A model that generates through the whole gate: budgets.yaml, a test of its own, the record and the table."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_modelopt.results.json import read
from tests.measuring import generating
from tests.measuring.generating import by_hand

pytestmark = pytest.mark.e2e

BUDGETS = """\
version: 1
defaults: {time_limit: 1 ms}
models:
  writer:
    factory: "writers:gpt"
    data: "writers:data"
    call: {generate: {new_tokens: 8, prompt: 12}}
    recipes: {int8-dynamic: {max_cache_memory: 5 KiB, max_flips: 1%, max_accuracy_drop: 3, min_decode_speedup: 1000x}}
"""
TEST = """
import pytest
import writers

@pytest.mark.model_budget(max_cache_memory="5 KiB", max_memory="200 KiB")
def test_a_live_step(modelopt):
    call = {"generate": {"new_tokens": 8, "prompt": 12, "step": writers.step}}
    compared = modelopt(writers.streaming(), "int8-dynamic", data=writers.data(), call=call)
    assert compared.tokens.positions == 8
    assert compared.timing_of("decode").pairs
"""


def test_a_model_that_generates(project: Callable[..., pytest.Pytester]) -> None:
    pytester = project(BUDGETS)
    pytester.makepyfile(writers=Path(generating.__file__).read_text(encoding="utf-8"), test_live=TEST)
    result = pytester.runpytest("--modelopt", "--modelopt-report", "out", "-v")
    result.assert_outcomes(passed=1, failed=1)
    record = read(pytester.path / "out" / "record.json")
    gated, live = record.cases
    outcomes = {verdict.limit.name: verdict.outcome for verdict in gated.verdicts}
    assert outcomes["max_cache_memory"] == "pass"
    assert outcomes["max_flips"] == "fail"
    assert set(gated.phases) == {"prefill", "decode"}
    assert all(timing.pairs for timing in (gated.timing, *gated.phases.values()) if timing is not None)
    hand = by_hand(generating.gpt(), generating.data()[:, :20], 12)
    assert gated.reference is not None
    assert gated.reference.score == pytest.approx(math.exp(float(hand.losses.double().mean())), rel=1e-5)
    assert gated.metric == "perplexity"
    assert gated.interval is not None
    assert live.generation is not None
    assert live.tokens == gated.tokens, "by its step function it is the same model"
    told = " ".join(result.stdout.str().split())
    assert f"perplexity on {len(generating.data())} examples" in told
    assert "memory and latency of batch 1, 12 tokens of prompt and 8 steps, 1 thread" in told
    assert "tokens/s" in told
    assert "cache 5 KiB at 20 tokens" in told
    assert "(of 160 positions; shown, and judged by no limit)" in told
