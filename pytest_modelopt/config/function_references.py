"""Functions by name, `package.module:function`, as budgets files and tests write them."""

from __future__ import annotations

import keyword
import re
from typing import Any

from pytest_modelopt.limits.spelling import shown

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
DOTTED = rf"{_NAME}(?:\.{_NAME})*"
PATH = r"^[A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*$"
REFERENCE_SCHEMA: dict[str, Any] = {
    "type": "string",
    "pattern": rf"^{DOTTED}:{DOTTED}$",
    "examples": ["package.module:function"],
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
