"""The budget of one test: the arguments of `@pytest.mark.model_budget`, with the same keys as budgets.yaml."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from pytest_modelopt.config.problems import BudgetsError, Problem
from pytest_modelopt.limits.catalogue import (
    BUDGET_LIMITS,
    REGRESSION_LIMITS,
    merge,
    parse_level,
    parse_value,
    unknown_limit,
)
from pytest_modelopt.limits.spelling import did_you_mean, printable, shown
from pytest_modelopt.limits.units import UnitError
from pytest_modelopt.results.verdicts import Limit
from pytest_modelopt.results.workload import at_workload, without_workload

_LIMIT_KEYS = ("limit", "level")


@dataclass(frozen=True)
class MarkerBudget:
    """What one marker states: a case of budgets.yaml by name, with its recipe in canonical spelling, and limits."""

    case: str | None
    limits: tuple[Limit, ...]


def parse_marker(
    args: tuple[object, ...], kwargs: Mapping[str, object], *, file: str, line: int, known: Collection[str] = ()
) -> MarkerBudget:
    """Read the arguments of one marker, which stands in `file` at `line`. `known`: the cases of budgets.yaml.

    Which metric the limits are for is not known yet: see `pytest_modelopt.limits.catalogue.misfit`.

    Raises:
        BudgetsError: with all problems of this marker.
    """
    messages: list[str] = []
    case = _case(args, messages, known)
    stated = [_limit(name, raw, file, line, messages) for name, raw in kwargs.items()]
    if not args and not kwargs:
        messages.append("it states no limit; write for example `model_budget(max_memory='6 MiB')`")
    if messages:
        raise BudgetsError(tuple(Problem(file, line, f"model_budget: {message}") for message in messages))
    return MarkerBudget(case, merge([tuple(limit for limit in stated if limit is not None)]))


def _case(args: tuple[object, ...], messages: list[str], known: Collection[str]) -> str | None:
    if not args:
        return None
    if len(args) > 1:
        messages.append(
            f"it is given {len(args)} values without a name ({', '.join(map(shown, args[:5]))}); "
            "write at most one, the case `model/recipe`, and limits by name, for example `max_memory='6 MiB'`"
        )
        return None
    value = args[0]
    if not isinstance(value, str) or "/" not in value:
        messages.append(
            f"which limit is {shown(value)}? Write it by name, for example `max_memory='6 MiB'`; "
            "only a case of budgets.yaml is given without a name, as 'model/recipe'"
        )
        return None
    return value if value in known else _canonical_case(value, messages)


def _canonical_case(text: str, messages: list[str]) -> str | None:
    from pytest_modelopt.optimizing.expression import RecipeError, parse

    model, _, row = text.partition("/")
    recipe, workload = without_workload(row)
    if not model.strip():
        messages.append(f"the case {shown(text)} has no model before the '/'; write 'model/recipe'")
        return None
    try:
        return f"{model.strip()}/{at_workload(parse(recipe).text, workload)}"
    except RecipeError as error:
        messages.append(f"the case {shown(text)}: {printable(str(error))}")
        return None


def _limit(name: str, raw: object, file: str, line: int, messages: list[str]) -> Limit | None:
    if name in REGRESSION_LIMITS:
        messages.append(
            f"`{name}` is a limit against the base, which a test has none of; move it into budgets.yaml, below "
            "`regression:` of a model"
        )
        return None
    if name not in BUDGET_LIMITS:
        messages.append(unknown_limit(name, BUDGET_LIMITS))
        return None
    stated = raw if isinstance(raw, Mapping) else {"limit": raw}
    unknown = [key for key in stated if key not in _LIMIT_KEYS]
    messages.extend(f"{name}: unknown key {shown(key)}{did_you_mean(str(key), _LIMIT_KEYS)}" for key in unknown)
    if "limit" not in stated:
        messages.append(f"{name} has no `limit`; write for example `{{'limit': ..., 'level': 'warn'}}`")
        return None
    try:
        level = parse_level(stated.get("level", "error"))
        value = parse_value(name, stated["limit"])
    except UnitError as error:
        messages.append(f"{name}: {error}")
        return None
    return Limit(name, value, str(stated["limit"]), level, file, line)
