"""What made the file or the peak larger: tensors, layers, parts of a graph, by name."""

from __future__ import annotations

from pytest_modelopt.diagnosis.evidence import Evidence
from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.results.measurement import Measurement
from pytest_modelopt.results.observations import Makeup
from pytest_modelopt.results.verdicts import Detail, Finding, Row

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
    seen: dict[str, Detail] = {}
    added = _added(before.tensors, after.tensors) if now.weights_bytes > then.weights_bytes else {}
    if added:
        seen = {"weights_bytes": now.weights_bytes, "other_weights_bytes": then.weights_bytes, **added}
    if after.peak_in and (now.call_peak_bytes > then.call_peak_bytes or not added):
        seen |= {
            "peak_in": after.peak_in,
            "peak_own_bytes": after.peak_own_bytes,
            "call_peak_bytes": now.call_peak_bytes,
            "other_peak_in": before.peak_in,
            "other_call_peak_bytes": then.call_peak_bytes,
        }
    return Finding("memory-in-layer", seen, ("memory",)) if seen else None


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
    seen = _added(before.tensors, after.tensors) if added > 0 and added >= _PART * more else {}
    if more > 0 and more >= _PART * added:
        seen |= {"no_tensor_bytes": after.other_bytes, "other_no_tensor_bytes": before.other_bytes, **_graph(after)}
    return Finding("size-in-file", seen, ("size",)) if seen else None


def _looked_into(evidence: Evidence) -> tuple[Measurement, Measurement, Makeup, Makeup] | None:
    then, now = evidence.case.reference, evidence.case.variant
    before, after = evidence.original.makeup, evidence.variant.makeup
    if then is None or now is None or before is None or after is None:
        return None
    return then, now, before, after


def _breaks_memory(evidence: Evidence) -> bool:
    broken = [each.limit.name for each in evidence.case.verdicts if each.outcome in ("fail", "waived")]
    return any(LIMITS[name].figure == "memory" for name in broken if name in LIMITS)


def _larger(before: dict[str, int], after: dict[str, int]) -> list[tuple[str, int]]:
    """(name, bytes more), the largest first."""
    grown = [(name, size - before.get(name, 0)) for name, size in after.items() if size > before.get(name, 0)]
    return sorted(grown, key=lambda each: (-each[1], each[0]))


def _added(before: dict[str, int], after: dict[str, int]) -> dict[str, Detail]:
    """Tensors that are new or larger, and those that they take the place of."""
    grown = _larger(before, after)
    if not grown:
        return {}
    least = _PART * grown[0][1]
    larger: list[Row] = [{"name": name, "more_bytes": size} for name, size in grown if size >= least]
    fewer = [size - after.get(name, 0) for name, size in before.items() if after.get(name, 0) < size]
    return {"larger": larger, "smaller": len(fewer), "smaller_bytes": sum(fewer)}


def _graph(seen: Makeup) -> dict[str, Detail]:
    """How many operations its graph has, and of which layer most of them are."""
    total = sum(seen.operations.values())
    if not total:
        return {}
    most = max(seen.operations, key=lambda name: seen.operations[name])
    return {"operations": total, "most_in": most, "operations_in_most": seen.operations[most]}
