"""The answers are wrong, or will be elsewhere: data that proves nothing, classes and layers that are gone."""

from __future__ import annotations

from statistics import NormalDist

from pytest_modelopt.diagnosis.evidence import Evidence
from pytest_modelopt.limits.slices import slice_rows
from pytest_modelopt.results.verdicts import Finding, Row
from pytest_modelopt.statistics.proportions import drop_bounds

_MANY_FLIPS = 0.05
_HARDLY = 0.01
"""Of the examples: by how much a score may move that is said to have hardly moved."""
_FEW_DISTINCT = 16
_MANY_NUMBERS = 100
_MUCH = 10
"""By which factor scores have fewer values, or less spread, of which that is said."""
_MANY_OUTSIDE = 0.05
_FEW_STEPS = 16
"""Part of a range from which four of the eight bits are lost."""
_ZEROES_ONLY = ("prune-unstructured", "sparse-2:4")
"""Recipes that prune and have no `finetune` of their own."""
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
        {"flips": changed.flips, "examples": changed.examples, "cpu": evidence.environment.cpu, "runtime": adds},
        ("score", "predictions"),
    )


def calibration_thin(evidence: Evidence) -> Finding | None:
    """One and the same example, single-coloured ones, or classes that never came.

    A small number of examples is no fault in itself: one recording has hundreds of frames.
    """
    seen = evidence.variant.calibration
    if seen is None:
        return None
    is_same = seen.examples == 1 and seen.looked_at > 1
    is_constant = bool(seen.constant) and seen.constant == seen.looked_at
    classes = seen.classes or ()
    is_one_class = len(classes) == 1 and (evidence.variant.target_classes or 0) > 1
    absent = [] if is_one_class else _absent(classes, evidence)
    if not (is_same or is_constant or is_one_class or absent):
        return None
    return Finding(
        "calibration-thin",
        {
            "examples": seen.looked_at,
            "same": is_same,
            "constant": is_constant,
            "only_class": classes[0] if is_one_class else None,
            "absent_classes": absent,
        },
        ("score", "predictions"),
        is_note=True,
    )


def calibration_elsewhere(evidence: Evidence) -> Finding | None:
    """Calibration saw other numbers than are evaluated: the ranges that a static recipe fixes are not theirs."""
    seen, lost = evidence.variant.calibration, evidence.case.drop
    fixes_ranges = any(
        recipe.multiplies_int8 and recipe.calibrates and not getattr(recipe, "finetune", "")
        for recipe in evidence.recipes
    )
    if seen is None or lost is None or lost <= 0 or not fixes_ranges:
        return None
    inputs: list[Row] = []
    for of in seen.ranges:
        (low, high), (least, most) = of.seen, of.evaluated
        is_beyond = of.outside >= _MANY_OUTSIDE * of.examples
        if low == high or not (is_beyond or (most - least) * _FEW_STEPS < high - low):
            continue
        inputs.append(
            {
                "input": of.input if len(seen.ranges) > 1 else None,
                "beyond": is_beyond,
                "outside": of.outside,
                "examples": of.examples,
                "seen_low": low,
                "seen_high": high,
                "evaluated_low": least,
                "evaluated_high": most,
            }
        )
    if not inputs:
        return None
    return Finding(
        "calibration-elsewhere",
        {"inputs": inputs},
        ("score", "predictions"),
        is_note=True,
    )


def _absent(classes: tuple[int, ...], evidence: Evidence) -> list[str]:
    """Classes of the evaluation data that calibration never saw."""
    scored = evidence.case.slices
    if not classes or scored is None or not scored.of_classes:
        return []
    return [name for name in scored.names if name not in {str(label) for label in classes}]


def slice_collapse(evidence: Evidence) -> Finding | None:
    """The total holds its limit, and single slices lost more than that beyond chance. `max_slice_drop` judges that."""
    changed, slices = evidence.case.agreement, evidence.case.slices
    limit = evidence.limit("max_accuracy_drop")
    if changed is None or slices is None or limit is None or evidence.limit("max_slice_drop") is not None:
        return None
    if not changed.examples or (changed.right_to_wrong - changed.wrong_to_right) / changed.examples > limit.value:
        return None
    rows = slice_rows(slices)
    z = NormalDist().inv_cdf(1 - _RISK / max(1, sum(row.drop is not None for row in rows)))
    lost = [
        name
        for name, row in zip(slices.names, rows, strict=True)
        if row.lost and row.won is not None and drop_bounds(row.lost, row.won, row.examples, z)[0] > limit.value
    ]
    if not lost:
        return None
    return Finding(
        "slice-collapse",
        {"slices": lost, "limit": limit.text},
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
    return Finding(
        "churn",
        {"flips": changed.flips, "examples": changed.examples, "right_to_wrong": lost, "wrong_to_right": won},
        ("score", "predictions"),
        is_note=evidence.limit("max_accuracy_drop") is not None and evidence.limit("max_flips") is None,
    )


def over_pruned(evidence: Evidence) -> Finding | None:
    before, after, coverage = evidence.original.narrow_layers, evidence.variant.narrow_layers, evidence.case.coverage
    if before is None or not after or coverage is None:
        return None
    known = {layer.name for layer in coverage.layers}
    narrow: list[Row] = [
        {"name": name, "width": width} for name, width in after.items() if name not in before and name in known
    ]
    if not narrow:
        return None
    return Finding(
        "over-pruned",
        {"layers": narrow},
        ("score", "predictions"),
        is_note=True,
    )


def flattened(evidence: Evidence) -> Finding | None:
    """The right class may still come first where the scores have lost all else: ranks, thresholds, confidence."""
    before, after = evidence.original.spread, evidence.variant.spread
    if before is None or after is None or min(before.values, after.values) < _MANY_NUMBERS:
        return None
    signs = []
    if after.distinct <= _FEW_DISTINCT and after.distinct * _MUCH <= before.distinct:
        signs.append("few values")
    elif 2 * after.extremes > after.values and 2 * before.extremes <= before.values:
        signs.append("saturated")
    if after.deviation * _MUCH <= before.deviation:
        signs.append("narrow")
    if not signs:
        return None
    return Finding(
        "scores-flattened",
        {
            "signs": signs,
            "values": after.values,
            "distinct": after.distinct,
            "extremes": after.extremes,
            "deviation": after.deviation,
            "original_values": before.values,
            "original_distinct": before.distinct,
            "original_extremes": before.extremes,
            "original_deviation": before.deviation,
            "is_quantized": not evidence.recipes or any(recipe.gives is not None for recipe in evidence.recipes),
        },
        ("score", "predictions"),
        is_note=True,
    )


def does_not_reload(evidence: Evidence) -> Finding | None:
    if evidence.variant.reloads is not False:
        return None
    return Finding("does-not-reload", {"error": evidence.variant.reload_error}, ("size", "process_memory", "timing"))


def untrained(evidence: Evidence) -> Finding | None:
    """Pruned, and not trained afterwards, with a score that is worse for it.

    What quantizes could train, too, and is not told so: without training it usually loses little.
    """
    pruning = [recipe for recipe in evidence.recipes if recipe.gives is None]
    trains = [recipe.recipe_name for recipe in pruning if getattr(recipe, "finetune", None) == ""]
    zeroes = [recipe.recipe_name for recipe in evidence.recipes if recipe.recipe_name in _ZEROES_ONLY]
    drop = evidence.case.drop
    if not (trains or zeroes) or drop is None or drop <= 0:
        return None
    return Finding("untrained", {"recipes": trains or zeroes, "takes_finetune": bool(trains)}, ("score", "predictions"))
