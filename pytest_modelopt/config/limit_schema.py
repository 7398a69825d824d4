"""The shape of limits in budgets.yaml: as types, from which they are checked, and as JSON Schema for editors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    create_model,
    model_validator,
)

from pytest_modelopt.limits.catalogue import (
    BUDGET_LIMITS,
    CANDIDATE_LIMITS,
    DESCRIPTION_OF_LEVEL,
    LEVELS,
    ORIGINAL_LIMITS,
    REGRESSION_LIMITS,
    parse_level,
)
from pytest_modelopt.limits.kind import LimitKind, Unit
from pytest_modelopt.limits.units import BYTE_UNITS, NUMBER_PATTERN, TIME_UNITS, UnitError
from pytest_modelopt.results.metric import in_unit_interval
from pytest_modelopt.results.verdicts import Level

# --- values, for editors ---------------------------------------------------------------------------------------------


def _text(pattern: str, *examples: str) -> dict[str, Any]:
    return {"type": "string", "pattern": rf"^\s*{pattern}\s*$", "examples": list(examples)}


_AMOUNT = NUMBER_PATTERN.removeprefix("[+-]?")
WORDS_OF_UNITS: dict[Unit, list[dict[str, Any]]] = {
    "bytes": [
        _text(rf"{_AMOUNT}\s*(?:{'|'.join(BYTE_UNITS)})", "6 MiB", "500 kB"),
    ],
    "percentage": [
        _text(rf"{_AMOUNT}\s*%", "60%"),
        {"type": "number", "minimum": 0, "maximum": 1, "description": "A fraction; not a plain 1, but 1% or 100%."},
    ],
    "points": [
        _text(rf"{_AMOUNT}\s*pp", "1 pp", "0.5 pp"),
        {"type": "number", "minimum": 0, "description": "A fraction below 1, or in the metric's own unit."},
    ],
    "score": [
        _text(rf"{_AMOUNT}\s*%", "97%"),
        {"type": "number", "description": "From 0 to 1 for accuracy, else in the metric's own unit."},
    ],
    "factor": [
        _text(rf"(?:{_AMOUNT}\s*x|[+-]{_AMOUNT}\s*%)", "1.3x", "+30%"),
        {"type": "number", "exclusiveMinimum": 0, "description": "A factor."},
    ],
    "time": [_text(rf"{_AMOUNT}\s*(?:{'|'.join(TIME_UNITS)})", "5 ms", "20 s")],
}
"""How a value of each unit is written, as alternatives of a JSON Schema."""


def _limit_schema(kind: LimitKind) -> dict[str, Any]:
    value = {"anyOf": WORDS_OF_UNITS[kind.unit]}
    level = {"enum": list(LEVELS), "default": "error", "description": DESCRIPTION_OF_LEVEL}
    stated = {
        "type": "object",
        "properties": {"limit": {"description": kind.meaning, **value}, "level": level},
        "required": ["limit"],
        "additionalProperties": False,
    }
    return {"anyOf": [*WORDS_OF_UNITS[kind.unit], stated]}


# --- the types -------------------------------------------------------------------------------------------------------


class Strict(BaseModel):
    """A mapping that has the stated keys and no others."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LimitSpec(Strict):
    """One limit: a plain value, or `{limit: value, level: warn}`."""

    limit: float
    level: Annotated[Level, BeforeValidator(parse_level)] = "error"

    @model_validator(mode="before")
    @classmethod
    def _of_plain_value(cls, data: object) -> object:
        return data if isinstance(data, dict) else {"limit": data}


def _limit_field(kind: LimitKind) -> Any:
    def parse(value: object, info: ValidationInfo) -> float:
        metric = info.context.get("metric") if info.context else None
        if kind.no_drop(metric):
            raise UnitError(kind.no_drop(metric))
        return kind.parse(value, unit_interval=in_unit_interval(metric))

    spec = create_model(kind.name, __base__=LimitSpec, limit=(Annotated[float, BeforeValidator(parse)], ...))
    return Annotated[spec, WithJsonSchema(_limit_schema(kind))], Field(default=None, description=kind.meaning)


def _limit_fields(kinds: Iterable[LimitKind]) -> dict[str, Any]:
    return {kind.name: _limit_field(kind) for kind in kinds}


def _at_places(spec: Any) -> dict[str, Any]:
    found = {
        "workloads": "Limits at a workload of the model, by its name, which go before all others there.",
        "targets": "Limits on the machines of a target, by its name, beside those that hold everywhere.",
    }
    return {
        key: (dict[str, spec], Field(default_factory=dict, description=description))
        for key, description in found.items()
    }


if TYPE_CHECKING:

    class OriginalSpec(Strict):
        """Limits of the model as it is."""

        workloads: dict[str, Strict] = {}
        targets: dict[str, Strict] = {}

    class RecipeSpec(OriginalSpec):
        """Limits of one recipe, against its original and against its base."""

        regression: Strict | None = None

    class CandidateLimits(OriginalSpec):
        """Limits of one candidate, against its original and against its base."""

        regression: Strict | None = None

    BudgetSpec: TypeAlias = Strict
    RegressionSpec: TypeAlias = Strict
else:
    BudgetSpec = create_model(
        "Budget", __base__=Strict, __doc__="Limits by name.", **_limit_fields(BUDGET_LIMITS.values())
    )
    RegressionSpec = create_model(
        "Regression",
        __base__=Strict,
        __doc__="Limits against the base of a pull request, or against a saved record.",
        **_limit_fields(REGRESSION_LIMITS.values()),
    )
    _Absolute = create_model(
        "Absolute", __base__=Strict, __doc__="Limits by name.", **_limit_fields(ORIGINAL_LIMITS.values())
    )
    OriginalSpec = create_model(
        "Original",
        __base__=_Absolute,
        __doc__="Limits of the model as it is, by name.",
        **_at_places(_Absolute),
    )
    _OfAny = create_model(
        "OfAny", __base__=Strict, __doc__="Limits by name.", **_limit_fields(CANDIDATE_LIMITS.values())
    )
    _REGRESSION = (
        RegressionSpec | None,
        Field(default=None, description="Limits against the base, which go before those of the model."),
    )
    RecipeSpec = create_model(
        "Recipe",
        __base__=BudgetSpec,
        __doc__="Limits of one recipe by name.",
        regression=_REGRESSION,
        **_at_places(BudgetSpec),
    )
    CandidateLimits = create_model("CandidateLimits", __base__=_OfAny, regression=_REGRESSION, **_at_places(_OfAny))
