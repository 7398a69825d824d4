"""Sentences about answers that are wrong, or will be elsewhere."""

from __future__ import annotations

from pytest_modelopt.limits.slices import slice_rows, worst_first
from pytest_modelopt.reporting.messages.figures import format_score
from pytest_modelopt.reporting.messages.sentence_parts import Message, Parameters, enumerated
from pytest_modelopt.reporting.messages.slices import format_slice
from pytest_modelopt.reporting.plain_text import plain_lines
from pytest_modelopt.results.case import MeasuredCase
from pytest_modelopt.results.figures import format_bytes, format_number, format_percentage
from pytest_modelopt.results.figures import format_count as count

_NOT_IMPORTED = ("ModuleNotFoundError", "ImportError", "AttributeError")


def _int8_saturation(case: MeasuredCase, found: Parameters) -> str:
    return (
        f"{format_percentage(found['flips'] / found['examples'])} of the predictions changed, and {found['cpu']} has "
        f"no VNNI: there {found['runtime']} adds int8 products in 16 bits, which overflow where weights use the whole "
        "range; quantize with a reduced range (`reduce_range`), and expect other answers on another processor"
    )


def _calibration_thin(case: MeasuredCase, found: Parameters) -> str:
    texts = []
    if found["same"]:
        texts.append(f"all {found['examples']:,} calibration examples are one and the same")
    if found["constant"]:
        texts.append("each calibration example is one single value throughout")
    if found["only_class"] is not None:
        texts.append(f"all calibration examples have the target {found['only_class']}")
    if found["absent_classes"]:
        texts.append(f"no calibration example was of class {enumerated(found['absent_classes'], 8)}")
    return (
        f"{' and '.join(texts)}: ranges that were never seen are cut off; calibrate with a few hundred examples of "
        "every class, shuffled"
    )


def _calibration_elsewhere(case: MeasuredCase, found: Parameters) -> str:
    return (
        f"{' and '.join(map(_other_range, found['inputs']))}: prepare `calibration` as `data` is prepared (scale, "
        "normalization, channels), from the same kind of examples"
    )


def _other_range(found: Parameters) -> str:
    low, high, least, most = (found[name] for name in ("seen_low", "seen_high", "evaluated_low", "evaluated_high"))
    name = "inputs" if found["input"] is None else f"input `{found['input']}`"
    ranges = (
        f"{name}: {format_number(least)} to {format_number(most)} in the evaluated data and {format_number(low)} to "
        f"{format_number(high)} in calibration"
    )
    if found["beyond"]:
        return (
            f"{found['outside']:,} of {found['examples']:,} evaluated examples have numbers far beyond what "
            f"calibration saw ({ranges}), which are cut off unless the model scales each example itself"
        )
    return (
        f"the evaluated data takes {format_percentage((most - least) / (high - low))} of the range that calibration "
        f"saw ({ranges}), so int8 has few steps for it"
    )


def _slice_collapse(case: MeasuredCase, found: Parameters) -> str:
    assert case.slices is not None
    rows = dict(zip(case.slices.names, slice_rows(case.slices), strict=True))
    lost = [format_slice(case, row) for row in worst_first([rows[name] for name in found["slices"]])]
    return (
        f"{enumerated(lost)}, more than max_accuracy_drop {found['limit']} though the total holds it: the others make "
        f"up for it; look at these {'classes' if case.slices.of_classes else 'slices'} before you ship, and bound them "
        "with `max_slice_drop`"
    )


def _churn(case: MeasuredCase, found: Parameters) -> str:
    flips, lost, won = found["flips"], found["right_to_wrong"], found["wrong_to_right"]
    told = f"{lost:,} from right to wrong, {won:,} from wrong to right"
    if case.metric == "accuracy":  # elsewhere an answer may stay right with another first prediction
        told = f"{told} and {flips - lost - won:,} from one wrong answer to another"
    return (
        f"{flips:,} of {found['examples']:,} predictions changed ({format_percentage(flips / found['examples'])}) "
        f"though the score hardly did: {told}; `max_flips` bounds that"
    )


_KEEP_QUANTIZED = "leave the layer that makes them in floating point, or calibrate on other examples"
_KEEP = "leave the layer that makes them as it is (`keep=`), or take a milder setting of the recipe"


def _scores_flattened(case: MeasuredCase, found: Parameters) -> str:
    values, texts = found["values"], []
    if "few values" in found["signs"]:
        texts.append(
            f"take {count(found['distinct'], 'value')} only, among {values:,}, and the original's "
            f"{found['original_distinct']:,}"
        )
    if "saturated" in found["signs"]:
        texts.append(
            f"are saturated: {format_percentage(found['extremes'] / values)} of them are the smallest or the largest "
            f"one, and {format_percentage(found['original_extremes'] / found['original_values'])} of the original's"
        )
    if "narrow" in found["signs"]:
        texts.append(
            f"have lost their spread: their standard deviation is {format_number(found['deviation'])}, and the "
            f"original's {format_number(found['original_deviation'])}"
        )
    return (
        f"the variant's scores {' and '.join(texts)}: thresholds, ranks and confidences that are taken from them no "
        f"longer mean what they did; {_KEEP_QUANTIZED if found.get('is_quantized', True) else _KEEP}"
    )


