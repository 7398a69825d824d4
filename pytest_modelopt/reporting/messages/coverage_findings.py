"""Sentences about a recipe that changed less than it says, and about what made the file or the peak larger."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_modelopt.reporting.messages.sentence_parts import Message, Parameters, enumerated
from pytest_modelopt.reporting.names import sides
from pytest_modelopt.results.case import MeasuredCase
from pytest_modelopt.results.figures import format_bytes, format_factor, format_percentage
from pytest_modelopt.results.figures import format_count as count


def _masks_only(case: MeasuredCase, found: Parameters) -> str:
    return (
        f"{count(found['weights'], 'weight is', 'weights are')} kept whole beside a mask "
        f"({format_bytes(found['mask_bytes'])} of masks): masks make a model larger and no faster; make the pruning "
        "permanent with `torch.nn.utils.prune.remove`, or remove whole channels with prune-structured"
    )


def _dense_zeros(case: MeasuredCase, found: Parameters) -> str:
    return (
        f"{format_percentage(found['zeros'] / found['weights'])} of the weights in Linear layers and convolutions are "
        "zero, but their shapes are the original's, so dense kernels do 0% fewer operations and store each zero: only "
        "structured pruning or a sparse kernel changes the cost (prune-structured or sparse-csr)"
    )


# --- what was left alone ---------------------------------------------------------------------------------------------


def layer_types(found: Parameters) -> list[Parameters]:
    """Of `left-alone`: the classes of the layers, with how many there are and their bytes."""
    return list(found["types"])


def _left_alone(case: MeasuredCase, found: Parameters) -> str:
    types, recipes, changes = found["types"], found["recipes"], found["changes"]
    is_one = len(types) == 1 and types[0]["layers"] == 1
    ways = [way for each in types if (way := _way_out(each, changes))]
    return (
        f"{'; '.join(map(_layers, types))} {'was' if is_one else 'were'} left as in the original: "
        f"{enumerated(recipes)} {'changes' if len(recipes) == 1 else 'change'} {enumerated(changes, 8)} "
        f"only{''.join(f'; {way}' for way in ways)}"
    )


def _layers(found: Parameters) -> str:
    shares = f"{format_percentage(found['weight_share'])} of the weight bytes"
    if found["multiply_adds_share"] is not None:
        shares += f", {format_percentage(found['multiply_adds_share'])} of the multiply-adds"
    return f"{found['layers']} {found['type']} ({format_bytes(found['weight_bytes'])}, {shares})"


_WHY = {
    "MultiheadAttention": "MultiheadAttention holds its projections in `in_proj_weight`, which is no Linear",
    "NonDynamicallyQuantizableLinear": (
        "NonDynamicallyQuantizableLinear is how MultiheadAttention keeps its output projection out of it"
    ),
}


def _way_out(found: Parameters, changes: Sequence[str]) -> str:
    """Why this type is passed over by steps that change these, and the recipes that would change it."""
    kind, base, recipes = found["type"], found["derived_from"], found["changed_by"]
    why = _WHY.get(kind, "")
    if base == "Linear" and base in changes:
        why = (
            f"{kind} is derived from {base} and was not taken as one: it does not answer as a Linear with its "
            "weight does, holds more than that, or its weight is used by something else, too"
        )
    elif base in changes:
        why = (
            f"{kind} is derived from {base}, and recipes replace exact nn.{base} only, since a subclass may compute "
            f"something else: use nn.{base} where its forward is the same"
        )
    elif base:
        return (
            f"{kind} is derived from {base}: an exact nn.{base} is changed by {enumerated(recipes)}" if recipes else ""
        )
    if recipes:
        return f"{why}{'; ' if why else ''}{base or kind} is changed by {enumerated(recipes)}"
    return why


def _little_work(case: MeasuredCase, found: Parameters) -> str:
    share = found["multiply_adds_share"]
    return (
        f"{case.recipe} changed only layers that do {format_percentage(share)} of the multiply-adds "
        f"({format_percentage(found['weight_share'])} of the weight bytes): even if these took no time at all, the "
        f"speedup would be at most {format_factor(1 / (1 - share))}; take a recipe that changes the layers that do the "
        "work"
    )


# --- changes that are none yet ---------------------------------------------------------------------------------------


def _fake_quantization(case: MeasuredCase, found: Parameters) -> str:
    return (
        f"{count(found['modules'], 'module')} only simulate quantization (fake quantizers or observers) and the "
        "weights are still floating point: that shows what accuracy would be, and saves neither time nor memory; "
        "convert the model, or export it to a runtime that runs int8"
    )


def _not_lowered(case: MeasuredCase, found: Parameters) -> str:
    return (
        f"its graph quantizes and dequantizes {count(found['nodes'], 'time')} around floating-point operators, and "
        "nothing fuses them into int8 kernels: compile it under `torch.no_grad()` with freezing, or export it"
    )


def _eager_torchao(case: MeasuredCase, found: Parameters) -> str:
    return (
        f"{count(found['weights'], 'weight is a tensor', 'weights are tensors')} of torchao in a model that is not "
        "compiled: step by step, each call unpacks and scales them in operators of their own, which is often many "
        "times slower than floating point; compile the model as well"
    )


_BETTER_ENGINE = {"x86": "x86", "ARM": "qnnpack", None: "the one for this machine"}
"""By the kind of processor."""


def _engine(case: MeasuredCase, found: Parameters) -> str:
    name, processor = found["engine"], found["processor"]
    if name == "none":
        why = "is not set, so packed layers cannot use the kernels of this machine"
    elif name == "qnnpack":
        why = "is qnnpack, which is made for ARM, on an x86 processor"
    else:
        why = f"is {name}, which is made for x86, on an ARM processor"
    return f"torch.backends.quantized.engine {why}: set it to {_BETTER_ENGINE[processor]} before the model is made"


def _untied(case: MeasuredCase, found: Parameters) -> str:
    return (
        f"{enumerated(found['weights'])} shared one storage in the original and no longer do: "
        f"{format_bytes(found['bytes'])} are held once more; leave tied weights out of the recipe, or tie them again "
        "after it"
    )


# --- what became larger ----------------------------------------------------------------------------------------------


def _memory_in_layer(case: MeasuredCase, found: Parameters) -> str:
    other, texts = sides(case)[0], []
    if "larger" in found:
        texts.append(
            f"the model holds {format_bytes(found['weights_bytes'])} and the {other} "
            f"{format_bytes(found['other_weights_bytes'])}: {_larger(found)}"
        )
    if "peak_in" in found:
        text = (
            f"beside what it holds, a call takes {format_bytes(found['call_peak_bytes'])} at its peak, "
            f"{format_bytes(found['peak_own_bytes'])} of it for {found['peak_in']}"
        )
        if found["other_peak_in"]:
            peak = format_bytes(found["other_call_peak_bytes"])
            text += f" (a call of the {other} takes {peak} at its peak, in {found['other_peak_in']})"
        texts.append(text)
    return "; ".join(texts)


def _size_in_file(case: MeasuredCase, found: Parameters) -> str:
    texts = [_larger(found)] if "larger" in found else []
    if "no_tensor_bytes" in found:
        texts.append(
            f"what is no tensor in it (structure, code, settings) takes {format_bytes(found['no_tensor_bytes'])}, and "
            f"{format_bytes(found['other_no_tensor_bytes'])} in the {sides(case)[0]}'s{_graph(found)}"
        )
    return f"of the saved file {'; '.join(texts)}"


def _larger(found: Parameters) -> str:
    """Tensors that are new or larger, and those that they take the place of."""
    shown = [f"`{each['name']}` (+{format_bytes(each['more_bytes'])})" for each in found["larger"]]
    text = f"{enumerated(shown)} {'is' if len(shown) == 1 else 'are'} new or larger"
    if found["smaller"]:
        less = format_bytes(found["smaller_bytes"])
        text += f", {count(found['smaller'], 'tensor')} ({less} in all) gone or smaller"
    return text


def _graph(found: Parameters) -> str:
    """How many operations its graph has, and of which layer most of them are."""
    if "operations" not in found:
        return ""
    most = f", {found['operations_in_most']:,} of them of {found['most_in']}" if found["most_in"] else ""
    return f": a graph of {count(found['operations'], 'operation')}{most}"


MESSAGES: dict[str, Message] = {
    "masks-only": _masks_only,
    "dense-zeros": _dense_zeros,
    "left-alone": _left_alone,
    "little-work": _little_work,
    "fake-quantization": _fake_quantization,
    "not-lowered": _not_lowered,
    "eager-torchao": _eager_torchao,
    "engine": _engine,
    "untied": _untied,
    "memory-in-layer": _memory_in_layer,
    "size-in-file": _size_in_file,
}
