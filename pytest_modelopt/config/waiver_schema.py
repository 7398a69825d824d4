"""The shape of one waiver in budgets.yaml: a limit of one case that may be broken for a while, and why."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from pytest_modelopt.config.limit_schema import WORDS_OF_UNITS, Strict
from pytest_modelopt.limits.catalogue import LIMITS, unknown_limit
from pytest_modelopt.limits.spelling import shown

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
LONGEST_REASON = 500
LONGEST_OWNER = 100


def parse_case(value: object) -> str:
    """'model/recipe', or 'model/original', with the blanks around it removed."""
    model, _, recipe = value.partition("/") if isinstance(value, str) else ("", "", "")
    if not isinstance(value, str) or not model.strip() or not recipe.strip():
        raise ValueError(
            f"{shown(value)} names no case; write `model/recipe`, or `model/original` for the model without a recipe"
        )
    return value.strip()


def parse_limit_name(value: object) -> str:
    """The name of a limit of the catalogue."""
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not the name of a limit; write for example `min_speedup`")  # noqa: TRY004
    if value not in LIMITS:
        raise ValueError(unknown_limit(value))
    return value


def parse_until(value: object) -> datetime.date:
    """The last day on which a waiver holds, as year-month-day."""
    if isinstance(value, str) and _DATE.fullmatch(value.strip()):
        try:
            return datetime.date.fromisoformat(value.strip())
        except ValueError:
            raise ValueError(f"there is no day {shown(value)}; write one that exists, as `2027-01-31`") from None
    raise ValueError(f"{shown(value)} is not a date; write year, month and day, as `2027-01-31`")


def _parse_text(example: str, longest: int) -> Callable[[object], str]:
    def parse(value: object) -> str:
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{shown(value)} is no text; write for example `{example}`")
        text = " ".join(value.split())
        if len(text) > longest:
            raise ValueError(f"{shown(value)} is longer than {longest} characters; shorten it, and link to the rest")
        if not text.isprintable():
            raise ValueError(f"{shown(value)} contains an invisible character; remove it")
        return text

    return parse


def parse_ceiling(value: object) -> str | int | float:
    """A plain value; which ones are valid depends on the limit and on the model's metric."""
    if value is None or isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(f"{shown(value)} is no value of a limit; write one that is looser than the limit, as `1.1x`")
    return value


def _plain_text(description: str, **schema: Any) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "description": description, **schema})


class WaiverForm(Strict):
    """A limit of one case that may be broken until a day."""

    case: Annotated[str, BeforeValidator(parse_case), _plain_text("The case.", pattern="^[^/]+/.+$")] = Field(
        description="`model/recipe`, or `model/original` for a limit of the original against its base."
    )
    limit: Annotated[str, BeforeValidator(parse_limit_name), WithJsonSchema({"enum": list(LIMITS)})] = Field(
        description="The limit of that case, by name."
    )
    until: Annotated[
        datetime.date,
        BeforeValidator(parse_until),
        _plain_text("A date.", format="date", pattern=rf"^\s*{_DATE.pattern}\s*$"),
    ] = Field(description="The last day on which it holds, UTC; after it, the file is in error.")
    reason: Annotated[
        str,
        BeforeValidator(_parse_text("oneDNN 3.12 is slower, see issue 17", LONGEST_REASON)),
        _plain_text("A sentence.", pattern=r"\S"),
    ] = Field(description="Why it is accepted.")
    ceiling: Annotated[
        Any,
        BeforeValidator(parse_ceiling),
        WithJsonSchema({"anyOf": [form for forms in WORDS_OF_UNITS.values() for form in forms]}),
    ] = Field(default=None, description="A looser value of the limit, which must hold meanwhile.")
    owner: Annotated[str, BeforeValidator(_parse_text("ada", LONGEST_OWNER)), _plain_text("A name.", pattern=r"\S")] = (
        Field(default="", description="Who takes care that it ends.")
    )
