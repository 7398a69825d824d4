"""The shape of budgets.yaml as types, from which it is checked, and from which the JSON Schema for editors is made.

`python -m pytest_modelopt.config.schema` rewrites schema.json.
"""

from __future__ import annotations

import functools
import json
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    TypeAdapter,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from pytest_modelopt.config.call_form import CallForm
from pytest_modelopt.config.candidate_schema import ONE_ORIGIN, CandidateSpec, Origin
from pytest_modelopt.config.function_references import (
    CALL_SCHEMA,
    PATH,
    REFERENCE_SCHEMA,
    parse_call,
    parse_path,
    parse_reference,
)
from pytest_modelopt.config.limit_schema import (
    WORDS_OF_UNITS,
    BudgetSpec,
    OriginalSpec,
    RecipeSpec,
    RegressionSpec,
    Strict,
)
from pytest_modelopt.config.metric_form import METRIC_SCHEMA, MetricForm
from pytest_modelopt.config.target_schema import TargetSpec
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


def parse_batch_of(value: object) -> int | str:
    """A number of examples, or the function that says it of a batch."""
    if isinstance(value, str):
        return parse_reference(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(
            f"{shown(value)} is neither the number of examples in each batch nor a function (inputs) -> number, "
            "`package.module:function`"
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


Call = Annotated[Any, BeforeValidator(parse_call), WithJsonSchema(CALL_SCHEMA)]
Reference = Annotated[str, BeforeValidator(parse_reference), WithJsonSchema(REFERENCE_SCHEMA)]
BatchOf = Annotated[
    int | str,
    BeforeValidator(parse_batch_of),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, REFERENCE_SCHEMA]}),
]
PathBelow = Annotated[str, BeforeValidator(parse_path), WithJsonSchema({"type": "string", "pattern": PATH})]
Device = Annotated[str, BeforeValidator(parse_device), WithJsonSchema({"type": "string", "pattern": DEVICE_PATTERN})]
_INFERENCE_SCHEMA = {"enum": list(INFERENCES)}
InferenceOf = Annotated[Inference, BeforeValidator(parse_inference), WithJsonSchema(_INFERENCE_SCHEMA)]
ModelInference = Annotated[str, BeforeValidator(parse_inference), WithJsonSchema(_INFERENCE_SCHEMA)]
"""Empty where a model says nothing, so that `defaults` hold."""
_COUNT, _SECONDS = WithJsonSchema({"type": "integer", "minimum": 1}), WithJsonSchema(WORDS_OF_UNITS["time"][0])
Count = Annotated[int, BeforeValidator(parse_count), _COUNT]
Seconds = Annotated[float, BeforeValidator(parse_time), _SECONDS]
OwnCount = Annotated[int | None, BeforeValidator(parse_count), _COUNT]
OwnSeconds = Annotated[float | None, BeforeValidator(parse_time), _SECONDS]
"""None where nothing is said, so that something else holds."""
Command = Annotated[
    tuple[str, ...],
    BeforeValidator(parse_command),
    WithJsonSchema({"type": "array", "items": {"type": "string"}, "minItems": 1}),
]
Version = Annotated[int, BeforeValidator(parse_version), WithJsonSchema({"const": 1})]


CASES = ("recipes", "candidates", "original")
"""Of a model: at least one of them must be there."""

_IGNORED: dict[str, JsonValue] = {"patternProperties": {"^x-": {}}}
"""Keys for anchors."""
_OF_EACH = "of every model that states none of its own closer by"
Recipes = Annotated[dict[str, RecipeSpec | None], BeforeValidator(_not_empty("int8-dynamic"))]

# --- the types -------------------------------------------------------------------------------------------------------


_TIME_LIMIT = "The longest that the timing of one comparison may take."
_EXAMPLE_INPUTS = "The function that returns the inputs of the timed call."


class CallSpec(Strict):
    """How the call is made that is timed and whose memory is measured; what is not stated is that of the model, or of
    `defaults`."""

    batch_size: OwnCount = Field(
        default=None, description="Examples in the call: the first of `data`, or of `example_inputs` of the model."
    )
    threads: OwnCount = Field(default=None, description="Threads inside one operation.")
    device: Device = Field(default="", description="Where the model runs: `cpu`, `cuda` or `cuda:1`.")
    time_limit: OwnSeconds = Field(default=None, description=_TIME_LIMIT)
    example_inputs: Call = Field(default="", description=_EXAMPLE_INPUTS)


