"""The shape of budgets.yaml as types, from which it is checked, and from which the JSON Schema for editors is made.

`python -m pytest_modelopt.budgets.schema` rewrites schema.json.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    create_model,
    model_validator,
)

from pytest_modelopt.budgets.limits import (
    BUDGET_LIMITS,
    DESCRIPTION_OF_LEVEL,
    INFERENCES,
    LEVELS,
    LIMITS,
    LimitKind,
    Unit,
    metric_in_unit_interval,
    no_drop,
    parse_inference,
    parse_level,
    parse_value,
    unknown_limit,
)
from pytest_modelopt.budgets.metric import METRIC_SCHEMA, MetricForm
from pytest_modelopt.budgets.references import REFERENCE_SCHEMA, parse_reference
from pytest_modelopt.budgets.spelling import did_you_mean, plain, shown
from pytest_modelopt.budgets.units import BYTE_UNITS, NUMBER_PATTERN, TIME_UNITS, UnitError, parse_time
from pytest_modelopt.metrics import MetricSpec
from pytest_modelopt.record.answers import Inference
from pytest_modelopt.record.verdicts import Level

SCHEMA_FILE = Path(__file__).with_name("schema.json")
Location = tuple[str | int, ...]
"""Where something stands in the file: the keys that lead to it."""

DEVICE_PATTERN = r"^(?:cpu|cuda(?::[0-9]{1,3})?)$"
_NOT_YET = ("regression", "waivers")
_FIRST_LINES = {
    "version": "`version: 1`",
    "models": "`models:` with at least one model below it",
    "factory": "`factory: package.module:function`, the function that returns the model",
    "data": "`data: package.module:function`, the function that returns the examples",
    "recipes": "`recipes:` with at least one recipe below it, for example `int8-dynamic:`",
    "limit": "`limit:` with the value",
    "name": "`name:` with the metric, for example `torchmetrics.text.WordErrorRate`",
}


# --- values ----------------------------------------------------------------------------------------------------------


def parse_device(value: object) -> str:
    """`cpu`, or an NVIDIA GPU by torch's name for it."""
    if not isinstance(value, str) or not re.match(DEVICE_PATTERN, value):
        raise ValueError(f"{shown(value)} is not a device that is known here; write `cpu`, `cuda` or `cuda:0`")
    return value


def parse_count(value: object) -> int:
    """A whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{shown(value)} is not a whole number of at least 1; write for example `1`")
    return value


def parse_version(value: object) -> int:
    """The version of the file's format, 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value != 1:
        raise ValueError(
            f"{shown(value)} is not a version of this file's format that is known here; write `version: 1`"
        )
    return value


def _not_empty(example: str) -> Callable[[object], object]:
    def check(value: object) -> object:
        if value is None or value == {}:
            raise ValueError(f"there is nothing in it; add at least one entry below it, for example `{example}:`")
        if isinstance(value, list):
            message = f"it is a list, but must be a mapping; write `{example}:` instead of `- {example}`"
            raise ValueError(message)  # noqa: TRY004 - pydantic collects ValueErrors only
        return value

    return check


# --- the schemas of values, for editors ------------------------------------------------------------------------------


def _text(pattern: str, *examples: str) -> dict[str, Any]:
    return {"type": "string", "pattern": rf"^\s*{pattern}\s*$", "examples": list(examples)}


