"""Cases in which one fault is planted at a time: everything else is as it should be."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pytest_modelopt.diagnosis.examine import examine
from pytest_modelopt.reporting.messages.findings import format_finding
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.json import case_from_data, case_to_data
from pytest_modelopt.results.measurement import Coverage, LayerCoverage, RecipeStep
from pytest_modelopt.results.observations import Observations
from pytest_modelopt.results.record import Environment
from pytest_modelopt.results.verdicts import Figure
from tests.reporting.records_by_hand import ENVIRONMENT, MIB, case, measurement

SETTINGS = {"threads": "1", "default dtype": "float32", "quantized engine": "x86"}

SOUND = Observations(
    digest="a",
    training_modules=0,
    compiled=False,
    matrix_weights=1000,
    zero_weights=0,
    masked_weights=0,
    mask_bytes=0,
    fake_quantizers=0,
    quantize_nodes=0,
    packed_modules=0,
    torchao_tensors=0,
    fused_layers=0,
    float_bytes={"float32": 4000},
    narrow_layers={},
    derived_layers={},
    untied=(),
    untied_bytes=0,
    settings=SETTINGS,
    answers="a",
    varies=False,
    first_call_s=0.01,
    reloads=True,
    target_classes=10,
    predicted_classes=10,
    most_predicted=40,
)

LAYERS = (
    LayerCoverage("body.0", "Linear", 3 * MIB, 3 * MIB, 800, 800),
    LayerCoverage("body.1", "Linear", MIB, MIB, 200, 200),
)


def sound(recipe: str = "int8-dynamic", *, layers: tuple[LayerCoverage, ...] = LAYERS, **changes: Any) -> Case:
    """A case with nothing to find; its weights, size and peak all fell to a quarter. `changes` are fields of Case."""
    changed, whole = sum(layer.changed_bytes for layer in layers), sum(layer.weight_bytes for layer in layers)
    steps = tuple(RecipeStep(step, changed, whole) for step in recipe.split("+"))
    made = case(
        recipe,
        reference=replace(measurement(None), observations=SOUND),
        variant=replace(
            measurement(recipe, weights=MIB, peak=MIB, size=MIB),
            observations=replace(SOUND, digest="b", answers="b"),
        ),
        coverage=Coverage(layers, steps),
    )
    return replace(made, **changes)


def variant_with(recipe: str = "int8-dynamic", **seen: Any) -> Case:
    """The sound case, but this was seen of the variant."""
    made = sound(recipe)
    assert made.variant is not None
    assert made.variant.observations is not None
    return replace(made, variant=replace(made.variant, observations=replace(made.variant.observations, **seen)))


def original_with(of: Case, **seen: Any) -> Case:
    """`of`, but this was seen of the original."""
    assert of.reference is not None
    assert of.reference.observations is not None
    return replace(of, reference=replace(of.reference, observations=replace(of.reference.observations, **seen)))


def rules(of: Case, environment: Environment | None = ENVIRONMENT) -> list[str]:
    """Names of the rules that found something."""
    return [finding.rule for finding in examine(of, environment)]


@dataclass(frozen=True)
class Told:
    """A finding with its sentence."""

    rule: str
    text: str
    explains: tuple[Figure, ...]
    is_note: bool


def told(of: Case, environment: Environment | None = ENVIRONMENT) -> list[Told]:
    """All findings of the case, which are the same after transport."""
    found = examine(of, environment)
    assert case_from_data(case_to_data(replace(of, findings=found))).findings == found
    return [Told(each.rule, format_finding(of, each), each.explains, each.is_note) for each in found]


def only(of: Case, environment: Environment | None = ENVIRONMENT) -> Told:
    """The one finding of the case."""
    (finding,) = told(of, environment)
    return finding
