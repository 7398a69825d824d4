"""Figures of a model that generates that imply each other, as `contradictions` tells those of any case."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_modelopt.results.case import MeasuredCase
from pytest_modelopt.results.generation import CallMemory, Generation, TokenAgreement
from pytest_modelopt.results.measurement import Measurement
from pytest_modelopt.results.timed_pairs import PHASES

_APART = 2
"""By which factor the peak of a part may be above that of the whole call, which was another one."""


def disagreements(case: MeasuredCase) -> Iterator[str]:
    """Each as a sentence."""
    generation = case.generation
    sides: dict[str, Measurement | None] = {"reference": case.reference, "variant": case.variant}
    of_sides = {name: side for name, side in sides.items() if side is not None}
    memories = {name: side.call_memory for name, side in of_sides.items() if side.call_memory}
    if generation is None:
        if case.phases or case.tokens is not None or memories:
            yield "generation is null, but phases, tokens or call_memory hold figures of a model that generates"
        return
    if min(generation.new_tokens, generation.prompt) < 1:
        yield f"generation has {generation.prompt} tokens of prompt and {generation.new_tokens} new ones: at least 1"
    for phase in case.phases:
        if phase not in PHASES:
            yield f"phases holds {phase}, which is no part of a call"
    for name, memory in memories.items():
        yield from _of_memory(case, f"{name}.call_memory", memory, of_sides[name].call_peak_bytes, generation)
    if case.agreement is not None:
        yield "generation is there, and agreement counts single predictions"
    if case.tokens is not None:
        yield from _of_tokens(case.tokens, generation)
        for name, side in of_sides.items():
            if side.examples != case.tokens.sequences:
                yield f"tokens.sequences is {case.tokens.sequences}, and {name}.examples {side.examples}"


def _of_memory(
    case: MeasuredCase, path: str, memory: CallMemory, whole: int | None, generation: Generation
) -> Iterator[str]:
    """`whole`: the peak of the call."""
    if memory.context != generation.context or memory.sequences != case.batch_size:
        yield (
            f"{path} is of {memory.sequences} sequences of {memory.context} tokens, and the call has {case.batch_size} "
            f"of {generation.context}"
        )
    if min(memory.cache_bytes, memory.prefill_peak_bytes or 0, memory.step_peak_bytes or 0) < 0:
        yield f"{path}: nothing has fewer bytes than 0"
    peaks = [peak for peak in (memory.prefill_peak_bytes, memory.step_peak_bytes) if peak is not None]
    if whole is not None and peaks and max(peaks) > _APART * whole:
        yield f"{path}: a part of the call has a peak of {max(peaks)} bytes, and the whole call one of {whole}"


def _of_tokens(tokens: TokenAgreement, generation: Generation) -> Iterator[str]:
    sequences, positions, flips, squares = tokens.sequences, tokens.positions, tokens.flips, tokens.squares
    if sequences < 1 or positions != generation.new_tokens or not 0 <= flips <= sequences * positions:
        yield (
            f"tokens counts {flips} flips in {sequences} sequences of {positions}, and generation.new_tokens is "
            f"{generation.new_tokens}"
        )
    elif not flips <= squares <= flips * positions or squares * sequences < flips * flips:
        yield f"tokens.squares is {squares}, which {flips} flips in {sequences} sequences of {positions} cannot have"
    found = tokens.divergence
    if found is not None and not (
        0 <= found.mean <= found.largest * (1 + 1e-9) and 1 <= found.positions <= sequences * positions
    ):
        yield (
            f"tokens.divergence has the mean {found.mean:.6g} and the largest {found.largest:.6g} of {found.positions} "
            "positions"
        )
