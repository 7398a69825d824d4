"""Functions by name, `package.module:function`, as budgets files and tests write them."""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Mapping
from typing import Any

from pytest_modelopt.limits.spelling import did_you_mean, shown
from pytest_modelopt.results.source import Called, Named

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
DOTTED = rf"{_NAME}(?:\.{_NAME})*"
PATH = r"^[A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*$"
REFERENCE_SCHEMA: dict[str, Any] = {
    "type": "string",
    "pattern": rf"^{DOTTED}:{DOTTED}$",
    "examples": ["package.module:function"],
}
CALL_SCHEMA: dict[str, Any] = {
    "anyOf": [
        REFERENCE_SCHEMA,
        {
            "type": "object",
            "properties": {
                "name": REFERENCE_SCHEMA,
                "arguments": {
                    "type": "object",
                    "propertyNames": {"pattern": f"^{_NAME}$"},
                    "description": "What it is called with, in plain values.",
                },
            },
            "required": ["name"],
            "additionalProperties": False,
        },
    ]
}


def parse_reference(value: object) -> str:
    """A function by name, `package.module:function`."""
    expected = "write `package.module:function`, for example `shop.vision:load_model`"
    if value is None:
        raise ValueError(f"there is no value; {expected}")
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not text; {expected}")  # noqa: TRY004 - pydantic collects ValueErrors only
    module, colon, function = value.partition(":")
    if colon and is_dotted_name(module) and is_dotted_name(function):
        return value
    guess = _reference_meant(value)
    near = f"; did you mean {guess!r}?" if guess else ""
    raise ValueError(f"{shown(value)} does not name a function; {expected}{near}")


def parse_call(value: object) -> Named:
    """A function by name, or `{name: package.module:function, arguments: {width: 64}}`."""
    if not isinstance(value, Mapping):
        return parse_reference(value)
    unknown = [key for key in value if key not in ("name", "arguments")]
    if unknown:
        raise ValueError(f"unknown key {shown(unknown[0])}{did_you_mean(str(unknown[0]), ('name', 'arguments'))}")
    name = parse_reference(value.get("name"))
    arguments = parse_arguments(value.get("arguments", {}))
    return Called.of(name, dict(arguments)) if arguments else name


def parse_arguments(value: object, *, instead: str = "") -> tuple[tuple[str, object], ...]:
    """What something is called with, by name, in plain values. `instead`: what else one could do."""
    if not isinstance(value, dict):
        raise ValueError(  # noqa: TRY004 - pydantic collects ValueErrors only
            f"{shown(value)} is not a mapping of names to values; write for example `{{num_classes: 10}}`"
        )
    for name, item in value.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"{shown(name)} is not the name of an argument; write for example `num_classes`")
        _require_plain(item, name, instead)
    return tuple(value.items())


def _require_plain(value: object, where: str, instead: str) -> None:
    if isinstance(value, float) and math.isnan(value):
        raise ValueError(f"{where} is not a number; give a value")
    if value is None or isinstance(value, (bool, int, float, str)):
        return
    if isinstance(value, (list, tuple)):
        for item in value:
            _require_plain(item, where, instead)
        return
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        for item in value.values():
            _require_plain(item, where, instead)
        return
    raise ValueError(
        f"{where} is {shown(value)}; only numbers, text, true, false, null, and lists or mappings of these can be "
        f"written here{instead}"
    )


def parse_path(value: object) -> str:
    """A module below the model, `encoder.layers.0`."""
    if not isinstance(value, str) or not re.fullmatch(PATH, value):
        raise ValueError(
            f"{shown(value)} is not the path of a module below the model; write the names of attributes with dots "
            "between them, for example `encoder` or `encoder.layers.0`"
        )
    return value


def is_dotted_name(text: str) -> bool:
    """Whether Python could import something by this name."""
    return all(part.isidentifier() and not keyword.iskeyword(part) for part in text.split("."))


def _reference_meant(text: str) -> str | None:
    """A correct reference close to a wrong one: a path, a missing colon or a call was written."""
    module, colon, function = text.strip().removesuffix("()").replace("::", ":").partition(":")
    module = module.strip().removeprefix("./").replace("/", ".").replace("\\", ".").removesuffix(".py")
    if not colon:
        module, _, function = module.rpartition(".")
    meant = f"{module}:{function.strip()}"
    fits = is_dotted_name(module) and is_dotted_name(function.strip())
    return meant if fits and meant != text and len(meant) <= 100 else None
