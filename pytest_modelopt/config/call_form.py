"""The value of `call:`: the name of a function, or a mapping for a model that generates."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)

from pytest_modelopt.config.function_references import REFERENCE_SCHEMA, parse_reference
from pytest_modelopt.limits.spelling import did_you_mean, shown
from pytest_modelopt.results.generation import Generation

MOST_TOKENS = 1_000_000
_EXAMPLE = "`call: {generate: {new_tokens: 64, prompt: 512}}`"


def parse_tokens(value: object) -> int:
    """A whole number of tokens, at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_TOKENS:
        raise ValueError(
            f"{shown(value)} is not a number of tokens from 1 to {MOST_TOKENS:,}; write for example {_EXAMPLE}"
        )
    return value


def parse_step(value: object, info: ValidationInfo) -> object:
    """A function by name; from a test also a live one."""
    live = info.context.get("live") if info.context else None
    return value if live is not None and isinstance(value, live) else parse_reference(value)


Tokens = Annotated[int, BeforeValidator(parse_tokens)]


class GenerateForm(BaseModel):
    """A prompt, and steps of one token each."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    new_tokens: Tokens
    prompt: Tokens
    step: Annotated[Any, BeforeValidator(parse_step)] = None


def _of_form(value: object, handler: ValidatorFunctionWrapHandler) -> object:
    """Checks the form itself: pydantic's own messages would name types, not keys of the file."""
    if isinstance(value, str) and not value.isidentifier():
        return parse_reference(value)
    if not isinstance(value, dict):
        raise ValueError(  # noqa: TRY004 - pydantic collects ValueErrors only
            f"{shown(value)} does not say how the model is called; write a function, `call: package.module:function`, "
            f"or {_EXAMPLE}"
        )
    for name in value:
        if name != "generate":
            raise ValueError(f"there is no call {shown(name)}{did_you_mean(str(name), ('generate',))}")
    if not isinstance(value.get("generate"), dict):
        raise ValueError(f"`generate` needs `new_tokens` and `prompt`; write {_EXAMPLE}")  # noqa: TRY004 - likewise
    return handler(value)


class _Call(BaseModel):
    """The mapping below `call:`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    generate: GenerateForm

    def spec(self) -> Generation:
        """Without a live step, which the variant carries."""
        step = self.generate.step
        return Generation(self.generate.new_tokens, self.generate.prompt, step if isinstance(step, str) else None)


_COUNT = {"type": "integer", "minimum": 1, "maximum": MOST_TOKENS}
CALL_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "generate": {
            "type": "object",
            "description": "A prompt, and then steps of one token each with a cache.",
            "properties": {
                "new_tokens": {**_COUNT, "description": "Steps after the prompt."},
                "prompt": {**_COUNT, "description": "Tokens of the prompt."},
                "step": {
                    **REFERENCE_SCHEMA,
                    "description": "A function (model, ids, cache) -> (logits, cache); without it the module itself is "
                    "called as (ids, cache), or as transformers does.",
                },
            },
            "required": ["new_tokens", "prompt"],
            "additionalProperties": False,
        }
    },
    "required": ["generate"],
    "additionalProperties": False,
}
"""For editors."""
CallForm = Annotated[_Call, WrapValidator(_of_form), WithJsonSchema({"anyOf": [REFERENCE_SCHEMA, CALL_SCHEMA]})]
"""A function stays its name."""


def generates(call: object) -> bool:
    """Whether a checked `call:` is the mapping of a model that generates."""
    return isinstance(call, _Call)
