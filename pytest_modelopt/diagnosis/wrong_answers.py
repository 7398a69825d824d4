"""The answers are wrong, or will be elsewhere: data that proves nothing, classes and layers that are gone."""

from __future__ import annotations

import re
from statistics import NormalDist

from pytest_modelopt.diagnosis.evidence import Evidence, count, enumerated
from pytest_modelopt.limits.slices import slice_rows, worst_first
from pytest_modelopt.reporting.messages.slices import format_slice
from pytest_modelopt.results.figures import format_number, format_percentage
from pytest_modelopt.results.verdicts import Finding
from pytest_modelopt.statistics.proportions import drop_bounds

_MANY_FLIPS = 0.05
_HARDLY = 0.01
"""Of the examples: by how much a score may move that is said to have hardly moved."""
_FEW_DISTINCT = 16
_MANY_NUMBERS = 100
_MUCH = 10
"""By which factor scores have fewer values, or less spread, of which that is said."""
_STATIC = frozenset({"int8-static", "torchao-pt2e-int8", "onnxruntime-int8-static", "openvino-int8", "litert-int8"})
"""Recipes that fix the ranges of activations by calibration."""
_MANY_OUTSIDE = 0.05
_FEW_STEPS = 16
"""Part of a range from which four of the eight bits are lost."""
_RISK = 0.05
"""Of naming any class in a case in which none lost more than the limit."""


def saturation(evidence: Evidence) -> Finding | None:
    """Of engines that do not halve the range of int8 by themselves, as torch's x86 and fbgemm and other runtimes do."""
    case, changed = evidence.case, evidence.case.agreement
    if not evidence.on_cpu or not evidence.is_int8 or not evidence.lacks_int8_products or evidence.environment is None:
        return None
    if changed is None or not changed.examples or changed.flips < max(1, _MANY_FLIPS * changed.examples):
        return None
    adds = case.variant.runtime if case.variant is not None else None
    if evidence.variant.packed_modules and (evidence.variant.settings or {}).get("quantized engine") == "onednn":
        adds = "oneDNN"
    if adds not in ("ONNX Runtime", "oneDNN"):
        return None
    return Finding(
        "int8-saturation",
        f"{format_percentage(changed.flips / changed.examples)} of the predictions changed, and "
        f"{evidence.environment.cpu} has no VNNI: there {adds} adds int8 products in 16 bits, which overflow where "
        "weights use the whole range; quantize with a reduced range (`reduce_range`), and expect other answers on "
        "another processor",
        ("score", "predictions"),
    )


def calibration_thin(evidence: Evidence) -> Finding | None:
    """One and the same example, single-coloured ones, or classes that never came.

    A small number of examples is no fault in itself: one recording has hundreds of frames.
    """
    seen = evidence.variant.calibration
    if seen is None:
        return None
    texts = []
    if seen.examples == 1 and seen.looked_at > 1:
        texts.append(f"all {seen.looked_at:,} calibration examples are one and the same")
    if seen.constant and seen.constant == seen.looked_at:
        texts.append("each calibration example is one single value throughout")
    if seen.classes:
        texts.extend(_absent(seen.classes, evidence))
    if not texts:
        return None
    return Finding(
        "calibration-thin",
        f"{' and '.join(texts)}: ranges that were never seen are cut off; calibrate with a few hundred examples of "
        "every class, shuffled",
        ("score", "predictions"),
        is_note=True,
    )


def calibration_elsewhere(evidence: Evidence) -> Finding | None:
    """Calibration saw other numbers than are evaluated: the ranges that a static recipe fixes are not theirs."""
    seen, lost = evidence.variant.calibration, evidence.case.drop
    if seen is None or lost is None or lost <= 0 or _STATIC.isdisjoint(evidence.steps):
        return None
    texts = []
    for of in seen.ranges:
        (low, high), (least, most) = of.seen, of.evaluated
        if low == high:
            continue
        ranges = f"{_range(least, most)} in the evaluated data and {_range(low, high)} in calibration"
        name = f"input `{of.input}`" if len(seen.ranges) > 1 else "inputs"
        if of.outside >= _MANY_OUTSIDE * of.examples:
            texts.append(
                f"{of.outside:,} of {of.examples:,} evaluated examples have numbers far beyond what calibration saw "
                f"({name}: {ranges}), which are cut off unless the model scales each example itself"
            )
        elif (most - least) * _FEW_STEPS < high - low:
            texts.append(
                f"the evaluated data takes {format_percentage((most - least) / (high - low))} of the range that "
                f"calibration saw ({name}: {ranges}), so int8 has few steps for it"
            )
    if not texts:
        return None
    return Finding(
        "calibration-elsewhere",
        f"{' and '.join(texts)}: prepare `calibration` as `data` is prepared (scale, normalization, channels), from "
        "the same kind of examples",
        ("score", "predictions"),
        is_note=True,
    )


def _range(low: float, high: float) -> str:
    return f"{format_number(low)} to {format_number(high)}"


def _absent(classes: tuple[int, ...], evidence: Evidence) -> list[str]:
    """Which classes of the evaluation data calibration never saw, in words."""
    scored = evidence.case.slices
    if len(classes) == 1 and (evidence.variant.target_classes or 0) > 1:
        return [f"all calibration examples have the target {classes[0]}"]
    if scored is None or not scored.of_classes:
        return []
    absent = [name for name in scored.names if name not in {str(label) for label in classes}]
    return [f"no calibration example was of class {enumerated(absent, 8)}"] if absent else []


