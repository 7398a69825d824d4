"""It changed less than it says: what the recipe left alone, and changes that cost nothing less."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from pytest_modelopt.diagnosis.evidence import Evidence, count, enumerated
from pytest_modelopt.optimizing.registry import RECIPES
from pytest_modelopt.results.figures import format_bytes, format_factor, format_percentage
from pytest_modelopt.results.measurement import Coverage, LayerCoverage
from pytest_modelopt.results.verdicts import Figure, Finding

COSTS: tuple[Figure, ...] = ("memory", "process_memory", "size", "timing")

_MUCH = 0.2
"""Share of the weight bytes, or of the multiply-adds, from which a type that was left alone explains something."""
_ZEROS = 0.1


def masks_only(evidence: Evidence) -> Finding | None:
    seen = evidence.variant
    if not seen.masked_weights or seen.mask_bytes is None:
        return None
    return Finding(
        "masks-only",
        f"{count(seen.masked_weights, 'weight is', 'weights are')} kept whole beside a mask "
        f"({format_bytes(seen.mask_bytes)} of masks): masks make a model larger and no faster; make the pruning "
        "permanent with `torch.nn.utils.prune.remove`, or remove whole channels with prune-structured",
        COSTS,
        is_note=True,
    )


def dense_zeros(evidence: Evidence) -> Finding | None:
    before, after = evidence.original, evidence.variant
    if not after.matrix_weights or after.zero_weights is None or before.zero_weights is None:
        return None
    added = (after.zero_weights - before.zero_weights) / after.matrix_weights
    if before.matrix_weights != after.matrix_weights or added < _ZEROS:
        return None
    sparse = ["sparse-csr"] if "sparse-csr" in RECIPES else []
    ways = enumerated(["prune-structured", *sparse]).replace(" and ", " or ")
    return Finding(
        "dense-zeros",
        f"{format_percentage(after.zero_weights / after.matrix_weights)} of the weights in Linear layers and "
        "convolutions are zero, but their shapes are the original's, so dense kernels do 0% fewer operations and store "
        f"each zero: only structured pruning or a sparse kernel changes the cost ({ways})",
        COSTS,
    )


# --- what was left alone ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Type:
    """The layers of one type that no step changed."""

    name: str
    layers: int
    weight_bytes: int
    multiply_adds: int


def left_alone(evidence: Evidence) -> Finding | None:
    """Types that hold or compute much of the model, none of which was changed, and the recipes that would."""
    coverage = evidence.case.coverage
    if coverage is None or not coverage.weight_bytes:
        return None
    known = [RECIPES[name] for name in evidence.steps if name in RECIPES]
    changes = {kind for recipe in known for kind in recipe.changes}
    if not changes:
        return None
    # Of a type that the recipe can change, its own notes say why it did not.
    types = [kind for kind in _large_types(coverage) if kind.name not in changes]
    if not types:
        return None
    told = [_told(kind, coverage) for kind in types]
    ways = [way for kind in types if (way := _way_out(kind.name, changes, evidence))]
    return Finding(
        "left-alone",
        f"{'; '.join(told)} {'was' if len(types) == 1 and types[0].layers == 1 else 'were'} left as in the original: "
        f"{enumerated(evidence.steps)} {'changes' if len(known) == 1 else 'change'} {enumerated(sorted(changes), 8)} "
        f"only{''.join(f'; {way}' for way in ways)}",
        (*COSTS, "coverage"),
    )


def _large_types(coverage: Coverage) -> list[_Type]:
    groups: dict[str, list[LayerCoverage]] = {}
    for layer in coverage.layers:
        groups.setdefault(layer.type, []).append(layer)
    found = [
        _Type(name, len(held), sum(layer.weight_bytes for layer in held), sum(layer.multiply_adds for layer in held))
        for name, group in groups.items()
        if (held := [layer for layer in group if layer.weight_bytes]) and not any(layer.changed_bytes for layer in held)
    ]
    large = [
        kind
        for kind in found
        if kind.weight_bytes >= _MUCH * coverage.weight_bytes
        or (coverage.multiply_adds and kind.multiply_adds >= _MUCH * coverage.multiply_adds)
    ]
    return sorted(large, key=lambda kind: -kind.weight_bytes)


def _told(kind: _Type, coverage: Coverage) -> str:
    shares = f"{format_percentage(kind.weight_bytes / coverage.weight_bytes)} of the weight bytes"
    if coverage.multiply_adds:
        shares += f", {format_percentage(kind.multiply_adds / coverage.multiply_adds)} of the multiply-adds"
    return f"{kind.layers} {kind.name} ({format_bytes(kind.weight_bytes)}, {shares})"


_WHY = {
    "MultiheadAttention": "MultiheadAttention holds its projections in `in_proj_weight`, which is no Linear",
    "NonDynamicallyQuantizableLinear": (
        "NonDynamicallyQuantizableLinear is how MultiheadAttention keeps its output projection out of it"
    ),
    "Conv1D": "Conv1D of Hugging Face is a Linear with its weight transposed: replace it by nn.Linear first",
}


def _way_out(kind: str, changes: Collection[str], evidence: Evidence) -> str:
    """Why this type is passed over by steps that change these, and the recipes that would change it."""
    why = _WHY.get(kind, "")
    base = (evidence.original.derived_layers or {}).get(kind, "")
    names = list(_recipes_for(base or kind, evidence.steps))
    if base in changes:
        why = (
            f"{kind} is derived from {base}, and recipes replace exact nn.{base} only, since a subclass may compute "
            f"something else: use nn.{base} where its forward is the same"
        )
    elif base:
        return f"{kind} is derived from {base}: an exact nn.{base} is changed by {enumerated(names)}" if names else ""
    if names:
        return f"{why}{'; ' if why else ''}{base or kind} is changed by {enumerated(names)}"
    return why


def _recipes_for(kind: str, steps: tuple[str, ...]) -> Iterator[str]:
    """Recipes that change this type; first those that leave weights in the same form as the steps do."""
    forms = {RECIPES[name].gives for name in steps if name in RECIPES}
    fitting = [name for name, recipe in RECIPES.items() if kind in recipe.changes and name not in steps]
    yield from sorted(fitting, key=lambda name: RECIPES[name].gives not in forms)


def little_work(evidence: Evidence) -> Finding | None:
    """The changed layers do too little of the work for the speedup that is asked for."""
    coverage, limit = evidence.case.coverage, evidence.limit("min_speedup")
    share = coverage.multiply_adds_share if coverage is not None else None
    if coverage is None or share is None or limit is None or share >= 1 or 1 / (1 - share) >= limit.value:
        return None
    return Finding(
        "little-work",
        f"the layers that {evidence.case.recipe} changed do {format_percentage(share)} of the multiply-adds "
        f"({format_percentage(coverage.share)} of the weight bytes): if these took no time at all, and all others what "
        f"they take now, a call would be {format_factor(1 / (1 - share))} as fast; change the layers that do the work",
        ("timing",),
    )


# --- changes that are none yet ---------------------------------------------------------------------------------------


def fake_quantization(evidence: Evidence) -> Finding | None:
    seen = evidence.variant
    if not seen.fake_quantizers or seen.packed_modules:
        return None
    return Finding(
        "fake-quantization",
        f"{count(seen.fake_quantizers, 'module')} only simulate quantization (fake quantizers or observers) and the "
        "weights are still floating point: that shows what accuracy would be, and saves neither time nor memory; "
        "convert the model, or export it to a runtime that runs int8",
        COSTS,
        is_note=True,
    )


def not_lowered(evidence: Evidence) -> Finding | None:
    seen = evidence.variant
    if not seen.quantize_nodes or seen.compiled is not False:
        return None
    return Finding(
        "not-lowered",
        f"its graph quantizes and dequantizes {count(seen.quantize_nodes, 'time')} around floating-point operators, "
        "and nothing fuses them into int8 kernels: compile it under `torch.no_grad()` with freezing, or export it",
        COSTS,
        is_note=True,
    )


def eager_torchao(evidence: Evidence) -> Finding | None:
    seen = evidence.variant
    if not seen.torchao_tensors or seen.compiled is not False:
        return None
    return Finding(
        "eager-torchao",
        f"{count(seen.torchao_tensors, 'weight is a tensor', 'weights are tensors')} of torchao in a model that is not "
        "compiled: step by step, each call unpacks and scales them in operators of their own, which is often many "
        "times slower than floating point; compile the model as well",
        ("timing",),
    )


def engine(evidence: Evidence) -> Finding | None:
    """torch's quantized engine is not set, or made for another kind of processor."""
    if not evidence.variant.packed_modules or not evidence.variant.settings or evidence.environment is None:
        return None
    name, flags = evidence.variant.settings.get("quantized engine", ""), evidence.environment.cpu_flags
    is_x86, is_arm = "avx2" in flags, bool({"asimddp", "i8mm", "sve"} & set(flags))
    if name in ("", "none"):
        why = "is not set, so packed layers cannot use the kernels of this machine"
    elif name == "qnnpack" and is_x86:
        why = "is qnnpack, which is made for ARM, on an x86 processor"
    elif name in ("fbgemm", "x86") and is_arm:
        why = f"is {name}, which is made for x86, on an ARM processor"
    else:
        return None
    better = "x86" if is_x86 else "qnnpack" if is_arm else "the one for this machine"
    return Finding(
        "engine",
        f"torch.backends.quantized.engine {why}: set it to {better} before the model is made",
        ("timing",),
    )


def untied(evidence: Evidence) -> Finding | None:
    names, size = evidence.variant.untied, evidence.variant.untied_bytes
    if not names or not size:
        return None
    return Finding(
        "untied",
        f"{enumerated(names)} shared one storage in the original and no longer do: {format_bytes(size)} are held once "
        "more; leave tied weights out of the recipe, or tie them again after it",
        ("memory", "process_memory", "size"),
        is_note=True,
    )
