"""The recipes that are tried on a model, in a fixed order, and why the others cannot run or cannot pay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pytest_modelopt.optimizing.expression import Expression, canonical_text, parse
from pytest_modelopt.optimizing.registry import BUILT_IN, added
from pytest_modelopt.results.figures import format_factor, format_percentage
from pytest_modelopt.results.measurement import LayerCoverage

_USUAL = (
    "int8-dynamic",
    "onnxruntime",
    "openvino",
    "int8-static",
    "onnxruntime-int8-static",
    "openvino-int8",
    "openvino-int8(weights_only=true)",
    "onnxruntime-int8-dynamic",
    "litert",
    "litert-int8",
    "fold-batchnorm",
    "channels-last",
    "bf16",
    "fp16",
    "int8-weight-only",
    "compile",
    "torchao-int8-dynamic + compile",
    "torchao-pt2e-int8",
    "low-rank(ratio=0.5)",
    "prune-structured(ratio=0.3)",
    "prune-structured(ratio=0.3) + int8-dynamic",
)
"""What `init` tries, in this order. Left out are recipes that save nothing by themselves, such as
`prune-unstructured`."""
_FURTHER = (
    "prune-structured(ratio=0.5)",
    "prune-structured(ratio=0.5) + int8-dynamic",
    "prune-structured(ratio=0.3) + openvino-int8",
    "prune-structured(ratio=0.3) + int8-static",
    "prune-structured(ratio=0.3) + onnxruntime",
    "low-rank(ratio=0.5) + int8-dynamic",
    "fold-batchnorm + int8-static",
    "fold-batchnorm + channels-last",
    "channels-last + compile",
    "bf16 + compile",
)
"""What `explore` tries beside these: more pruning, and chains whose steps save different things."""
LEAST_SAVED = 0.1
LEAST_SPEEDUP = 1.1
"""A recipe that cannot save this share of the weights, nor make a call this many times as fast, cannot pay."""


@dataclass(frozen=True)
class Space:
    """Recipes to try, in order, and (expression, why) of those that cannot be tried."""

    recipes: tuple[Expression, ...]
    impossible: tuple[tuple[str, str], ...] = ()


def runnable(texts: Iterable[str], device: str, *, has_calibration: bool) -> Space:
    """Those of `texts`, each once, that run on this machine and device ('cpu', 'cuda')."""
    chosen: dict[str, Expression] = {}
    impossible: list[tuple[str, str]] = []
    for text in texts:
        recipe = parse(text)
        lacks = (_lacks(recipe, number, device, has_calibration) for number in range(len(recipe.steps)))
        if why := next(filter(None, lacks), ""):
            impossible.append((text, why))
        else:
            chosen[recipe.text] = recipe
    return Space(tuple(chosen.values()), tuple(impossible))


def usual() -> tuple[str, ...]:
    """What `init` tries: recipes of the project first."""
    return (*_of_the_project(), *_USUAL)


def explored() -> tuple[str, ...]:
    """All that `explore` tries: recipes of the project first, then what is made at once, and last what another runtime
    or a compiler makes, which takes many times as long. Of both each recipe alone comes before the chains."""
    return (*_of_the_project(), *sorted((*_USUAL, *_FURTHER), key=_effort))


def _effort(text: str) -> tuple[bool, bool]:
    steps = parse(text).steps
    return any(step.imports_compiler or step.gives in ("runtime", "compiled") for step in steps), len(steps) > 1


def _of_the_project() -> list[str]:
    """The recipes that it adds, where they need no parameter."""
    return [recipe.recipe_name for recipe in added() if canonical_text(recipe.recipe_name) is not None]


def _lacks(recipe: Expression, number: int, device: str, has_calibration: bool) -> str:
    step = recipe.steps[number]
    if step.calibrates and not has_calibration:
        return "there is no --calibration"
    return step.missing() or step.unfit(device)


def fits(expression: Expression, layers: set[str]) -> bool:
    """Whether each step changes a layer that there is; one that says it in words (`every other layer`) may."""
    return all(
        type(step) not in BUILT_IN
        or not step.changes
        or any(kind in layers or not kind.isidentifier() for kind in step.changes)
        for step in expression.steps
    )


def kinds(layers: Sequence[LayerCoverage], derived: Mapping[str, str]) -> set[str]:
    """The classes of the model's layers, and those of torch that they are derived from."""
    return {layer.type for layer in layers} | set(derived.values())


def worth_trying(space: Space, layers: Sequence[LayerCoverage], derived: Mapping[str, str]) -> Space:
    """The space without what cannot pay on these layers, before anything is tried.

    `derived`: classes of the project's own -> the class of torch that each is derived from.
    """
    chosen, impossible = [], list(space.impossible)
    for recipe in space.recipes:
        why = ""
        if layers and not fits(recipe, kinds(layers, derived)):
            why = "the model has no layer that they change"
        why = why or too_small(recipe, layers, derived)
        if why:
            impossible.append((str(recipe), why))
        else:
            chosen.append(recipe)
    return Space(tuple(chosen), tuple(impossible))


def too_small(recipe: Expression, layers: Sequence[LayerCoverage], derived: Mapping[str, str]) -> str:
    """Why a recipe cannot pay: the bounds on what it saves by the share of weights, and on what it gains by the share
    of multiply-adds, in the layers that it changes (Amdahl). '' where it may, and where nobody knows."""
    if any(not step.changes or not all(map(str.isidentifier, step.changes)) for step in recipe.steps):
        return ""
    changed = {kind for step in recipe.steps for kind in step.changes}
    of = [layer for layer in layers if changed & {layer.type, derived.get(layer.type, "")}]
    weights = sum(layer.weight_bytes for layer in layers)
    work = sum(layer.multiply_adds for layer in layers)
    if not weights or not work:
        return ""
    share = sum(layer.weight_bytes for layer in of) / weights
    speedup = 1 / max(1e-9, 1 - sum(layer.multiply_adds for layer in of) / work)
    if share >= LEAST_SAVED or speedup >= LEAST_SPEEDUP:
        return ""
    return (
        f"the layers that it changes have {format_percentage(share)} of the weights, and without them a call would be "
        f"{format_factor(speedup)} as fast at the most"
    )
