"""The shape of `candidates:` in budgets.yaml, and of where a model comes from: its factory, or its file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, JsonValue, WithJsonSchema, model_validator

from pytest_modelopt.config.function_references import CALL_SCHEMA, parse_call
from pytest_modelopt.config.limit_schema import CandidateLimits, Strict
from pytest_modelopt.limits.spelling import plain, shown
from pytest_modelopt.optimizing.runtimes.runtime import not_measured, runtimes
from pytest_modelopt.results.source import Named, ProgramSource

_CALLED_AS_THE_MODEL = (".pt2", ".pt")
"""Of torch.export or AOTInductor, of TorchScript: with the positions and keywords of the data."""
SUFFIXES = (*(runtime.suffix for runtime in runtimes().values()), *_CALLED_AS_THE_MODEL)
"""Of files that can be measured."""
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


def parse_file(value: object) -> str:
    """A file by its path from the folder of the budgets file."""
    example = "`file: dist/reader.onnx`"
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError(f"{shown(value)} is not the path of a file; write for example {example}")
    path = PurePosixPath(value)
    if "\\" in value or path.is_absolute() or re.match(r"[A-Za-z]:", value):
        raise ValueError(
            f"{shown(value)} is not a path from the folder of this file, with `/`; write for example {example}"
        )
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{shown(value)} {not_measured(path.suffix, SUFFIXES)}")
    return value


def parse_sha256(value: object) -> tuple[tuple[str, str], ...]:
    """64 hexadecimal digits, or these for each file of the program, by its path from the folder of the named one."""
    sums: Mapping[Any, Any] = value if isinstance(value, Mapping) and value else {"": value}
    for each in sums.values():
        if not isinstance(each, str) or not _SHA256.fullmatch(each):
            raise ValueError(
                f"{shown(each)} is no SHA-256 sum, which has 64 hexadecimal digits; `sha256sum FILE` prints it"
            )
    return tuple((str(name), each.lower()) for name, each in sums.items())


def parse_inputs(value: object) -> tuple[tuple[str, int | str], ...]:
    """Inputs of the file by name, each with the argument of the model's call: a position from 0, or a keyword."""
    example = "`inputs: {image: 0}`"
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"{shown(value)} does not say which argument each input gets; write for example {example}")
    for name, argument in value.items():
        is_position = type(argument) is int and argument >= 0
        if not isinstance(name, str) or not (is_position or (isinstance(argument, str) and argument)):
            raise ValueError(
                f"{shown(argument)} is neither a position from 0 on nor a keyword; write for example {example}"
            )
    if len(set(value.values())) != len(value):
        raise ValueError("two inputs get the same argument; give each its own")
    return tuple(value.items())


File = Annotated[
    str,
    BeforeValidator(parse_file),
    WithJsonSchema({"type": "string", "pattern": rf"({'|'.join(map(re.escape, SUFFIXES))})$"}),
]
_SUM_SCHEMA: dict[str, JsonValue] = {"type": "string", "pattern": "^[0-9a-fA-F]{64}$"}
Sha256 = Annotated[
    tuple[tuple[str, str], ...],
    BeforeValidator(parse_sha256),
    WithJsonSchema(
        {"anyOf": [_SUM_SCHEMA, {"type": "object", "additionalProperties": _SUM_SCHEMA, "minProperties": 1}]}
    ),
]
InputNames = Annotated[
    tuple[tuple[str, int | str], ...],
    BeforeValidator(parse_inputs),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": ["integer", "string"]}, "minProperties": 1}),
]
Factory = Annotated[Any, BeforeValidator(parse_call), WithJsonSchema(CALL_SCHEMA)]


class Origin(Strict):
    """Where a model or a candidate comes from: of `factory` and `file` there is one."""

    factory: Factory = Field(
        default="",
        description="The function that returns the model, or its `name` and `arguments`.",
    )
    file: File = Field(default="", description="The model as a file, by its path from the folder of this file.")
    sha256: Sha256 = Field(
        default=(),
        description="The SHA-256 sum that the file must have; where others belong to it (external data of an .onnx, "
        "the .bin of an .xml), that of each, by name.",
    )
    inputs: InputNames = Field(
        default=(), description="Which argument of the model's call each input of the file gets, where names differ."
    )

    @property
    def origin(self) -> Named | ProgramSource:
        made: Named = self.factory
        return made or ProgramSource(self.file, self.sha256, self.inputs)


ONE_ORIGIN: list[JsonValue] = [{"required": ["factory"]}, {"required": ["file"]}]
"""In the JSON Schema."""


def origin_mistakes(stated: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the keys of an origin, as sentences without their subject."""
    origins = [key for key in ("factory", "file") if key in stated]
    if len(origins) == 2:
        yield "it has a `factory:` and a `file:`; keep the one that makes what is shipped"
    if not origins:
        yield "it has neither a `factory:` nor a `file:`; add `factory: package.module:function`"
    for key in ("sha256", "inputs"):
        if key in stated and "file" not in stated:
            yield f"`{key}:` belongs to a `file:`, and this is a factory; leave it out"
    if "inputs" in stated and str(stated.get("file", "")).endswith(_CALLED_AS_THE_MODEL):
        file = plain(str(stated["file"]))
        yield f"`inputs:` would change nothing: {file} is called as the model itself; leave it out"


class CandidateSpec(CandidateLimits, Origin):
    """An optimized model that the project has made itself: its origin, and its limits."""

    model_config = ConfigDict(json_schema_extra={"oneOf": ONE_ORIGIN})

    @model_validator(mode="before")
    @classmethod
    def _of_one_origin(cls, data: Any) -> Any:
        stated = data if isinstance(data, Mapping) else {}
        if isinstance(data, Mapping) or data is None:
            for mistake in origin_mistakes(stated):
                raise ValueError(mistake)
        if "min_coverage" in stated:
            raise ValueError(
                "`min_coverage` is about what a recipe changes, and a candidate is a model of its own; leave it out"
            )
        return data
