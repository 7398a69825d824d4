"""Head against base: where the figures of a variant have moved since."""

from __future__ import annotations

from pytest_modelopt.diagnosis.evidence import Evidence
from pytest_modelopt.results.figures import format_bytes
from pytest_modelopt.results.verdicts import Finding


def memory_moved(evidence: Evidence) -> Finding | None:
    """Which part of the peak has grown: what the model holds, or what a call of it needs."""
    base, head = evidence.case.reference, evidence.case.variant
    if base is None or head is None or evidence.case.foreign_runtimes:
        return None
    if base.weights_bytes is None or base.call_peak_bytes is None:
        return None
    if head.weights_bytes is None or head.call_peak_bytes is None or head.memory_bytes == base.memory_bytes:
        return None
    parts = (
        ("its weights", base.weights_bytes, head.weights_bytes),
        ("what a call needs beside them", base.call_peak_bytes, head.call_peak_bytes),
    )
    moved = [
        f"{what} went from {format_bytes(then)} to {format_bytes(now)}" for what, then, now in parts if then != now
    ]
    same = [f"{what} did not change" for what, then, now in parts if then == now]
    return Finding("memory-moved", f"of its memory {', '.join([*moved, *same])}", ("memory",))


def runtime_changed(evidence: Evidence) -> Finding | None:
    """Another library runs it now."""
    base, head = evidence.case.reference, evidence.case.variant
    if base is None or head is None or base.runtime == head.runtime:
        return None
    then, now = base.runtime or "torch", head.runtime or "torch"
    text = f"it runs on {now} now and ran on {then} at the base, so every figure may be another"
    return Finding("runtime-changed", text, ("memory", "size", "timing", "score", "predictions"), is_note=True)