class WorkloadSpec(CallSpec, BudgetSpec):
    """An operating point: how the model is called there, and its limits, for every recipe and every candidate."""


class DefaultsSpec(Strict):
    """How every case is measured."""

    device: Device = Field(default="cpu", description="Where the models run: `cpu`, `cuda` or `cuda:1`.")
    threads: Count = Field(default=1, description="Threads inside one operation while timing; 1 repeats best.")
    batch_size: Count = Field(default=1, description="Examples in the timed and memory-measured call.")
    time_limit: Seconds = Field(default=20.0, description=_TIME_LIMIT)
    step_limit: Seconds = Field(
        default=600.0, description="The longest that loading, optimizing or scoring may each take."
    )
    inference: InferenceOf = Field(
        default="set",
        description="What limits on accuracy are about: the examples themselves (`set`), or the `population` that they "
        "were drawn from, by 95% bounds.",
    )
    budget: BudgetSpec | None = Field(default=None, description=f"Limits {_OF_EACH}.")
    metric: Annotated[MetricForm | None, WithJsonSchema(METRIC_SCHEMA)] = Field(
        default=None, description=f"The metric {_OF_EACH}."
    )
    recipes: Recipes = Field(
        default_factory=dict, description=f"Recipes {_OF_EACH}, beside its own.", json_schema_extra={"minProperties": 1}
    )


