"""Checks of models that generate, which no type makes: limits and metrics that fit one way of being called only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pytest_modelopt.config.document import Document
from pytest_modelopt.config.problems import Problem
from pytest_modelopt.config.schema import Location
from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.limits.spelling import plain
from pytest_modelopt.results.metric import PERPLEXITY, MetricSpec

_CALL = "`call: {generate: {new_tokens: 64, prompt: 512}}`"


def call_problems(document: Document) -> Iterator[Problem]:
    """Limits on parts of a call that has none, and metrics that score other answers."""
    models = document.data.get("models")
    for name, entry in models.items() if isinstance(models, dict) else ():
        if not isinstance(entry, dict):
            continue
        at: Location = ("models", name)
        generates = isinstance(entry.get("call"), dict)
        stated = entry.get("metric")
        metric = stated.get("name") if isinstance(stated, dict) else stated
        why = wrong_metric(MetricSpec(metric), generates=generates) if isinstance(metric, str) else ""
        if why:
            yield document.problem((*at, "metric"), f"metric of {plain(name)}: {why}")
        for where, limits in () if generates else _budgets(at, entry):
            for limit in limits:
                if limit in LIMITS and LIMITS[limit].is_about_generation:
                    message = f"{limit} of {plain(name)} is about models that generate; add {_CALL} to the model"
                    yield document.problem((*where, limit), message)


def wrong_metric(metric: MetricSpec, *, generates: bool) -> str:
    """Why a metric does not fit the way in which the model is called; '' where it may."""
    if metric.name == PERPLEXITY:
        return "" if generates else f"`perplexity` is of models that generate; add {_CALL} to the model"
    if not generates or not metric.is_built_in:
        return ""
    return (
        f"`{metric.name}` scores one answer to each example, and a model that generates gives tokens; write "
        "`perplexity`, or a metric of the text with `prepare`, as `torchmetrics.text.ROUGEScore`"
    )


def _budgets(at: Location, entry: dict[Any, Any]) -> Iterator[tuple[Location, dict[Any, Any]]]:
    parts = {(*at, key): entry.get(key) for key in ("original", "budget")}
    for key in ("recipes", "candidates"):
        cases = entry.get(key)
        parts |= {(*at, key, case): stated for case, stated in (cases.items() if isinstance(cases, dict) else ())}
    parts[at] = entry
    for where, limits in parts.items():
        if not isinstance(limits, dict):
            continue
        if where != at:
            yield where, limits
        points = limits.get("workloads")
        for name, stated in points.items() if isinstance(points, dict) else ():
            if isinstance(stated, dict):
                yield (*where, "workloads", name), stated
