"""Sentences about a comparison that is empty or unfair, and about head against base."""

from __future__ import annotations

from pytest_modelopt.limits.baseline_sanity import constant_answers, majority_score, why_worthless
from pytest_modelopt.reporting.messages.reasons import format_useless
from pytest_modelopt.reporting.messages.sentence_parts import Message, Parameters, enumerated
from pytest_modelopt.reporting.names import sides
from pytest_modelopt.results.case import MeasuredCase
from pytest_modelopt.results.figures import format_bytes, format_number, format_percentage, format_time
from pytest_modelopt.results.figures import format_count as count
from pytest_modelopt.results.measurement import Measurement

# --- the comparison is empty -----------------------------------------------------------------------------------------


def format_nothing_compared(case: MeasuredCase) -> str:
    """The error of a case whose two sides are one model."""
    if case.is_one_file:
        return f"nothing was compared: the candidate {case.recipe} is the file of the original once more"
    if case.variant is not None and case.variant.provenance is not None:
        return (
            f"nothing was compared: the candidate {case.recipe} is the original once more, the same modules with the "
            "same bits and the same answers: let its factory load the candidate's weights"
        )
    return (
        f"nothing was compared: after {case.recipe} the variant is the original, the same modules with the same bits "
        "and the same answers, and neither the compiler nor another runtime runs it; a recipe must change what it "
        "names in `reached`"
    )


def _original_useless(case: MeasuredCase, found: Parameters) -> str:
    why = format_useless(case, constant_answers(case) or why_worthless(case))
    return (
        f"{why}: check that the factory loads the trained weights, that the targets are of this model's kind and in "
        "the order of the inputs, and that `data` is prepared as in training"
    )


def _majority_as_good(case: MeasuredCase, found: Parameters) -> str:
    return (
        f"{format_useless(case, majority_score(case))}: max_accuracy_drop cannot show a variant that gives no other "
        "answer any more; bound `max_slice_drop` or `max_flips`, too, or take a metric that weighs all classes alike"
    )


# --- the comparison is unfair ----------------------------------------------------------------------------------------


def _training_mode(case: MeasuredCase, found: Parameters) -> str:
    return (
        f"{count(found['modules'], 'module')} of the {' and the '.join(found['sides'])} stayed in training mode though "
        "`eval()` was called: dropout is random there and batch norm follows each batch; look for a `train()` in a "
        "forward, or for one that ignores its mode"
    )


def _answers_vary(case: MeasuredCase, found: Parameters) -> str:
    text = (
        f"the {' and the '.join(found['sides'])} answered the same inputs differently in two calls: something in its "
        "forward is random (dropout without `training=self.training`, sampling, noise) or is kept from call to call, "
        "so scores and flips are partly chance"
    )
    told = [_own_changes("original", case.reference), _own_changes("variant", case.variant)]
    if any(told):
        text += f": in a second pass over the same examples {' and '.join(filter(None, told))}"
    return text


def _own_changes(name: str, side: Measurement | None) -> str:
    """By how much a variant differs from itself; the scores where its metric knows no predictions."""
    if side is None or side.repeat is None:
        return ""
    repeat = side.repeat
    if repeat.flips is not None:
        share = format_percentage(repeat.flips / max(1, repeat.examples))
        return f"{repeat.flips:,} of {repeat.examples:,} predictions of the {name} changed ({share})"
    if side.score is None or repeat.score is None:
        return f"the {name} has no score to compare"
    return f"the {name} scored {format_number(repeat.score, digits=4)} after {format_number(side.score, digits=4)}"


def _unequal_footing(case: MeasuredCase, found: Parameters) -> str:
    texts = []
    if found["compiled"] == "original":
        texts.append(
            "the original is compiled and the variant runs step by step, so the recipe is charged with what compiling "
            "gains: compile neither, or add the step `compile` to the recipe"
        )
    elif found["compiled"] == "variant":
        texts.append(
            "the variant is compiled and the original runs step by step, so the speedup is that of both together: "
            f"measure the recipe `compile` alone, too, to see what {enumerated(found['recipes'])} gains"
        )
    if found["float64"]:
        texts.append(
            "the original holds float64 weights, which a program would not ship: part of the gain is that of "
            "`model.float()`; compare with that"
        )
    return "; ".join(texts)


def _fell_back_to_cpu(case: MeasuredCase, found: Parameters) -> str:
    names = dict(zip(("original", "variant"), sides(case), strict=True))
    told = dict.fromkeys(
        f"the {names[each['side']]} asked {each['runtime']} for {enumerated(each['asked'])} and runs on "
        f"{_what_runs(each)}"
        for each in found["sessions"]
    )
    asked = list(dict.fromkeys(name for each in found["sessions"] for name in each["asked"]))
    return (
        f"{'; '.join(told)}: its figures are those of the CPU, and not of what ships with {enumerated(asked)}; gate it "
        "on a machine whose device and installed runtime have the provider, or name the CPU's alone where the CPU is "
        "meant"
    )


def _what_runs(session: Parameters) -> str:
    if set(session["asked"]) & set(session["got"]):
        return "the CPU: it has the provider, which runs none of its operators"
    return enumerated(session["got"]) or "none"


