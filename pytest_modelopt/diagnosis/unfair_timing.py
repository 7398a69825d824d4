"""The comparison is unfair: both variants do not run under the same conditions, or the figure is another one."""

from __future__ import annotations

from collections.abc import Callable

from pytest_modelopt.diagnosis.evidence import Evidence, count, enumerated
from pytest_modelopt.results.answers import Repeat
from pytest_modelopt.results.figures import format_bytes, format_number, format_percentage, format_time
from pytest_modelopt.results.measurement import Measurement
from pytest_modelopt.results.observations import Observations
from pytest_modelopt.results.verdicts import Finding

_LONG_PREPARATION_S = 1.0
_MANY_CALLS = 100
"""A first call that takes that many times as long as a later one is preparation."""
_FELL = 0.1
"""Share of the size from which one may expect that the peak falls, too."""

_BESIDE_FILE = 1.25
"""Times the file's size: whoever holds more weights holds some that are not in there."""


def training_mode(evidence: Evidence) -> Finding | None:
    sides = _sides(evidence, lambda seen: bool(seen.training_modules))
    if not sides:
        return None
    most = max(evidence.original.training_modules or 0, evidence.variant.training_modules or 0)
    return Finding(
        "training-mode",
        f"{count(most, 'module')} of the {sides} stayed in training mode though `eval()` was called: dropout is random "
        "there and batch norm follows each batch; look for a `train()` in a forward, or for one that ignores its mode",
        ("score", "predictions", "timing", "memory"),
        is_note=True,
    )


def answers_vary(evidence: Evidence) -> Finding | None:
    measured = {"original": evidence.case.reference, "variant": evidence.case.variant}
    repeats = {side: of.repeat for side, of in measured.items() if of is not None and of.repeat is not None}
    seen = {"original": evidence.original.varies, "variant": evidence.variant.varies}
    sides = [side for side in seen if seen[side] or side in repeats]
    if not sides:
        return None
    text = (
        f"the {' and the '.join(sides)} answered the same inputs differently in two calls: something in its forward is "
        "random (dropout without `training=self.training`, sampling, noise) or is kept from call to call, so scores "
        "and flips are partly chance"
    )
    told = [_own_changes(side, measured[side], repeat) for side, repeat in repeats.items()]
    if told:
        text += f": in a second pass over the same examples {' and '.join(told)}"
    return Finding("answers-vary", text, ("score", "predictions"), is_note=True)


def _own_changes(side: str, first: Measurement | None, repeat: Repeat) -> str:
    """By how much a variant differs from itself; the scores where its metric knows no predictions."""
    if repeat.flips is not None:
        share = format_percentage(repeat.flips / max(1, repeat.examples))
        return f"{repeat.flips:,} of {repeat.examples:,} predictions of the {side} changed ({share})"
    if first is None or first.score is None or repeat.score is None:
        return f"the {side} has no score to compare"
    return f"the {side} scored {format_number(repeat.score, digits=4)} after {format_number(first.score, digits=4)}"


def unequal_footing(evidence: Evidence) -> Finding | None:
    """One runs compiled and the other does not, or the original carries numbers of twice the length."""
    before, after, texts = evidence.original, evidence.variant, []
    if before.compiled and after.compiled is False and not _on_other_engine(evidence):
        texts.append(
            "the original is compiled and the variant runs step by step, so the recipe is charged with what compiling "
            "gains: compile neither, or add the step `compile` to the recipe"
        )
    others = [name for name in evidence.steps if name != "compile"]
    if after.compiled and before.compiled is False and others:
        texts.append(
            "the variant is compiled and the original runs step by step, so the speedup is that of both together: "
            f"measure the recipe `compile` alone, too, to see what {enumerated(others)} gains"
        )
    if _mostly_double(before) and not _mostly_double(after):
        texts.append(
            "the original holds float64 weights, which a program would not ship: part of the gain is that of "
            "`model.float()`; compare with that"
        )
    if not texts:
        return None
    return Finding("unequal-footing", "; ".join(texts), ("timing", "memory", "size"), is_note=True)


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
    text = "latency is that of a warm process: before it, making and first calling the variant took "
    text += _time(paid_s)
    if original_s > variant_s:
        calls = paid_s / (original_s - variant_s)
        text += f", which pays off after {format_number(calls, digits=2)} calls of one process"
    else:
        text += ", which a variant that is no faster never pays back"
    return Finding("preparation", text, ("timing",), is_note=True)


def _time(seconds: float) -> str:
    return format_time(seconds, digits=2)


def compiled_while_timed(evidence: Evidence) -> Finding | None:
    timing = evidence.case.timing
    if timing is None:
        return None
    uses = {"original": timing.conditions.reference.compilations, "variant": timing.conditions.variant.compilations}
    told = [f"{count(number, 'graph')} of the {side}" for side, number in uses.items() if number]
    if not told:
        return None
    return Finding(
        "compiled-while-timed",
        f"torch.compile made {enumerated(told)} while blocks were timed, after the warm-up: something that it guards "
        "on changes from call to call (a shape, a Python number, the mode of gradients); mark it dynamic or keep it "
        "fixed",
        ("timing",),
        is_note=True,
    )


