"""Timed figures of a case that imply each other, as `contradictions` tells those of any case."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import fmean

from pytest_modelopt.results.case import MeasuredCase
from pytest_modelopt.results.timed_pairs import FURTHEST, LARGE_BYTES, PHASES, EarlierRuns, TimedPair, Timing

_EXPLAINED = 0.01
"""Squared deviation of a run, as a logarithm, that its own pairs may explain: it is taken off the squares."""
_APART = 3
"""How many times as long as another one something must have taken, the fastest time of the one and the slowest of the
other, where it cannot have: they are taken in turns, so no state of the machine does that."""


def disagreements(case: MeasuredCase) -> Iterator[str]:
    """Each as a sentence."""
    for name, timing in case.timings.items():
        yield from _of_timing(case, name, timing)
    for side in ("reference", "variant"):
        yield from _of_parts(case, side)


def _of_parts(case: MeasuredCase, side: str) -> Iterator[str]:
    """A call takes as long as its parts together, and a process that loads also makes a whole call."""
    found = {name: [getattr(pair, f"{side}_ns") for pair in each.pairs] for name, each in case.timings.items()}
    least, most = ({name: end(times) for name, times in found.items() if times} for end in (min, max))
    if "timing" not in least:
        return
    shortest, longest = least["timing"], most["timing"]
    parts = [name for name in least if name.startswith("phases.")]
    together = sum(least[name] for name in parts)
    call = f"timing: one call of the {side} takes"
    if together > _APART * longest:
        yield f"{call} {longest} ns at most, and {' and '.join(parts)} take {together} at least"
    together = sum(most[name] for name in parts)
    if len(parts) == len(PHASES) and shortest > _APART * together:
        yield f"{call} {shortest} ns at least, and {' and '.join(parts)} take {together} at most"
    if "loading" in most and shortest > _APART * most["loading"]:
        yield f"{call} {shortest} ns at least, and loading with one call takes {most['loading']} at most"


def _of_timing(case: MeasuredCase, name: str, timing: Timing) -> Iterator[str]:
    best = timing.conditions.canary_at_best_ns
    if best is not None and best < 1:
        yield f"{name}.conditions.canary_at_best_ns is {best}: no work takes less than 1"
    if timing.threads < 1 or case.threads not in (None, timing.threads):
        yield f"{name}.threads is {timing.threads}, and threads {case.threads}"
    if min(timing.seconds, timing.prepare_s) < 0 or (timing.pairs and timing.pairs[-1].at_ms > 1000 * timing.seconds):
        yield f"{name}.seconds is {timing.seconds:.10g}, which its pairs do not fit into"
    weights = [side.weights_bytes or 0 for side in (case.reference, case.variant) if side is not None]
    # Saved and loaded again, a model may hold a little less.
    if name != "loading" and not timing.conditions.are_large and max(weights, default=0) > 2 * LARGE_BYTES:
        yield f"{name}.conditions.are_large is false, and a side holds {max(weights)} bytes of weights"
    moments = [moment for span in timing.conditions.held_ms for moment in span]
    if moments != sorted(moments) or (moments and moments[0] < 0):
        yield f"{name}.conditions.held_ms are {timing.conditions.held_ms}, which do not follow each other"
    if timing.earlier is not None:
        yield from _of_earlier_runs(name, timing.earlier)
    for index, pair in enumerate(timing.pairs):
        yield from _of_pair(f"{name}.pairs", index, pair)
        if name == "loading" and (pair.reference_calls, pair.variant_calls) != (1, 1):
            yield f"loading.pairs holds {pair.variant_calls} calls at {index}: a process gives its first answer once"
    calls = [call for of_pair in timing.variant_calls_ns for call in of_pair]
    if not calls:
        return
    least = min(pair.variant_ns for pair in timing.pairs) if timing.pairs else 0
    if 2 * fmean(calls) < least:  # the same calls, right after those of the block
        yield f"{name}.variant_calls_ns takes {fmean(calls):.0f} on average, and no pair's call less than {least}"


def _of_earlier_runs(name: str, earlier: EarlierRuns) -> Iterator[str]:
    """The same programs were timed at least twice, and no two times differ by more than any times do."""
    runs, freedom, squares = earlier.runs, earlier.freedom, (earlier.speedup, earlier.latency, earlier.original)
    is_counted, most = 1 <= freedom < runs <= 2 * freedom and 0 <= earlier.own <= runs, runs * FURTHEST**2
    if not (is_counted and 0 <= min(squares) <= max(squares) <= most):
        told = ", ".join(f"{each:.10g}" for each in squares)
        yield (
            f"{name}.earlier has {runs} runs, {freedom} of them independent, {earlier.own} of these programs, and "
            f"squares of {told}"
        )
        return
    together = (earlier.speedup_with_original, earlier.latency_with_original)
    own_squares = math.sqrt((earlier.original + runs * _EXPLAINED) * (max(squares) + runs * _EXPLAINED))
    if max(map(abs, together)) > own_squares or abs(sum(together) - earlier.original) > runs * _EXPLAINED:
        yield (
            f"{name}.earlier has products of {together[0]:.10g} and {together[1]:.10g} with the original, whose "
            f"squares are {earlier.original:.10g}: a speedup is the original's time less the variant's"
        )
    for key, unit in (("fastest_s", 1.0), ("canary_at_fastest_ns", 1e9)):
        value = getattr(earlier, key)
        if value is not None and not (earlier.own and value > 0 and abs(math.log(value / unit)) <= FURTHEST):
            yield f"{name}.earlier.{key} is {value:.10g}, with {earlier.own} runs of these programs"


def _of_pair(path: str, index: int, pair: TimedPair) -> Iterator[str]:
    """A call's time is what the block took, without what others took of it, divided by the calls."""
    for side in ("reference", "variant"):
        call, calls, block, delayed = (
            getattr(pair, f"{side}_{what}") for what in ("ns", "calls", "block_ns", "delayed_ns")
        )
        if delayed > block or abs(call * calls - (block - delayed)) > calls:
            yield (
                f"{path}.{side}_ns[{index}] is {call}, but {calls} calls took {block} ns, of which others had {delayed}"
            )