def _settings_changed(case: MeasuredCase, found: Parameters) -> str:
    changed = [
        f"{each['name']} {_setting(each['original'])} -> {_setting(each['variant'])}" for each in found["settings"]
    ]
    return (
        f"the recipe changed settings of its whole process ({', '.join(changed)}): here each variant has a process of "
        "its own, but a program that loads the variant must set them itself, and they hold for everything else in it"
    )


def _setting(value: str | None) -> str:
    return "default" if value is None else value


def _threads_beyond_cores(case: MeasuredCase, found: Parameters) -> str:
    return (
        f"it was timed with {found['threads']} threads on {count(found['cores'], 'core')}: they wait for each other, "
        "and such latencies say nothing about a machine that has the cores; set `threads` to at most "
        f"{found['cores']}"
    )


def _compiled_while_timed(case: MeasuredCase, found: Parameters) -> str:
    graphs = [f"{count(found[side], 'graph')} of the {side}" for side in ("original", "variant") if found[side]]
    return (
        f"torch.compile made {enumerated(graphs)} while blocks were timed, after the warm-up: something that it guards "
        "on changes from call to call (a shape, a Python number, the mode of gradients); mark it dynamic or keep it "
        "fixed"
    )


def _preparation(case: MeasuredCase, found: Parameters) -> str:
    saved_s = found["original_s"] - found["variant_s"]
    if saved_s > 0:
        calls = format_number(found["preparation_s"] / saved_s, digits=2)
        pays = f"which pays off after {calls} calls of one process"
    else:
        pays = "which a variant that is no faster never pays back"
    return (
        "latency is that of a warm process: before it, making and first calling the variant took "
        f"{format_time(found['preparation_s'], digits=2)}, {pays}"
    )


def _size_is_not_peak(case: MeasuredCase, found: Parameters) -> str:
    size_fell, memory_fell = found["size_reduction"], found["memory_reduction"]
    fell = f"by {format_percentage(memory_fell)} only" if memory_fell > 0 else "not at all"
    return f"the saved size fell by {format_percentage(size_fell)} and peak memory {fell}: {_what_holds_it(found)}"


def _what_holds_it(found: Parameters) -> str:
    kept, saved = format_bytes(found["weights_bytes"]), format_bytes(found["size_bytes"])
    if found["cause"] == "call":
        of_the_call = found["call_peak_bytes"] / (found["weights_bytes"] + found["call_peak_bytes"])
        return (
            f"{format_percentage(of_the_call)} of the variant's peak ({format_bytes(found['call_peak_bytes'])}) are "
            "activations and scratch memory of the call, which smaller weights leave as they are; a smaller batch or "
            "input, or a recipe that changes activations, lowers it"
        )
    if found["cause"] == "larger call":
        return (
            f"beside its weights a call of the variant takes {format_bytes(found['call_peak_bytes'])}, and one of the "
            f"original {format_bytes(found['original_call_peak_bytes'])}: what the recipe put in needs more in a call"
        )
    if found["cause"] == "copy":
        return (
            f"in memory it keeps {kept} of weights though {saved} are saved: a second copy is alive, packed or unpacked"
        )
    return (
        f"both hold numbers outside of what is saved, the variant {kept} beside a file of {saved}, the original "
        f"{format_bytes(found['original_weights_bytes'])} beside {format_bytes(found['original_size_bytes'])}: tables, "
        "caches or buffers that are not saved"
    )


def _int8_without_vnni(case: MeasuredCase, found: Parameters) -> str:
    return (
        f"{found['cpu']} has no instruction for int8 products (VNNI or AMX): each takes several, so int8 gains less "
        "here than on newer processors, or nothing; judge speed on the kind of machine that will run it"
    )


def _fused_path(case: MeasuredCase, found: Parameters) -> str:
    return (
        f"the original runs {count(found['original'], 'TransformerEncoderLayer')} through torch's fused path for eval "
        f"mode and the variant {found['variant'] or 'none'}: part of what the recipe gains is lost there"
    )


# --- head against base -----------------------------------------------------------------------------------------------


def _memory_moved(case: MeasuredCase, found: Parameters) -> str:
    parts = (
        ("its weights", found["base_weights_bytes"], found["weights_bytes"]),
        ("what a call needs beside them", found["base_call_peak_bytes"], found["call_peak_bytes"]),
    )
    moved = [
        f"{what} went from {format_bytes(then)} to {format_bytes(now)}" for what, then, now in parts if then != now
    ]
    same = [f"{what} did not change" for what, then, now in parts if then == now]
    return f"of its memory {', '.join([*moved, *same])}"


def _runtime_changed(case: MeasuredCase, found: Parameters) -> str:
    return (
        f"it runs on {found['runtime']} now and ran on {found['base_runtime']} at the base, so every figure may be "
        "another"
    )


MESSAGES: dict[str, Message] = {
    "original-useless": _original_useless,
    "majority-as-good": _majority_as_good,
    "training-mode": _training_mode,
    "answers-vary": _answers_vary,
    "unequal-footing": _unequal_footing,
    "fell-back-to-cpu": _fell_back_to_cpu,
    "settings-changed": _settings_changed,
    "threads-beyond-cores": _threads_beyond_cores,
    "compiled-while-timed": _compiled_while_timed,
    "preparation": _preparation,
    "size-is-not-peak": _size_is_not_peak,
    "int8-without-vnni": _int8_without_vnni,
    "fused-path": _fused_path,
    "memory-moved": _memory_moved,
    "runtime-changed": _runtime_changed,
}
