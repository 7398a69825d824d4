"""What pydantic finds wrong with budgets.yaml, as sentences of our own with the way out."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, TypeAdapter, ValidationError

from pytest_modelopt.config.call_form import CallForm, GenerateForm
from pytest_modelopt.config.candidate_schema import CandidateSpec
from pytest_modelopt.config.limit_schema import LimitSpec
from pytest_modelopt.config.metric_form import MetricForm
from pytest_modelopt.config.schema import BudgetsSpec, DefaultsSpec, Location, ModelSpec, WorkloadSpec
from pytest_modelopt.config.sharing import OF_DEFAULTS
from pytest_modelopt.config.target_schema import TargetSpec
from pytest_modelopt.config.waiver_schema import WaiverForm
from pytest_modelopt.limits.catalogue import (
    BUDGET_LIMITS,
    LIMITS,
    ORIGINAL_LIMITS,
    REGRESSION_LIMITS,
    misplaced,
    unknown_limit,
)
from pytest_modelopt.limits.spelling import did_you_mean, nearest, plain, shown
from pytest_modelopt.results.generation import Generation
from pytest_modelopt.results.metric import MetricSpec
from pytest_modelopt.results.workload import at_workload

_FIRST_LINES = {
    "version": "`version: 1`",
    "models": "`models:` with at least one model below it",
    "data": "`data: package.module:function`, the function that returns the examples",
    "recipes": "`recipes:` with at least one recipe below it, for example `int8-dynamic:`",
    "limit": "`limit:` with the value",
    "new_tokens": "`new_tokens:` with the number of steps after the prompt",
    "prompt": "`prompt:` with the number of its tokens",
    "name": "`name:` with the metric, for example `torchmetrics.text.WordErrorRate`",
}
_FIRST_LINES_OF_WAIVERS = {
    "case": "`case: model/recipe`",
    "limit": "`limit:` with the name of the limit that it is about",
    "until": "`until:` with the last day on which it holds, for example `until: 2027-01-31`",
    "reason": "`reason:` with a sentence that says why it is accepted",
}


def parse_metric(value: object, live: type) -> MetricSpec:
    """A metric as a test states it, in which objects of the type `live` stand for the test's own functions.

    Raises:
        ValueError: with all that is wrong.
    """
    try:
        return MetricForm.model_validate(value, context={"live": live}).spec()
    except ValidationError as error:
        raise _as_value_error(error, "metric") from None


def parse_call(value: object, live: type) -> Generation:
    """How a test says that its model generates. Otherwise as `parse_metric`."""
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(CallForm)
        generation: Generation = adapter.validate_python(value, context={"live": live}).spec()
        return generation
    except ValidationError as error:
        raise _as_value_error(error, "call") from None


def _as_value_error(error: ValidationError, what: str) -> ValueError:
    found = error.errors(include_url=False)
    told = [explain((what, *f["loc"]), f["type"], f["input"], f.get("ctx", {}).get("error")) for f in found]
    return ValueError("; ".join(told))


def explain(location: Location, error_type: str, value: object, cause: object) -> str:
    """One of pydantic's findings as a sentence of our own. `cause` is the error of a parser of ours, if any."""
    if location[:1] == ("defaults",) and location[1:2] and location[1] in OF_DEFAULTS:
        location = ("models", *location)  # they state there what a model states
    if error_type == "missing":
        key = str(location[-1])
        lines = _FIRST_LINES_OF_WAIVERS if location[0] == "waivers" else _FIRST_LINES
        return f"{subject(location[:-1])} has no `{key}`; add {lines.get(key, f'`{key}:`')}"
    if error_type == "extra_forbidden":
        return _unknown_key(location[:-1], str(location[-1]))
    if cause is not None:
        return f"{subject(location)}: {cause}"
    if error_type in ("dict_type", "model_type"):
        return f"{subject(location)}: a mapping is needed here, that is `key: value` lines, but there is {shown(value)}"
    if error_type == "list_type":
        return f"{subject(location)}: a list is needed here, that is `- ...` lines, but there is {shown(value)}"
    return f"{subject(location)}: {shown(value)} does not fit here"


