"""The shape of budgets.yaml as types, from which it is checked, and from which the JSON Schema for editors is made.

`python -m pytest_modelopt.config.schema` rewrites schema.json.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, ValidationInfo, WithJsonSchema, model_validator

from pytest_modelopt.config.call_form import CallForm
from pytest_modelopt.config.candidate_schema import ONE_ORIGIN, CandidateSpec, Origin
from pytest_modelopt.config.function_references import REFERENCE_SCHEMA, parse_reference
from pytest_modelopt.config.limit_schema import (
    WORDS_OF_UNITS,
    BudgetSpec,
    OriginalSpec,
    RecipeSpec,
    RegressionSpec,
    Strict,
)
from pytest_modelopt.config.metric_form import METRIC_SCHEMA, MetricForm
from pytest_modelopt.config.waiver_schema import WaiverForm
from pytest_modelopt.limits.catalogue import INFERENCES, parse_inference
from pytest_modelopt.limits.spelling import shown
from pytest_modelopt.limits.units import parse_time
from pytest_modelopt.results.answers import Inference
from pytest_modelopt.results.metric import PERPLEXITY

SCHEMA_FILE = Path(__file__).with_name("schema.json")
Location = tuple[str | int, ...]
"""Where something stands in the file: the keys that lead to it."""

DEVICE_PATTERN = r"^(?:cpu|cuda(?::[0-9]{1,3})?)$"


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


def parse_command(value: object) -> tuple[str, ...]:
    """A program and its arguments, which no shell reads."""
    example = "`base_setup: [python, tools/make_weights.py]`"
    if not isinstance(value, list) or not value:
        raise ValueError(f"{shown(value)} is not a list of a program and its arguments; write for example {example}")
    for part in value:
        if not isinstance(part, str) or "\0" in part:
            raise ValueError(
                f"{shown(part)} is no text; there is one command, whose arguments are texts: put quotes around each, "
                f"as in {example}"
            )
    if not value[0].strip():
        raise ValueError(f"the command begins with an empty text; begin with a program, for example {example}")
    return tuple(value)


def _not_empty(example: str) -> Callable[[object], object]:
    def check(value: object) -> object:
        if value is None or value == {}:
            raise ValueError(f"there is nothing in it; add at least one entry below it, for example `{example}:`")
        if isinstance(value, list):
            message = f"it is a list, but must be a mapping; write `{example}:` instead of `- {example}`"
            raise ValueError(message)  # noqa: TRY004 - pydantic collects ValueErrors only
        return value

    return check


Reference = Annotated[str, BeforeValidator(parse_reference), WithJsonSchema(REFERENCE_SCHEMA)]
Device = Annotated[str, BeforeValidator(parse_device), WithJsonSchema({"type": "string", "pattern": DEVICE_PATTERN})]
_INFERENCE_SCHEMA = {"enum": list(INFERENCES)}
InferenceOf = Annotated[Inference, BeforeValidator(parse_inference), WithJsonSchema(_INFERENCE_SCHEMA)]
ModelInference = Annotated[str, BeforeValidator(parse_inference), WithJsonSchema(_INFERENCE_SCHEMA)]
"""Empty where a model says nothing, so that `defaults` hold."""
Count = Annotated[int, BeforeValidator(parse_count), WithJsonSchema({"type": "integer", "minimum": 1})]
Seconds = Annotated[float, BeforeValidator(parse_time), WithJsonSchema(WORDS_OF_UNITS["time"][0])]
Command = Annotated[
    tuple[str, ...],
    BeforeValidator(parse_command),
    WithJsonSchema({"type": "array", "items": {"type": "string"}, "minItems": 1}),
]
Version = Annotated[int, BeforeValidator(parse_version), WithJsonSchema({"const": 1})]


CASES = ("recipes", "candidates", "original")
"""Of a model: at least one of them must be there."""

# --- the types -------------------------------------------------------------------------------------------------------


class DefaultsSpec(Strict):
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


class ModelSpec(Origin):
    """One model: where it comes from, what it is scored on, and its budgets."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": [key]} for key in CASES], "oneOf": ONE_ORIGIN})

    data: Reference = Field(
        default="",
        description="The function that returns the examples to score on, with their targets. Without it, no limit may "
        "be about answers, and `example_inputs` is needed.",
    )
    calibration: Reference = Field(
        default="", description="The function that returns examples for recipes to learn from."
    )
    example_inputs: Reference = Field(default="", description="The function that returns the inputs of the timed call.")
    call: CallForm | None = Field(
        default=None, description="How the model is called, where that is more than one forward pass."
    )
    metric: Annotated[MetricForm, WithJsonSchema(METRIC_SCHEMA)] = Field(
        default_factory=lambda data: MetricForm(name="accuracy" if data.get("call") is None else PERPLEXITY),
        description="What scores the answers; `perplexity` where the model generates.",
    )
    slices: Reference = Field(
        default="",
        description="The function (inputs, target) -> name that puts each example into a slice, for `max_slice_drop`; "
        "without it a classifier's slices are the classes.",
    )
    inference: ModelInference = Field(
        default="", description="As in `defaults`, for this model: `set` or `population`."
    )
    original: OriginalSpec | None = Field(
        default=None, description="Limits of the model as it is, a case of its own; `budget` does not bind it."
    )
    budget: BudgetSpec | None = Field(
        default=None, description="Limits that hold for every recipe and every candidate of this model."
    )
    regression: RegressionSpec | None = Field(
        default=None,
        description="Limits against the base, for the original and for every recipe: checked under `--modelopt-against`"
        " and `--modelopt-baseline`.",
    )
    recipes: Annotated[dict[str, RecipeSpec | None], BeforeValidator(_not_empty("int8-dynamic"))] = Field(
        default_factory=dict,
        description="The optimizations, each with its limits, which go before those of `budget`. Join with `+`.",
        json_schema_extra={"minProperties": 1},
        examples=[{"int8-dynamic": {"max_memory": "3 MiB", "min_speedup": "1.2x"}}],
    )

    candidates: Annotated[dict[str, CandidateSpec], BeforeValidator(_not_empty("student"))] = Field(
        default_factory=dict,
        description="Optimized models that the project has made itself, by a factory or as a file, each with its "
        "limits, which go before those of `budget`.",
        json_schema_extra={"minProperties": 1, "propertyNames": {"pattern": r"^(?!.*::)[^/]+$"}},
        examples=[{"student": {"factory": "shop.models:load_student", "min_speedup": "3x"}}],
    )

    @model_validator(mode="before")
    @classmethod
    def _tell_limits_the_metric(cls, data: object, info: ValidationInfo) -> object:
        """What a bare number or a point means in an accuracy limit depends on the metric of the model around it."""
        if isinstance(data, dict) and isinstance(info.context, dict):
            stated = data.get("metric", PERPLEXITY if "call" in data else "accuracy")
            name = stated.get("name") if isinstance(stated, dict) else stated
            info.context["metric"] = name if isinstance(name, str) else None
        return data


class BudgetsSpec(Strict):
    """What every optimized model must keep: memory, size, speed and accuracy."""

    version: Version = Field(description="The version of this file's format.")
    defaults: DefaultsSpec | None = None
    models: Annotated[dict[str, ModelSpec], BeforeValidator(_not_empty("my-model"))] = Field(
        description="The models by name.",
        json_schema_extra={"minProperties": 1, "propertyNames": {"pattern": r"^(?!.*::)[^/]+$"}},
    )
    base_setup: Command = Field(
        default=(),
        description="A command, as a list without a shell, that makes in the tree of the base what git ignores: "
        "weights that are downloaded or built. It runs in the folder of this file there, within `step_limit`.",
        examples=[["python", "tools/make_weights.py"]],
    )
    waivers: list[WaiverForm] | None = Field(
        default=None, description="Limits that may be broken for a while, each with its reason and its last day."
    )


def validate(data: object) -> BudgetsSpec:
    """The checked file. Raises pydantic's ValidationError, whose entries `explaining` puts into words."""
    return BudgetsSpec.model_validate(data, context={})


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