def slice_collapse(evidence: Evidence) -> Finding | None:
    """The total holds its limit, and single slices lost more than that beyond chance. `max_slice_drop` judges that."""
    changed, slices = evidence.case.agreement, evidence.case.slices
    limit = evidence.limit("max_accuracy_drop")
    if changed is None or slices is None or limit is None or evidence.limit("max_slice_drop") is not None:
        return None
    if not changed.examples or (changed.right_to_wrong - changed.wrong_to_right) / changed.examples > limit.value:
        return None
    rows = worst_first(slice_rows(slices))
    z = NormalDist().inv_cdf(1 - _RISK / max(1, len(rows)))
    lost = [
        format_slice(evidence.case, row)
        for row in rows
        if row.lost and row.won is not None and drop_bounds(row.lost, row.won, row.examples, z)[0] > limit.value
    ]
    if not lost:
        return None
    kind = "classes" if slices.of_classes else "slices"
    return Finding(
        "slice-collapse",
        f"{enumerated(lost)}, more than max_accuracy_drop {limit.text} though the total holds it: the others make up "
        f"for it; look at these {kind} before you ship, and bound them with `max_slice_drop`",
        ("score", "predictions"),
        is_note=True,
    )


def churn(evidence: Evidence) -> Finding | None:
    """The score hardly moved, and many predictions did."""
    changed = evidence.case.agreement
    if changed is None or not changed.examples or changed.flips < max(1, _MANY_FLIPS * changed.examples):
        return None
    lost, won = changed.right_to_wrong, changed.wrong_to_right
    if abs(lost - won) > min(0.2 * changed.flips, _HARDLY * changed.examples):
        return None
    told = f"{lost:,} from right to wrong, {won:,} from wrong to right"
    if evidence.case.metric == "accuracy":  # elsewhere an answer may stay right with another first prediction
        told = f"{told} and {changed.flips - lost - won:,} from one wrong answer to another"
    return Finding(
        "churn",
        f"{changed.flips:,} of {changed.examples:,} predictions changed "
        f"({format_percentage(changed.flips / changed.examples)}) though the score hardly did: {told}; `max_flips` "
        "bounds that",
        ("score", "predictions"),
        is_note=evidence.limit("max_accuracy_drop") is not None and evidence.limit("max_flips") is None,
    )


def over_pruned(evidence: Evidence) -> Finding | None:
    before, after, coverage = evidence.original.narrow_layers, evidence.variant.narrow_layers, evidence.case.coverage
    if before is None or not after or coverage is None:
        return None
    known = {layer.name for layer in coverage.layers}
    narrow = [f"{name} ({width})" for name, width in after.items() if name not in before and name in known]
    if not narrow:
        return None
    return Finding(
        "over-pruned",
        f"{count(len(narrow), 'layer has', 'layers have')} one output or head left at most: {enumerated(narrow, 8)}; "
        "all that the model knows has to pass there, so prune less, or spare them",
        ("score", "predictions"),
        is_note=True,
    )


def flattened(evidence: Evidence) -> Finding | None:
    """The right class may still come first where the scores have lost all else: ranks, thresholds, confidence."""
    before, after = evidence.original.spread, evidence.variant.spread
    if before is None or after is None or min(before.values, after.values) < _MANY_NUMBERS:
        return None
    texts = []
    if after.distinct <= _FEW_DISTINCT and after.distinct * _MUCH <= before.distinct:
        texts.append(
            f"take {count(after.distinct, 'value')} only, among {after.values:,}, and the original's "
            f"{before.distinct:,}"
        )
    elif 2 * after.extremes > after.values and 2 * before.extremes <= before.values:
        texts.append(
            f"are saturated: {format_percentage(after.extremes / after.values)} of them are the smallest or the "
            f"largest one, and {format_percentage(before.extremes / before.values)} of the original's"
        )
    if after.deviation * _MUCH <= before.deviation:
        texts.append(
            f"have lost their spread: their standard deviation is {format_number(after.deviation)}, and the original's "
            f"{format_number(before.deviation)}"
        )
    if not texts:
        return None
    return Finding(
        "scores-flattened",
        f"the variant's scores {' and '.join(texts)}: thresholds, ranks and confidences that are taken from them no "
        "longer mean what they did; leave the layer that makes them in floating point, or calibrate on other examples",
        ("score", "predictions"),
        is_note=True,
    )


def does_not_reload(evidence: Evidence) -> Finding | None:
    variant = evidence.case.variant
    if evidence.variant.reloads is not False or variant is None:
        return None
    why = next((found[1] for note in variant.notes if (found := _NOT_LOADED.match(note))), "")
    if not why:
        text = (
            "saved and loaded again in a fresh process it does not answer as before, so what is shipped is not what "
            "was measured: save the whole module and not its state_dict alone, and keep in the module all that its "
            "forward needs"
        )
    else:
        text = f"saved, it could not be loaded in a fresh process ({why}): nobody knows if it would answer as before"
        if why.startswith(("ModuleNotFoundError", "ImportError", "AttributeError")):
            text += (
                ": what its classes are defined in must be importable under the same name wherever it is loaded, from "
                "the repository or an installed package"
            )
    return Finding("does-not-reload", text, ("size", "process_memory", "timing"))


_NOT_LOADED = re.compile(
    r"saved and loaded again it is not the same model: (?!its answers differ)(.+?)(; so it was optimized anew|\Z)"
)
"""The note on a variant whose file raised an error when it was loaded."""