def settings_changed(evidence: Evidence) -> Finding | None:
    before, after = evidence.original.settings, evidence.variant.settings
    if before is None or after is None:
        return None
    changed = [
        f"{name} {before.get(name, 'default')} -> {after.get(name, 'default')}"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]
    if not changed:
        return None
    return Finding(
        "settings-changed",
        f"the recipe changed settings of its whole process ({', '.join(changed)}): here each variant has a process of "
        "its own, but a program that loads the variant must set them itself, and they hold for everything else in it",
        ("timing", "score", "predictions"),
        is_note=True,
    )


def threads_beyond_cores(evidence: Evidence) -> Finding | None:
    timing = evidence.case.timing
    if timing is None or timing.threads <= timing.conditions.cores:
        return None
    return Finding(
        "threads-beyond-cores",
        f"it was timed with {timing.threads} threads on {count(timing.conditions.cores, 'core')}: they wait for each "
        "other, and such latencies say nothing about a machine that has the cores; set `threads` to at most "
        f"{timing.conditions.cores}",
        ("timing",),
        is_note=True,
    )


def size_is_not_peak(evidence: Evidence) -> Finding | None:
    """The file became smaller and the peak of a call hardly did."""
    case, before, after = evidence.case, evidence.case.reference, evidence.case.variant
    if case.foreign_runtimes or before is None or after is None:
        return None
    if not before.size_bytes or after.size_bytes is None or not before.memory_bytes or not after.memory_bytes:
        return None
    size_fell = 1 - after.size_bytes / before.size_bytes
    memory_fell = 1 - after.memory_bytes / before.memory_bytes
    if size_fell < _FELL or memory_fell > size_fell / 2:
        return None
    assert after.call_peak_bytes is not None
    assert after.weights_bytes is not None
    of_the_call = after.call_peak_bytes / after.memory_bytes
    if of_the_call >= 0.5:
        why = (
            f"{format_percentage(of_the_call)} of the variant's peak ({format_bytes(after.call_peak_bytes)}) are "
            "activations and scratch memory of the call, which smaller weights leave as they are; a smaller batch or "
            "input, or a recipe that changes activations, lowers it"
        )
    elif after.weights_bytes > _BESIDE_FILE * after.size_bytes:
        why = _kept_beside_file(before, after)
    else:
        return None
    fell = f"by {format_percentage(memory_fell)} only" if memory_fell > 0 else "not at all"
    return Finding(
        "size-is-not-peak",
        f"the saved size fell by {format_percentage(size_fell)} and peak memory {fell}: {why}",
        ("memory",),
    )


def _kept_beside_file(before: Measurement, after: Measurement) -> str:
    assert after.weights_bytes is not None
    assert after.size_bytes is not None
    kept, saved = format_bytes(after.weights_bytes), format_bytes(after.size_bytes)
    if before.weights_bytes is None or before.size_bytes is None:
        return f"in memory it keeps {kept} of weights though {saved} are saved"
    if before.weights_bytes <= _BESIDE_FILE * before.size_bytes:
        return (
            f"in memory it keeps {kept} of weights though {saved} are saved: a second copy is alive, packed or unpacked"
        )
    return (
        f"both hold numbers outside of what is saved, the variant {kept} beside a file of {saved}, the original "
        f"{format_bytes(before.weights_bytes)} beside {format_bytes(before.size_bytes)}: tables, caches or "
        "buffers that are not saved"
    )


def int8_without_instructions(evidence: Evidence) -> Finding | None:
    if not evidence.is_int8 or not evidence.on_cpu or not evidence.lacks_int8_products or evidence.environment is None:
        return None
    return Finding(
        "int8-without-vnni",
        f"{evidence.environment.cpu} has no instruction for int8 products (VNNI or AMX): each takes several, so int8 "
        "gains less here than on newer processors, or nothing; judge speed on the kind of machine that will run it",
        ("timing",),
    )


def fused_path(evidence: Evidence) -> Finding | None:
    before, after, case = evidence.original.fused_layers, evidence.variant.fused_layers, evidence.case
    if not before or after is None or after >= before or evidence.variant.compiled is not False:
        return None
    notes = [note for step in (case.coverage.steps if case.coverage else ()) for note in step.notes]
    if _on_other_engine(evidence) or any("fused eval path" in note for note in notes):
        return None  # another engine has kernels of its own; a recipe that knows of it has said it
    return Finding(
        "fused-path",
        f"the original runs {count(before, 'TransformerEncoderLayer')} through torch's fused path for eval mode and "
        f"the variant {after or 'none'}: part of what the recipe gains is lost there",
        ("timing", "memory"),
    )


def _on_other_engine(evidence: Evidence) -> bool:
    return any(side is not None and side.runtime for side in (evidence.case.reference, evidence.case.variant))


def _sides(evidence: Evidence, has_it: Callable[[Observations], bool]) -> str:
    """'original', 'variant', both, or ''."""
    found = [name for name in ("original", "variant") if has_it(getattr(evidence, name))]
    return " and the ".join(found)
