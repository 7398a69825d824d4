"""The shape of `targets:` in budgets.yaml: kinds of machines, by what they are, and the limits that hold there."""

from __future__ import annotations

import re
from typing import Annotated, Any

from packaging.specifiers import SpecifierSet
from pydantic import BeforeValidator, Field, ValidationInfo, WithJsonSchema, model_validator

from pytest_modelopt.config.limit_schema import BudgetSpec
from pytest_modelopt.config.metric_form import parse_truth
from pytest_modelopt.limits.spelling import did_you_mean, shown
from pytest_modelopt.optimizing.this_machine import RUNTIMES, TELLING_FLAGS
from pytest_modelopt.results.record import Target
from pytest_modelopt.results.target import architecture_of

_ARCHITECTURE = r"^[A-Za-z0-9_]+$"


def parse_architecture(value: object) -> str:
    """As `platform.machine()` says it."""
    if not isinstance(value, str) or not re.fullmatch(_ARCHITECTURE, value):
        raise ValueError(f"{shown(value)} is not an architecture; write for example `x86_64` or `aarch64`")
    return value


def parse_instructions(value: object) -> tuple[str, ...]:
    """Features of the processor, one of them or a list."""
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{shown(value)} is not a list of instruction sets; write for example `[avx512_vnni]`")
    for name in names:
        if name not in TELLING_FLAGS:
            near = did_you_mean(name, sorted(TELLING_FLAGS))
            raise ValueError(f"there is no instruction set {shown(name)} that is known here{near}")
    return tuple(names)


def parse_kind_of_device(value: object) -> str:
    """`cpu` or `cuda`: on which the target's cases run."""
    if value not in ("cpu", "cuda"):
        raise ValueError(f"{shown(value)} is not a kind of device; write `cpu` or `cuda`")
    return str(value)


def parse_gpu(value: object) -> str:
    """A part of the GPU's name."""
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError(f"{shown(value)} is not a part of a GPU's name; write for example `H100`")
    return value.strip()


def parse_cores(value: object) -> int:
    """The least number of them."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{shown(value)} is not a number of cores; write for example `8`")
    return value


def parse_runtime(value: object) -> dict[str, str]:
    """Versions of packages, as pip takes them."""
    example = '`runtime: {onnxruntime: ">=1.20"}`'
    if not isinstance(value, dict) or not value:
        raise ValueError(f"{shown(value)} does not say which version of which package; write for example {example}")
    for name, version in value.items():
        if name not in RUNTIMES:
            raise ValueError(f"{shown(name)} is not a package whose version records hold{did_you_mean(name, RUNTIMES)}")
        try:
            SpecifierSet(version if isinstance(version, str) else "none").contains("1")  # it reads numbers only here
        except ValueError:
            raise ValueError(
                f"{shown(version)} is not a version as pip takes it; write for example {example}"
            ) from None
    return value


def _text(pattern: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern})


_NAMES: dict[str, Any] = {"enum": sorted(TELLING_FLAGS)}
_INSTRUCTIONS = {"anyOf": [_NAMES, {"type": "array", "items": _NAMES, "minItems": 1}]}
_RUNTIME = {
    "type": "object",
    "propertyNames": {"enum": list(RUNTIMES)},
    "additionalProperties": {"type": "string"},
    "minProperties": 1,
}
FINGERPRINT = ("architecture", "instructions", "device", "gpu", "cores", "runtime")


class TargetSpec(BudgetSpec):
    """A kind of machines, and the limits that hold there for every recipe and every candidate of every model, beside
    those that hold everywhere."""

    architecture: Annotated[str, BeforeValidator(parse_architecture), _text(_ARCHITECTURE)] = Field(
        default="", description="As `platform.machine()` says it.", examples=["x86_64", "aarch64"]
    )
    instructions: Annotated[tuple[str, ...], BeforeValidator(parse_instructions), WithJsonSchema(_INSTRUCTIONS)] = (
        Field(default=(), description="Instruction sets that the processor has.", examples=[["avx512_vnni"]])
    )
    device: Annotated[str, BeforeValidator(parse_kind_of_device), WithJsonSchema({"enum": ["cpu", "cuda"]})] = Field(
        default="", description="Where its cases run; other cases have nothing to do with it."
    )
    gpu: Annotated[str, BeforeValidator(parse_gpu), WithJsonSchema({"type": "string", "minLength": 1})] = Field(
        default="", description="A part of the name of its GPU.", examples=["H100"]
    )
    cores: Annotated[int, BeforeValidator(parse_cores), WithJsonSchema({"type": "integer", "minimum": 1})] = Field(
        default=0, description="The least number of its cores."
    )
    runtime: Annotated[dict[str, str], BeforeValidator(parse_runtime), WithJsonSchema(_RUNTIME)] = Field(
        default_factory=dict,
        description="Versions of the packages there, as pip takes them.",
        examples=[{"onnxruntime": ">=1.20"}],
    )
    required: Annotated[bool, BeforeValidator(parse_truth), WithJsonSchema({"type": "boolean"})] = Field(
        default=False, description="Whether a run without such a machine is red; otherwise this is told."
    )

    @model_validator(mode="before")
    @classmethod
    def _of_no_metric(cls, data: object, info: ValidationInfo) -> object:
        """What a bare number means in a limit on accuracy is read again for each model."""
        if isinstance(info.context, dict):
            info.context["metric"] = None
        return data

    @model_validator(mode="after")
    def _require_fingerprint(self) -> TargetSpec:
        if not set(FINGERPRINT) & self.model_fields_set:
            raise ValueError(f"it names no kind of machine; state at least one of {', '.join(FINGERPRINT)}")
        if self.gpu and self.device == "cpu":
            raise ValueError("`gpu:` names a GPU, and `device: cpu` runs its cases beside it; take one of them away")
        return self

    def target(self, name: str) -> Target:
        """What the record holds of it."""
        return Target(
            name=name,
            architecture=self.architecture and architecture_of(self.architecture),
            instructions=self.instructions,
            device=self.device or ("cuda" if self.gpu else ""),
            gpu=self.gpu,
            cores=self.cores,
            runtime=self.runtime,
            is_required=self.required,
        )
