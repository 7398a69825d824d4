"""What made the file or the peak larger: tensors, layers, parts of a graph, by name."""

from __future__ import annotations

from pytest_modelopt.diagnosis.evidence import Evidence, count, enumerated
from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.results.figures import format_bytes
from pytest_modelopt.results.measurement import Measurement
from pytest_modelopt.results.observations import Makeup
from pytest_modelopt.results.verdicts import Finding

_GREW = 0.01
_PART = 0.1
"""Share of what was added from which a part of it is told."""


def memory_in_layer(evidence: Evidence) -> Finding | None:
    """In which layer's call the variant's memory reaches its peak, and what the model holds more."""
    found = _looked_into(evidence)
    if found is None or evidence.case.foreign_runtimes:
        return None
    then, now, before, after = found
    if then.memory_bytes is None or now.memory_bytes is None:
        return None
    if now.memory_bytes <= then.memory_bytes and not _breaks_memory(evidence):
        return None
    assert then.call_peak_bytes is not None
    assert now.call_peak_bytes is not None
    assert then.weights_bytes is not None
    assert now.weights_bytes is not None
    texts = []
    held = _added(before.tensors, after.tensors) if now.weights_bytes > then.weights_bytes else ""
    if held:
        texts.append(
            f"the model holds {format_bytes(now.weights_bytes)} and the {_other(evidence)} "
            f"{format_bytes(then.weights_bytes)}: {held}"
        )
    if after.peak_in and (now.call_peak_bytes > then.call_peak_bytes or not texts):
        other = f", the {_other(evidence)}'s of {format_bytes(then.call_peak_bytes)} in {before.peak_in}"
        texts.append(
            f"its peak of {format_bytes(now.call_peak_bytes)} in a call is reached in {after.peak_in}, which takes "
            f"{format_bytes(after.peak_own_bytes)} of it itself{other if before.peak_in else ''}"
        )
    return Finding("memory-in-layer", "; ".join(texts), ("memory",)) if texts else None


def size_in_file(evidence: Evidence) -> Finding | None:
    """Which parts of the variant's file are new or larger."""
    found = _looked_into(evidence)
    if found is None:
        return None
    then, now, before, after = found
    if then.size_bytes is None or now.size_bytes is None or now.size_bytes <= (1 + _GREW) * then.size_bytes:
        return None
    more = after.other_bytes - before.other_bytes
    added = sum(after.tensors.values()) - sum(before.tensors.values())
    texts = [_added(before.tensors, after.tensors)] if added > 0 and added >= _PART * more else []
    if more > 0 and more >= _PART * added:
        texts.append(
            f"what is no tensor in it (structure, code, settings) takes {format_bytes(after.other_bytes)}, and "
            f"{format_bytes(before.other_bytes)} in the {_other(evidence)}'s{_graph(after)}"
        )
    if not texts:
        return None
    return Finding("size-in-file", f"of the saved file {'; '.join(texts)}", ("size",))


def _looked_into(evidence: Evidence) -> tuple[Measurement, Measurement, Makeup, Makeup] | None:
    then, now = evidence.case.reference, evidence.case.variant
    before, after = evidence.original.makeup, evidence.variant.makeup
    if then is None or now is None or before is None or after is None:
        return None
    return then, now, before, after


def _breaks_memory(evidence: Evidence) -> bool:
    broken = [each.limit.name for each in evidence.case.verdicts if each.outcome in ("fail", "waived")]
    return any(LIMITS[name].figure == "memory" for name in broken if name in LIMITS)


def _other(evidence: Evidence) -> str:
    return "original" if evidence.case.base is None else "base"


def _larger(before: dict[str, int], after: dict[str, int]) -> list[tuple[str, int]]:
    """(name, bytes more), the largest first."""
    grown = [(name, size - before.get(name, 0)) for name, size in after.items() if size > before.get(name, 0)]
    return sorted(grown, key=lambda each: (-each[1], each[0]))


def _added(before: dict[str, int], after: dict[str, int]) -> str:
    """Tensors that are new or larger, and those that they take the place of."""
    grown = _larger(before, after)
    if not grown:
        return ""
    least = _PART * grown[0][1]
    shown = [f"`{name}` (+{format_bytes(size)})" for name, size in grown if size >= least]
    smaller = {name: size - after.get(name, 0) for name, size in before.items() if after.get(name, 0) < size}
    text = f"{enumerated(shown)} {'is' if len(shown) == 1 else 'are'} new or larger"
    if smaller:
        less = format_bytes(sum(smaller.values()))
        text += f", {count(len(smaller), 'tensor')} ({less} in all) gone or smaller"
    return text


def _graph(seen: Makeup) -> str:
    """How many operations its graph has, and of which layer most of them are."""
    total = sum(seen.operations.values())
    if not total:
        return ""
    most = max(seen.operations, key=lambda name: seen.operations[name])
    of_most = f", {seen.operations[most]:,} of them of {most}" if most else ""
    return f": a graph of {count(total, 'operation')}{of_most}"