def _untrained(case: MeasuredCase, found: Parameters) -> str:
    recipes = enumerated(found["recipes"])
    if not found.get("takes_finetune", True):
        return (
            f"nothing was trained after {recipes}, which takes no `finetune`: set fewer weights to zero, or let your "
            "own training do it and gate its model as a candidate; prune-structured trains what is left, by "
            "`finetune=package.module:function`"
        )
    return (
        f"nothing was trained after {recipes}: train what is left, by "
        "`finetune=package.module:function` in the recipe (called with the model and batches of `calibration`), or "
        "take a milder setting of the recipe"
    )


def _layers_at_fault(case: MeasuredCase, found: Parameters) -> str:
    named = enumerated([f"`{each['name']}` ({each['kind']})" for each in found["layers"]], 8)
    stay = "stays" if len(found["layers"]) == 1 else "stay"
    recipe = f"`{found['recipe']}`" if found["recipe"] else f"with `keep=` of {'it' if stay == 'stays' else 'them'} it"
    scores = [found[name] for name in ("kept_score", "original_score", "broken_score")]
    if None not in scores:
        kept, original, broken = (format_score(case, score) for score in scores)
        effect = f"{recipe} scores {kept}, where the original scores {original} and all layers changed {broken}"
    else:
        effect = f"{recipe} keeps the limits"
    if found["kept_flips"] is not None and found["broken_flips"] is not None:
        effect += f", with {found['kept_flips']:,} predictions changed instead of {found['broken_flips']:,}"
    ended = "" if found["least"] else "; the time was over before fewer layers were tried (`--modelopt-bisect`)"
    return (
        f"the answers break through {named}: {effect} (measured on {found['examples']:,} examples); so "
        f"{format_bytes(found['kept_bytes'])} of the {format_bytes(found['changed_bytes'])} that the recipe changes "
        f"{stay} as they are{ended}"
    )


def _over_pruned(case: MeasuredCase, found: Parameters) -> str:
    narrow = [f"{each['name']} ({each['width']})" for each in found["layers"]]
    return (
        f"{count(len(narrow), 'layer has', 'layers have')} one output or head left at most: {enumerated(narrow, 8)}; "
        "all that the model knows has to pass there, so prune less, or spare them"
    )


def _does_not_reload(case: MeasuredCase, found: Parameters) -> str:
    if found["error"] is None:
        return (
            "saved and loaded again in a fresh process it does not answer as before, so what is shipped is not what "
            "was measured: save the whole module and not its state_dict alone, and keep in the module all that its "
            "forward needs"
        )
    why = plain_lines(found["error"])[0]
    text = f"saved, it could not be loaded in a fresh process ({why}), so whether it answers as before is unknown"
    if why.startswith(_NOT_IMPORTED):
        text += (
            ": what its classes are defined in must be importable under the same name wherever it is loaded, from the "
            "repository or an installed package"
        )
    return text


def _wrong_alike(case: MeasuredCase, found: Parameters) -> str:
    if found["kind"] == "class":
        return (
            f"the candidate gives all {found['examples']:,} examples the same class, and the original "
            f"{found['classes']} different ones: its weights are not those that were trained, or its inputs are "
            "prepared in another way than it was made for (scale, normalization, layout)"
        )
    answers = found["answers"]
    if found["kind"] == "constant":
        return (
            f"the candidate's outputs lie beside the original's by a constant, the same for all of {answers:,} answers "
            f"(output {found['output']}: {format_number(found['shift'])}): a bias or an offset of the last layer is "
            "missing, or there twice"
        )
    agreeing, as_given = (format_percentage(found[name] / answers) for name in ("agreeing", "as_given"))
    if found["kind"] == "classes":
        moved = [f"{each['original']} is called {each['candidate']}" for each in found["moved"]]
        return (
            f"with its classes renamed the candidate agrees with the original in {agreeing} of {answers:,} answers, "
            f"and in {as_given} as it numbers them (class {enumerated(moved, 4)}): it was trained or converted with "
            "its labels in another order; put its outputs into the original's order, in the file or in a factory that "
            "wraps it, and do the same where it is served"
        )
    return (
        f"with its inputs {found['change']} the candidate agrees with the original in {agreeing} of {answers:,} "
        f"answers, and in {as_given} as they are given: it was made for inputs that are prepared in another way; put "
        "that preparation into the file, or into a factory that wraps it, and do the same where it is served"
    )


MESSAGES: dict[str, Message] = {
    "wrong-alike": _wrong_alike,
    "int8-saturation": _int8_saturation,
    "calibration-thin": _calibration_thin,
    "calibration-elsewhere": _calibration_elsewhere,
    "slice-collapse": _slice_collapse,
    "churn": _churn,
    "scores-flattened": _scores_flattened,
    "untrained": _untrained,
    "layers-at-fault": _layers_at_fault,
    "over-pruned": _over_pruned,
    "does-not-reload": _does_not_reload,
}
