"""It changed less than it says: what the recipe left alone, and changes that cost nothing less."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pytest_modelopt.diagnosis.evidence import Evidence
from pytest_modelopt.optimizing.registry import RECIPES
from pytest_modelopt.results.measurement import Coverage, LayerCoverage
from pytest_modelopt.results.verdicts import Figure, Finding, Row

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
        {"weights": seen.masked_weights, "mask_bytes": seen.mask_bytes},
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
    return Finding(
        "dense-zeros",
        {"zeros": after.zero_weights, "weights": after.matrix_weights},
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
    known = evidence.recipes
    changes = {kind for recipe in known for kind in recipe.changes}
    if not changes:
        return None
    # Of a type that the recipe can change, its own notes say why it did not.
    types = [kind for kind in _large_types(coverage) if kind.name not in changes]
    if not types:
        return None
    return Finding(
        "left-alone",
        {
            "types": [_as_row(kind, coverage, evidence) for kind in types],
            "recipes": list(evidence.steps),
            "changes": sorted(changes),
        },
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


def _as_row(kind: _Type, coverage: Coverage, evidence: Evidence) -> Row:
    """How much of the model it is, which class of torch it is derived from, and the recipes that change that."""
    derived_from = (evidence.original.derived_layers or {}).get(kind.name)
    return {
        "type": kind.name,
        "layers": kind.layers,
        "weight_bytes": kind.weight_bytes,
        "weight_share": kind.weight_bytes / coverage.weight_bytes,
        "multiply_adds_share": kind.multiply_adds / coverage.multiply_adds if coverage.multiply_adds else None,
        "derived_from": derived_from,
        "changed_by": list(_recipes_for(derived_from or kind.name, evidence)),
    }


def _recipes_for(kind: str, evidence: Evidence) -> Iterator[str]:
    """Recipes that change this type; first those that leave weights in the same form as the steps do."""
    forms, steps = {recipe.gives for recipe in evidence.recipes}, evidence.steps
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
        {"multiply_adds_share": share, "weight_share": coverage.share},
        ("timing",),
    )


# --- changes that are none yet ---------------------------------------------------------------------------------------


def fake_quantization(evidence: Evidence) -> Finding | None:
    seen = evidence.variant
    if not seen.fake_quantizers or seen.packed_modules:
        return None
    return Finding(
        "fake-quantization",
        {"modules": seen.fake_quantizers},
        COSTS,
        is_note=True,
    )


def not_lowered(evidence: Evidence) -> Finding | None:
    seen = evidence.variant
    if not seen.quantize_nodes or seen.compiled is not False:
        return None
    return Finding(
        "not-lowered",
        {"nodes": seen.quantize_nodes},
        COSTS,
        is_note=True,
    )


def eager_torchao(evidence: Evidence) -> Finding | None:
    seen = evidence.variant
    if not seen.torchao_tensors or seen.compiled is not False:
        return None
    return Finding("eager-torchao", {"weights": seen.torchao_tensors}, ("timing",))


def engine(evidence: Evidence) -> Finding | None:
    """torch's quantized engine is not set, or made for another kind of processor."""
    if not evidence.variant.packed_modules or not evidence.variant.settings or evidence.environment is None:
        return None
    name, flags = evidence.variant.settings.get("quantized engine", ""), evidence.environment.cpu_flags
    is_x86, is_arm = "avx2" in flags, bool({"asimddp", "i8mm", "sve"} & set(flags))
    is_foreign = (name == "qnnpack" and is_x86) or (name in ("fbgemm", "x86") and is_arm)
    if name not in ("", "none") and not is_foreign:
        return None
    processor = "x86" if is_x86 else "ARM" if is_arm else None
    return Finding("engine", {"engine": name or "none", "processor": processor}, ("timing",))


def untied(evidence: Evidence) -> Finding | None:
    names, size = evidence.variant.untied, evidence.variant.untied_bytes
    if not names or not size:
        return None
    return Finding(
        "untied",
        {"weights": list(names), "bytes": size},
        ("memory", "process_memory", "size"),
        is_note=True,
    )