_AMOUNT = NUMBER_PATTERN.removeprefix("[+-]?")
_WORDS_OF_UNITS: dict[Unit, list[dict[str, Any]]] = {
    "bytes": [
        _text(rf"{_AMOUNT}\s*(?:{'|'.join(BYTE_UNITS)})", "6 MiB", "500 kB"),
        {"type": "integer", "minimum": 0, "description": "Bytes."},
    ],
    "percentage": [
        _text(rf"{_AMOUNT}\s*%", "60%"),
        {"type": "number", "minimum": 0, "maximum": 1, "description": "A fraction."},
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


def _limit_schema(kind: LimitKind) -> dict[str, Any]:
    value = {"anyOf": _WORDS_OF_UNITS[kind.unit]}
    level = {"enum": list(LEVELS), "default": "error", "description": DESCRIPTION_OF_LEVEL}
    stated = {
        "type": "object",
        "properties": {"limit": {"description": kind.meaning, **value}, "level": level},
        "required": ["limit"],
        "additionalProperties": False,
    }
    return {"anyOf": [*_WORDS_OF_UNITS[kind.unit], stated]}


Reference = Annotated[str, BeforeValidator(parse_reference), WithJsonSchema(REFERENCE_SCHEMA)]
Device = Annotated[str, BeforeValidator(parse_device), WithJsonSchema({"type": "string", "pattern": DEVICE_PATTERN})]
_INFERENCE_SCHEMA = {"enum": list(INFERENCES)}
InferenceOf = Annotated[Inference, BeforeValidator(parse_inference), WithJsonSchema(_INFERENCE_SCHEMA)]
ModelInference = Annotated[str, BeforeValidator(parse_inference), WithJsonSchema(_INFERENCE_SCHEMA)]
"""Empty where a model says nothing, so that `defaults` hold."""
Count = Annotated[int, BeforeValidator(parse_count), WithJsonSchema({"type": "integer", "minimum": 1})]
Seconds = Annotated[float, BeforeValidator(parse_time), WithJsonSchema(_WORDS_OF_UNITS["time"][0])]
Version = Annotated[int, BeforeValidator(parse_version), WithJsonSchema({"const": 1})]


# --- the types -------------------------------------------------------------------------------------------------------


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LimitSpec(_Strict):
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
        if no_drop(kind.name, metric):
            raise UnitError(no_drop(kind.name, metric))
        return parse_value(kind.name, value, unit_interval=metric_in_unit_interval(metric))

    spec = create_model(kind.name, __base__=LimitSpec, limit=(Annotated[float, BeforeValidator(parse)], ...))
    return Annotated[spec, WithJsonSchema(_limit_schema(kind))], Field(default=None, description=kind.meaning)


if TYPE_CHECKING:
    BudgetSpec: TypeAlias = _Strict
else:
    BudgetSpec = create_model(
        "Budget",
        __base__=_Strict,
        __doc__="Limits by name.",
        **{kind.name: _limit_field(kind) for kind in BUDGET_LIMITS.values()},
    )


class DefaultsSpec(_Strict):
    """How every case is measured."""

    device: Device = Field(default="cpu", description="Where the models run: `cpu`, `cuda` or `cuda:1`.")
    threads: Count = Field(default=1, description="Threads inside one operation while timing; 1 repeats best.")
    batch_size: Count = Field(default=1, description="Examples in the timed and memory-measured call.")
    time_limit: Seconds = Field(default=20.0, description="The longest that the timing of one comparison may take.")
    step_limit: Seconds = Field(
        default=600.0, description="The longest that loading, optimizing or scoring may each take."
    )
    inference: InferenceOf = Field(
        default="set",
        description="What limits on accuracy are about: the examples themselves (`set`), or the `population` that they "
        "were drawn from, by 95% bounds.",
    )


class ModelSpec(_Strict):
    """One model: where it comes from, what it is scored on, and its budgets."""

    factory: Reference = Field(description="The function that returns the model: `package.module:function`.")
    data: Reference = Field(description="The function that returns the examples to score on, with their targets.")
    calibration: Reference = Field(
        default="", description="The function that returns examples for recipes to learn from."
    )
    example_inputs: Reference = Field(default="", description="The function that returns the inputs of the timed call.")
    metric: Annotated[MetricForm, WithJsonSchema(METRIC_SCHEMA)] = Field(
        default_factory=lambda: MetricForm(name="accuracy"), description="What scores the answers."
    )
    slices: Reference = Field(
        default="",
        description="The function (inputs, target) -> name that puts each example into a slice, for `max_slice_drop`; "
        "without it a classifier's slices are the classes.",
    )
    inference: ModelInference = Field(
        default="", description="As in `defaults`, for this model: `set` or `population`."
    )
    budget: BudgetSpec | None = Field(default=None, description="Limits that hold for every recipe of this model.")
    recipes: Annotated[dict[str, BudgetSpec | None], BeforeValidator(_not_empty("int8-dynamic"))] = Field(
        description="The optimizations, each with its limits, which go before those of `budget`. Join with `+`.",
        json_schema_extra={"minProperties": 1},
        examples=[{"int8-dynamic": {"max_memory": "3 MiB", "min_speedup": "1.2x"}}],
    )

    @model_validator(mode="before")
    @classmethod
    def _tell_limits_the_metric(cls, data: object, info: ValidationInfo) -> object:
        """What a bare number or a point means in an accuracy limit depends on the metric of the model around it."""
        if isinstance(data, dict) and isinstance(info.context, dict):
            stated = data.get("metric", "accuracy")
            name = stated.get("name") if isinstance(stated, dict) else stated
            info.context["metric"] = name if isinstance(name, str) else None
        return data


class BudgetsSpec(_Strict):
    """What every optimized model must keep: memory, size, speed and accuracy."""

    version: Version = Field(description="The version of this file's format.")
    defaults: DefaultsSpec | None = None
    models: Annotated[dict[str, ModelSpec], BeforeValidator(_not_empty("my-model"))] = Field(
        description="The models by name.",
        json_schema_extra={"minProperties": 1, "propertyNames": {"pattern": r"^(?!.*::)[^/]+$"}},
    )


def validate(data: object) -> BudgetsSpec:
    """The checked file. Raises pydantic's ValidationError, whose entries `explain` puts into words."""
    return BudgetsSpec.model_validate(data, context={})


def parse_metric(value: object, live: type) -> MetricSpec:
    """A metric as a test states it, in which objects of the type `live` stand for the test's own functions.

    Raises:
        ValueError: with all that is wrong.
    """
    try:
        return MetricForm.model_validate(value, context={"live": live}).spec()
    except ValidationError as error:
        found = error.errors(include_url=False)
        told = [explain(("metric", *f["loc"]), f["type"], f["input"], f.get("ctx", {}).get("error")) for f in found]
        raise ValueError("; ".join(told)) from None


# --- problems in words -----------------------------------------------------------------------------------------------


def explain(location: Location, error_type: str, value: object, cause: object) -> str:
    """One of pydantic's findings as a sentence of our own. `cause` is the error of a parser of ours, if any."""
    if error_type == "missing":
        key = str(location[-1])
        return f"{_subject(location[:-1])} has no `{key}`; add {_FIRST_LINES.get(key, f'`{key}:`')}"
    if error_type == "extra_forbidden":
        return _unknown_key(location[:-1], str(location[-1]))
    if cause is not None:
        return f"{_subject(location)}: {cause}"
    if error_type in ("dict_type", "model_type"):
        return (
            f"{_subject(location)}: a mapping is needed here, that is `key: value` lines, but there is {shown(value)}"
        )
    return f"{_subject(location)}: {shown(value)} does not fit here"


def _subject(location: Location) -> str:
    """What a location is, as a person would say it."""
    keys = [plain(str(key)) for key in location]
    if not keys:
        return "the file"
    if keys[-1] == "limit" and _holds_limits(location[:-2]):
        keys.pop()
    if keys[-1] == "name" and _states_metric(location[:-1]):
        keys.pop()
    if keys[0] != "models" or len(keys) == 1:
        return " of ".join(reversed(keys))
    model, rest = keys[1], keys[2:]
    if len(rest) > 1 and rest[0] == "recipes":
        return " of ".join([*reversed(rest[2:]), f"{model}/{rest[1]}"])
    return " of ".join([*reversed([key for key in rest if key != "budget" or len(rest) == 1]), model])


def _holds_limits(location: Location) -> bool:
    """Whether the mapping there holds limits by name."""
    if len(location) < 3 or location[0] != "models":
        return False
    return location[2:] == ("budget",) or (location[2] == "recipes" and len(location) == 4)


def _states_metric(location: Location) -> bool:
    """Whether the mapping there is a metric with what it needs."""
    return location == ("metric",) or (len(location) == 3 and location[0] == "models" and location[2] == "metric")


def _unknown_key(parent: Location, key: str) -> str:
    in_model = len(parent) == 2 and parent[0] == "models"
    if key in _NOT_YET and (not parent or in_model):
        return f"`{key}` is not in this version of pytest-modelopt yet, so nothing would be checked; remove it"
    if _holds_limits(parent):
        return f"{_subject(parent)}: {unknown_limit(key)}"
    if key in LIMITS:
        return f"{_subject(parent)}: `{key}` is a limit; move it below a recipe, or below `budget` of a model"
    spec: type[BaseModel] = BudgetsSpec if not parent else ModelSpec if in_model else LimitSpec
    if _states_metric(parent):
        spec = MetricForm
    known = (DefaultsSpec if parent == ("defaults",) else spec).model_fields
    return f"{_subject(parent)}: unknown key {shown(key)}{did_you_mean(key, known)}"


# --- the JSON Schema -------------------------------------------------------------------------------------------------


def json_schema() -> dict[str, Any]:
    """The JSON Schema of budgets.yaml, for editors."""
    schema = _without_noise(BudgetsSpec.model_json_schema())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "pytest-modelopt budgets", **schema}


def schema_text() -> str:
    """The content of schema.json."""
    return json.dumps(json_schema(), indent=2) + "\n"


def _without_noise(value: Any, *, names: bool = False) -> Any:
    """Without the titles and the defaults that pydantic makes up. `names` says that the keys are the user's keys."""
    if isinstance(value, list):
        return [_without_noise(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _without_noise(item, names=key in ("properties", "$defs") and not names)
        for key, item in value.items()
        if names or not (key == "title" or (key == "default" and item in (None, "")))
    }


def _rewrite(path: Path) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as stream:
        stream.write(schema_text())
    Path(temporary).chmod(0o644)
    Path(temporary).replace(path)


if __name__ == "__main__":
    _rewrite(SCHEMA_FILE)
