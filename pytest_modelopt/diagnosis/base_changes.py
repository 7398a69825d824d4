"""Head against base: where the figures of a variant have moved since."""

from __future__ import annotations

from pytest_modelopt.diagnosis.evidence import Evidence
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
    return Finding(
        "memory-moved",
        {
            "weights_bytes": head.weights_bytes,
            "base_weights_bytes": base.weights_bytes,
            "call_peak_bytes": head.call_peak_bytes,
            "base_call_peak_bytes": base.call_peak_bytes,
        },
        ("memory",),
    )


def runtime_changed(evidence: Evidence) -> Finding | None:
    """Another library runs it now."""
    base, head = evidence.case.reference, evidence.case.variant
    if base is None or head is None or base.runtime == head.runtime:
        return None
    return Finding(
        "runtime-changed",
        {"runtime": head.runtime or "torch", "base_runtime": base.runtime or "torch"},
        ("memory", "size", "timing", "score", "predictions"),
        is_note=True,
    )
