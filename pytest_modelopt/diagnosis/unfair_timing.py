"""The comparison is unfair: both variants do not run under the same conditions, or the figure is another one."""

from __future__ import annotations

from pytest_modelopt.diagnosis.evidence import Evidence
from pytest_modelopt.limits.derived import Derived
from pytest_modelopt.results.case import ORIGINAL
from pytest_modelopt.results.observations import Observations
from pytest_modelopt.results.verdicts import Figure, Finding, Row

_LONG_PREPARATION_S = 1.0
_MANY_CALLS = 100
"""A first call that takes that many times as long as a later one is preparation."""
_FELL = 0.1
"""Share of the size from which one may expect that the peak falls, too."""

_BESIDE_FILE = 1.25
"""Times the file's size: whoever holds more weights holds some that are not in there."""


def training_mode(evidence: Evidence) -> Finding | None:
    modules = {
        "original": evidence.original.training_modules or 0,
        "variant": evidence.variant.training_modules or 0,
    }
    sides = [side for side, number in modules.items() if number]
    if not sides:
        return None
    return Finding(
        "training-mode",
        {"sides": sides, "modules": max(modules.values())},
        ("score", "predictions", "timing", "memory"),
        is_note=True,
    )


def answers_vary(evidence: Evidence) -> Finding | None:
    case = evidence.case
    measured = (
        ("original", evidence.original.varies, case.reference),
        ("variant", evidence.variant.varies, case.variant),
    )
    sides = [name for name, varies, side in measured if varies or (side is not None and side.repeat is not None)]
    if not sides:
        return None
    return Finding("answers-vary", {"sides": sides}, ("score", "predictions"), is_note=True)


def unequal_footing(evidence: Evidence) -> Finding | None:
    """One runs compiled and the other does not, or the original carries numbers of twice the length."""
    before, after = evidence.original, evidence.variant
    others = [name for name in evidence.steps if name != "compile"]
    compiled = None
    if before.compiled and after.compiled is False and not _on_other_engine(evidence):
        compiled = "original"
    elif after.compiled and before.compiled is False and others:
        compiled = "variant"
    is_double = _mostly_double(before) and not _mostly_double(after)
    if compiled is None and not is_double:
        return None
    return Finding(
        "unequal-footing",
        {"compiled": compiled, "recipes": others, "float64": is_double},
        ("timing", "memory", "size"),
        is_note=True,
    )


def _mostly_double(seen: Observations) -> bool:
    sizes = seen.float_bytes or {}
    return sizes.get("float64", 0) > 0.5 * sum(sizes.values())


def preparation(evidence: Evidence) -> Finding | None:
    """What a process pays before the first call is as fast as the figures say."""
    latencies, variant = evidence.latencies_s, evidence.case.variant
    if latencies is None or variant is None:
        return None
    original_s, variant_s = latencies
    first_s = evidence.variant.first_call_s or 0.0
    paid_s = max(first_s, variant.seconds.get("optimize", 0.0)) if evidence.variant.compiled else first_s
    if paid_s < _LONG_PREPARATION_S or paid_s < _MANY_CALLS * variant_s:
        return None
    return Finding(
        "preparation",
        {"preparation_s": paid_s, "original_s": original_s, "variant_s": variant_s},
        ("timing",),
        is_note=True,
    )


def compiled_while_timed(evidence: Evidence) -> Finding | None:
    timing = evidence.case.timing
    if timing is None:
        return None
    original, variant = timing.conditions.reference.compilations, timing.conditions.variant.compilations
    if not original and not variant:
        return None
    return Finding(
        "compiled-while-timed",
        {"original": original, "variant": variant},
        ("timing",),
        is_note=True,
    )


