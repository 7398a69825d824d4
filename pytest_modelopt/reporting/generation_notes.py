"""What there is to say of models that generate: the two parts of their call, their cache, and how tokens diverge."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_modelopt.limits.latency import latencies_s
from pytest_modelopt.reporting.cells import speedup_cells
from pytest_modelopt.reporting.item import Item
from pytest_modelopt.reporting.names import case_name, on_machine
from pytest_modelopt.results.case import ORIGINAL, Case
from pytest_modelopt.results.figures import format_bytes, format_number, format_time
from pytest_modelopt.results.measurement import Measurement
from pytest_modelopt.results.record import Record
from pytest_modelopt.results.timed_pairs import TimedCall, Timing


def generation_notes(record: Record) -> Iterator[Item]:
    """One for each case of such a model that was measured."""
    for case in record.cases:
        parts = [] if case.error is not None or case.generation is None else list(_parts(case, record.timed_limits))
        if parts:
            name = f"{case_name(case)}{on_machine(record, case)}"
            yield Item("info", "NOTE", f"{name}: how it generates", f"{name}: {'; '.join(parts)}")


def tokens_per_second(case: Case) -> tuple[float, float] | None:
    """New tokens a second of the original and of the variant, all sequences of the batch together."""
    timing = _timed(case, "decode")
    if timing is None or case.generation is None:
        return None
    tokens = case.batch_size * case.generation.new_tokens
    original, variant = latencies_s(timing)
    return tokens / original, tokens / variant


def first_token_latencies_s(case: Case) -> tuple[float, float] | None:
    """Of the original and of the variant: the prompt, until the first new token is known."""
    timing = _timed(case, "prefill")
    return None if timing is None else latencies_s(timing)


def _parts(case: Case, timed_limits: int) -> Iterator[str]:
    prefill, decode = _timed(case, "prefill"), _timed(case, "decode")
    first, rates = first_token_latencies_s(case), tokens_per_second(case)
    if prefill is not None and first is not None:
        yield f"first token {' -> '.join(map(format_time, first))}, {speedup_cells([prefill], timed_limits)[0]}"
    if decode is not None and rates is not None:
        yield f"{' -> '.join(map(format_number, rates))} tokens/s, {speedup_cells([decode], timed_limits)[0]}"
    if case.variant is not None and case.variant.call_memory is not None:
        yield _memory(case.variant)
    found = case.tokens.divergence if case.tokens is not None else None
    if found is not None and case.recipe != ORIGINAL:
        yield (
            f"KL from the original {format_number(found.mean)} nats on average, {format_number(found.largest)} at most "
            f"(of {found.positions:,} positions; shown, and judged by no limit)"
        )


def _memory(side: Measurement) -> str:
    memory = side.call_memory
    assert memory is not None
    text = f"cache {format_bytes(memory.cache_bytes)} at {memory.context:,} tokens"
    if memory.prefill_peak_bytes is None or memory.step_peak_bytes is None or side.weights_bytes is None:
        return text
    return (
        f"{text}, weights {format_bytes(side.weights_bytes)}, at its peak the prompt takes "
        f"{format_bytes(memory.prefill_peak_bytes)} (its cache included) and the last step "
        f"{format_bytes(memory.step_peak_bytes)} beside them"
    )


def _timed(case: Case, call: TimedCall) -> Timing | None:
    timing = case.timing_of(call)
    return timing if timing is not None and timing.pairs else None