def subject(location: Location) -> str:
    """What a location is, as a person would say it."""
    keys = [plain(str(key)) for key in location]
    if not keys:
        return "the file"
    if location[0] == "waivers" and len(location) > 1:
        return " of ".join([*reversed(keys[2:]), f"waiver {int(location[1]) + 1}"])
    if keys[-1] == "limit" and _compared_with(location[:-2]):
        keys.pop()
    if keys[0] == "targets" and len(keys) > 1:
        return " of ".join([*reversed(keys[2:]), f"the target {keys[1]}"])
    if keys[-1] == "name" and _states_metric(location[:-1]):
        keys.pop()
    if keys[0] != "models" or len(keys) == 1:
        return " of ".join(reversed(keys))
    model, rest = keys[1], keys[2:]
    whose = model
    if len(rest) > 1 and rest[0] in ("recipes", "candidates"):
        whose, rest = f"{model}/{rest[1]}", rest[2:]
    if rest[:1] == ["original"] and rest[1:2] in (["workloads"], ["targets"]):
        whose, rest = f"{model}/original", rest[1:]
    if len(rest) > 1 and rest[0] == "workloads":
        whose, rest = at_workload(whose, rest[1]), rest[2:]
    if len(rest) > 1 and rest[0] == "targets":
        whose, rest = f"{whose} on the target {rest[1]}", rest[2:]
    named = [key for key in rest if key not in ("budget", "regression") or len(rest) == 1]
    return " of ".join([*reversed(named), whose])


def _compared_with(location: Location) -> Literal["", "original", "base"]:
    """With what the limits are compared that the mapping there holds; empty where it holds none."""
    if len(location) == 2 and location[0] == "targets":
        return "original"
    if len(location) < 3 or location[0] != "models":
        return ""
    if len(location) > 3 and location[-2] in ("workloads", "targets"):
        return "original"
    if location[2:] in (("budget",), ("original",)) or (
        location[2] in ("recipes", "candidates") and len(location) == 4
    ):
        return "original"
    in_recipe = location[2] in ("recipes", "candidates") and len(location) == 5 and location[4] == "regression"
    return "base" if in_recipe or location[2:] == ("regression",) else ""


def _states_metric(location: Location) -> bool:
    """Whether the mapping there is a metric with what it needs."""
    return location == ("metric",) or (len(location) == 3 and location[0] == "models" and location[2] == "metric")


def _unknown_key(parent: Location, key: str) -> str:
    side = _compared_with(parent)
    if side:
        return f"{subject(parent)}: {_unknown_among_limits(parent, key, below_regression=side == 'base')}"
    if key in LIMITS:
        where = "a recipe, or below `budget` of a model" if key in BUDGET_LIMITS else "`regression:` of a model"
        return f"{subject(parent)}: `{key}` is a limit; move it below {where}"
    spec: type[BaseModel] = LimitSpec
    if not parent:
        spec = BudgetsSpec
    elif parent[0] == "waivers":
        spec = WaiverForm
    elif parent == ("defaults",):
        spec = DefaultsSpec
    elif _states_metric(parent):
        spec = MetricForm
    elif len(parent) == 2 and parent[0] == "models":
        spec = ModelSpec
    elif parent[-1] == "generate":
        spec = GenerateForm
    return f"{subject(parent)}: unknown key {shown(key)}{did_you_mean(key, spec.model_fields)}"


def _unknown_among_limits(parent: Location, key: str, *, below_regression: bool) -> str:
    wrong_place = misplaced(key, below_regression=below_regression)
    if wrong_place:
        return wrong_place
    if parent[0] == "targets":
        return f"unknown key {shown(key)}{did_you_mean(key, TargetSpec.model_fields)}"
    if parent[-2] == "targets" and key == "regression":
        return "limits against a base know no targets; move `regression:` to the recipe or the model"
    if parent[2] == "workloads" and key not in LIMITS:
        return f"unknown key {shown(key)}{did_you_mean(key, WorkloadSpec.model_fields)}"
    if parent[2] == "original":
        if key in BUDGET_LIMITS:
            return f"`{key}` compares with the original, and `original:` is the model as it is; move it below `budget:`"
        return unknown_limit(key, ORIGINAL_LIMITS)
    if parent[2] == "candidates" and key not in LIMITS:
        return f"unknown key {shown(key)}{did_you_mean(key, CandidateSpec.model_fields)}"
    near = nearest(key, [*LIMITS, "regression", "workloads", "targets"]) if len(parent) == 4 else None
    if near in ("regression", "workloads", "targets"):
        return f"unknown key {shown(key)}; did you mean {near!r}?"
    return unknown_limit(key, REGRESSION_LIMITS if below_regression else BUDGET_LIMITS)