def fell_back_to_cpu(evidence: Evidence) -> Finding | None:
    """A session asked for a GPU, an NPU or the like, and the CPU runs it: what is measured is not what ships."""
    sides = [("original", evidence.original)]
    if evidence.case.base is not None or evidence.case.recipe != ORIGINAL:
        sides.append(("variant", evidence.variant))
    found: list[Row] = [
        {"side": side, "runtime": each.runtime, "asked": [*each.accelerators], "got": [*each.got]}
        for side, seen in sides
        for each in seen.sessions or ()
        if each.fell_back
    ]
    if not found:
        return None
    explained: tuple[Figure, ...] = ("timing", "loading", "prefill", "decode", "memory", "process_memory")
    return Finding("fell-back-to-cpu", {"sessions": found}, (*explained, "cache", "score", "predictions"), is_note=True)


def settings_changed(evidence: Evidence) -> Finding | None:
    before, after = evidence.original.settings, evidence.variant.settings
    if before is None or after is None:
        return None
    changed: list[Row] = [
        {"name": name, "original": before.get(name), "variant": after.get(name)}
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]
    if not changed:
        return None
    return Finding(
        "settings-changed",
        {"settings": changed},
        ("timing", "score", "predictions"),
        is_note=True,
    )


def threads_beyond_cores(evidence: Evidence) -> Finding | None:
    timing = evidence.case.timing
    if timing is None or timing.threads <= timing.conditions.cores:
        return None
    return Finding(
        "threads-beyond-cores",
        {"threads": timing.threads, "cores": timing.conditions.cores},
        ("timing",),
        is_note=True,
    )


def size_is_not_peak(evidence: Evidence) -> Finding | None:
    """The file became smaller and the peak of a call hardly did."""
    case, before, after = evidence.case, evidence.case.reference, evidence.case.variant
    if case.foreign_runtimes or before is None or after is None or not after.memory_bytes or not after.size_bytes:
        return None
    size_fell, memory_fell = Derived(case).size_reduction, Derived(case).memory_reduction
    if size_fell is None or memory_fell is None or size_fell < _FELL or memory_fell > size_fell / 2:
        return None
    assert before.weights_bytes is not None
    assert before.size_bytes is not None
    assert before.call_peak_bytes is not None
    assert after.call_peak_bytes is not None
    assert after.weights_bytes is not None
    if after.call_peak_bytes >= 0.5 * after.memory_bytes:
        cause = "call" if after.call_peak_bytes <= before.call_peak_bytes else "larger call"
    elif after.weights_bytes <= _BESIDE_FILE * after.size_bytes:
        return None
    else:
        cause = "copy" if before.weights_bytes <= _BESIDE_FILE * before.size_bytes else "not saved"
    return Finding(
        "size-is-not-peak",
        {
            "cause": cause,
            "size_reduction": size_fell,
            "memory_reduction": memory_fell,
            "call_peak_bytes": after.call_peak_bytes,
            "weights_bytes": after.weights_bytes,
            "size_bytes": after.size_bytes,
            "original_call_peak_bytes": before.call_peak_bytes,
            "original_weights_bytes": before.weights_bytes,
            "original_size_bytes": before.size_bytes,
        },
        ("memory",),
    )


def int8_without_instructions(evidence: Evidence) -> Finding | None:
    if not evidence.is_int8 or not evidence.on_cpu or not evidence.lacks_int8_products or evidence.environment is None:
        return None
    return Finding("int8-without-vnni", {"cpu": evidence.environment.cpu}, ("timing",))


def fused_path(evidence: Evidence) -> Finding | None:
    before, after, case = evidence.original.fused_layers, evidence.variant.fused_layers, evidence.case
    if not before or after is None or after >= before or evidence.variant.compiled is not False:
        return None
    notes = [note for step in (case.coverage.steps if case.coverage else ()) for note in step.notes]
    if _on_other_engine(evidence) or any("fused eval path" in note for note in notes):
        return None  # another engine has kernels of its own; a recipe that knows of it has said it
    return Finding("fused-path", {"original": before, "variant": after}, ("timing", "memory"))


def _on_other_engine(evidence: Evidence) -> bool:
    return any(side is not None and side.runtime for side in (evidence.case.reference, evidence.case.variant))