class PatternSpec(CallSpec):
    """What holds for all models whose names match, unless one of them states it itself."""

    model_config = ConfigDict(json_schema_extra=_IGNORED)
    unstated_metric: ClassVar[str | None] = None

    data: Call = Field(
        default="",
        description="The function that returns the examples to score on, with their targets. Without it, no limit may "
        "be about answers, and `example_inputs` is needed.",
    )
    calibration: Call = Field(default="", description="The function that returns examples for recipes to learn from.")
    batch_of: BatchOf = Field(
        default="",
        description="How many examples are in each batch of the data, or the function (inputs) -> number that says it, "
        "where neither targets nor the entries of all inputs do; such batches are used whole.",
    )
    call: CallForm | None = Field(
        default=None,
        description="What is called, where that is not `model(inputs)`: a function (model, inputs) -> outputs, a whole "
        "pipeline for example, or more than one forward pass.",
    )
    optimize: PathBelow = Field(
        default="",
        description="The module that recipes change, by its dotted path below the model; the model itself where "
        "nothing is said.",
        examples=["encoder"],
    )
    metric: Annotated[MetricForm, WithJsonSchema(METRIC_SCHEMA)] = Field(
        default_factory=lambda: MetricForm(name="accuracy"),
        description="What scores the answers; `perplexity` where the model generates.",
        json_schema_extra={"default": "accuracy"},  # versions of pydantic differ on what a factory gives
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
    workloads: Annotated[dict[str, WorkloadSpec], BeforeValidator(_not_empty("online"))] = Field(
        default_factory=dict,
        description="Operating points by name. Each recipe, each candidate and the original is a case at each of them, "
        "with its memory, its latency and its limits; answers and size are measured once.",
        json_schema_extra={"minProperties": 1, "propertyNames": {"pattern": r"^(?!.*::)[^/@#]+$"}},
        examples=[{"online": {"batch_size": 1}, "night": {"batch_size": 32, "threads": 2, "min_speedup": "1.5x"}}],
    )
    targets: dict[str, BudgetSpec] = Field(
        default_factory=dict,
        description="Limits of this model on the machines of a target of the file, by its name: for every recipe and "
        "every candidate there.",
        json_schema_extra={"minProperties": 1},
        examples=[{"server": {"min_speedup": "1.5x"}}],
    )
    regression: RegressionSpec | None = Field(
        default=None,
        description="Limits against the base, for the original and for every recipe: checked under `--modelopt-against`"
        " and `--modelopt-baseline`.",
    )
    recipes: Recipes = Field(
        default_factory=dict,
        description="The optimizations, each with its limits, which go before those of `budget`. Join with `+`.",
        json_schema_extra={"minProperties": 1},
        examples=[{"int8-dynamic": {"max_memory": "3 MiB", "min_speedup": "1.2x"}}],
    )

    @model_validator(mode="before")
    @classmethod
    def _pass_metric_to_limits(cls, data: object, info: ValidationInfo) -> object:
        """What a bare number or a point means in an accuracy limit depends on the metric of the model around it.

        A model that generates gets its default here: pydantic before 2.10 has no default that depends on other fields,
        and one of later versions is an error of its own where another field is wrong.
        """
        if isinstance(data, dict) and isinstance(data.get("call"), dict):
            data = {"metric": PERPLEXITY, **data}
        if isinstance(data, dict) and isinstance(info.context, dict):
            stated = data.get("metric", cls.unstated_metric)
            name = stated.get("name") if isinstance(stated, dict) else stated
            info.context["metric"] = name if isinstance(name, str) else None
        return data


class ModelSpec(PatternSpec, Origin):
    """One model: where it comes from, what it is scored on, and its budgets."""

    model_config = ConfigDict(json_schema_extra={**_IGNORED, "oneOf": ONE_ORIGIN})
    unstated_metric: ClassVar[str | None] = "accuracy"

    candidates: Annotated[dict[str, CandidateSpec], BeforeValidator(_not_empty("student"))] = Field(
        default_factory=dict,
        description="Optimized models that the project has made itself, by a factory or as a file, each with its "
        "limits, which go before those of `budget`.",
        json_schema_extra={"minProperties": 1, "propertyNames": {"pattern": r"^(?!.*::)[^/]+$"}},
        examples=[{"student": {"factory": "shop.models:load_student", "min_speedup": "3x"}}],
    )


class BudgetsSpec(Strict):
    """What every optimized model must keep: memory, size, speed and accuracy."""

    model_config = ConfigDict(json_schema_extra=_IGNORED)

    version: Version = Field(description="The version of this file's format.")
    defaults: DefaultsSpec | None = None
    models: Annotated[dict[str, ModelSpec], BeforeValidator(_not_empty("my-model"))] = Field(
        description="The models by name.",
        json_schema_extra={"minProperties": 1, "propertyNames": {"pattern": r"^(?!.*::)[^/]+$"}},
    )
    targets: Annotated[dict[str, TargetSpec], BeforeValidator(_not_empty("server"))] = Field(
        default_factory=dict,
        description="Kinds of machines by name, each with the limits that hold there. A limit that is stated without a "
        "target holds everywhere.",
        json_schema_extra={"minProperties": 1, "propertyNames": {"pattern": r"^(?!.*::)[^/@#]+$"}},
        examples=[{"server": {"instructions": ["avx512_vnni"], "required": True, "min_speedup": "1.3x"}}],
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


def validate_patterns(data: object) -> None:
    """Of what stands below patterns of names. Raises ValidationError."""
    TypeAdapter(dict[str, PatternSpec]).validate_python(data, context={})


# --- the JSON Schema -------------------------------------------------------------------------------------------------


_PATTERN = r"[*?\[]"
_HAS_CASES: list[dict[str, Any]] = [
    {"properties": {"defaults": {"required": ["recipes"]}}, "required": ["defaults"]},
    {"properties": {"models": {"not": {"propertyNames": {"not": {"pattern": _PATTERN}}}}}},
    {"properties": {"models": {"additionalProperties": {"anyOf": [{"required": [key]} for key in CASES]}}}},
]
"""By what is shared, or in each model: a pattern may match it or not, which no schema tells."""


@functools.cache  # pydantic takes a third of a second for it
def json_schema() -> dict[str, Any]:
    """The JSON Schema of budgets.yaml, for editors; not to be changed."""
    of_all, pattern = BudgetsSpec.model_json_schema(), PatternSpec.model_json_schema()
    of_all["$defs"] |= {**pattern.pop("$defs"), "PatternSpec": pattern}
    of_all["properties"]["models"]["patternProperties"] = {_PATTERN: {"$ref": "#/$defs/PatternSpec"}}
    of_all["anyOf"] = _HAS_CASES
    schema = _without_noise(of_all)
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
