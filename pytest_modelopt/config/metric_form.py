"""How a metric is stated, in budgets.yaml or by a test: a name, or a mapping with what the metric needs besides."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

from pytest_modelopt.config.function_references import (
    DOTTED,
    REFERENCE_SCHEMA,
    is_dotted_name,
    parse_arguments,
    parse_reference,
)
from pytest_modelopt.limits.spelling import did_you_mean, nearest, shown
from pytest_modelopt.results.metric import BUILT_IN, PERPLEXITY, TOP_K, Activation, MetricSpec

ACTIVATIONS = ("sigmoid", "softmax")
_TOP_MEANT = re.compile(r"top[-_ ]?([1-9][0-9]{0,3})", re.IGNORECASE)
_EXPECTED = (
    "write `accuracy`, `top-5`, `agreement`, `cosine`, `sqnr` or `perplexity`, a class by its path, as "
    "`torchmetrics.text.WordErrorRate`, or `package.module:function`"
)


def parse_name(value: object, info: ValidationInfo) -> object:
    """A built-in metric, the dotted path of a class, a function by name; from a test also a live object."""
    if _is_live(value, info):
        return value
    if value is None:
        raise ValueError(f"there is no value; {_EXPECTED}")
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not a metric; {_EXPECTED}")  # noqa: TRY004 - pydantic collects these only
    if value in BUILT_IN or TOP_K.fullmatch(value):
        return value
    if ":" in value:
        return parse_reference(value)
    module, dot, last = value.rpartition(".")
    if dot and is_dotted_name(value):
        if last[0].isupper():
            return value
        raise ValueError(
            f"{shown(value)} does not name a class, whose name begins with a capital letter; "
            f"for a function write {f'{module}:{last}'!r}"
        )
    top = _TOP_MEANT.fullmatch(value.strip())
    meant = f"top-{top[1]}" if top else nearest(value, BUILT_IN)
    raise ValueError(f"{shown(value)} is not a metric; {_EXPECTED}{f'; did you mean {meant!r}?' if meant else ''}")


def parse_prepare(value: object, info: ValidationInfo) -> object:
    """A function by name; from a test also a live one."""
    return value if _is_live(value, info) else parse_reference(value)


def parse_made_with(value: object) -> tuple[tuple[str, object], ...]:
    """What a class is made with."""
    return parse_arguments(value, instead=": in a test, give the metric itself")


def parse_activation(value: object) -> object:
    """`sigmoid` or `softmax`."""
    if value in ACTIVATIONS:
        return value
    near = did_you_mean(value, ACTIVATIONS) if isinstance(value, str) else f"; write {' or '.join(ACTIVATIONS)}"
    raise ValueError(f"{shown(value)} is not an activation that is known here{near}")


def parse_truth(value: object) -> bool:
    """true or false, and nothing that merely counts as one."""
    if not isinstance(value, bool):
        raise ValueError(f"{shown(value)} is neither `true` nor `false`")  # noqa: TRY004 - as above
    return value


def _is_live(value: object, info: ValidationInfo) -> bool:
    live = info.context.get("live") if info.context else None
    return live is not None and isinstance(value, live)


class MetricForm(BaseModel):
    """What scores the answers: a plain name, or a mapping with `name`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[Any, BeforeValidator(parse_name)]
    arguments: Annotated[Any, BeforeValidator(parse_made_with)] = ()
    activation: Annotated[Activation | None, BeforeValidator(parse_activation)] = None
    prepare: Annotated[Any, BeforeValidator(parse_prepare)] = None
    higher_is_better: Annotated[bool | None, BeforeValidator(parse_truth)] = None
    per_example: Annotated[bool, BeforeValidator(parse_truth)] = Field(default=False)

    @model_validator(mode="before")
    @classmethod
    def _of_plain_value(cls, data: object) -> object:
        return data if isinstance(data, dict) else {"name": data}

    @model_validator(mode="after")
    def _fits_together(self) -> MetricForm:
        """What can be told without importing anything: the worker tells the rest when it sees the metric."""
        spec = self.spec()
        if spec.is_built_in:
            forbidden = ("arguments", "activation", "per_example", *(["prepare"] if self.name == PERPLEXITY else []))
            given = [key for key in forbidden if getattr(self, key)]
            if given:
                raise ValueError(f"`{self.name}` is built in and takes no `{given[0]}`; remove it")
            if self.higher_is_better not in (None, spec.known_direction):
                better, stated = ("higher", "false") if spec.known_direction else ("lower", "true")
                raise ValueError(f"`{self.name}` is better when it is {better}; remove `higher_is_better: {stated}`")
        elif isinstance(self.name, str) and ":" not in self.name and self.per_example:
            raise ValueError(
                f"`per_example` is for functions, and `{self.name}` is a class, which is updated batch by batch; "
                "remove it"
            )
        return self

    def spec(self) -> MetricSpec:
        return MetricSpec(
            name=self.name,
            arguments=self.arguments,
            activation=self.activation,
            prepare=self.prepare,
            higher_is_better=self.higher_is_better,
            per_example=self.per_example,
        )


_NAMES: list[dict[str, Any]] = [
    {"enum": list(BUILT_IN)},
    {"type": "string", "pattern": f"^{TOP_K.pattern}$", "examples": ["top-5"]},
    {
        "type": "string",
        "pattern": rf"^{DOTTED}\.[A-Z][A-Za-z0-9_]*$",
        "examples": ["torchmetrics.text.WordErrorRate"],
        "description": "The path of a class of torchmetrics, or of one that is derived from its Metric.",
    },
    REFERENCE_SCHEMA,
]
METRIC_SCHEMA: dict[str, Any] = {
    "default": "accuracy",
    "anyOf": [
        *_NAMES,
        {
            "type": "object",
            "properties": {
                "name": {"anyOf": _NAMES, "description": "The metric."},
                "arguments": {
                    "type": "object",
                    "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
                    "description": "What a class is made with.",
                },
                "activation": {
                    "enum": list(ACTIVATIONS),
                    "description": "Makes probabilities of the outputs, for a class that takes these.",
                },
                "prepare": {
                    **REFERENCE_SCHEMA,
                    "description": "A function (outputs, targets) -> (predictions, targets) of one batch, as the "
                    "metric takes them.",
                },
                "higher_is_better": {"type": "boolean", "description": "Where the metric itself does not say."},
                "per_example": {
                    "type": "boolean",
                    "description": "Of a function: it gives one value for each example of a batch.",
                },
            },
            "required": ["name"],
            "additionalProperties": False,
        },
    ],
}
"""For editors."""
