"""The waivers that a budgets file states, held against the limits that it states: which one each of them is about."""

from __future__ import annotations

import contextlib
import datetime
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_modelopt.config.document import Document
from pytest_modelopt.config.problems import Problem
from pytest_modelopt.config.row_names import canonical_row
from pytest_modelopt.config.schema import Location
from pytest_modelopt.config.waiver_schema import WaiverForm, parse_case, parse_limit_name, parse_until
from pytest_modelopt.limits.catalogue import LIMITS, is_looser
from pytest_modelopt.limits.spelling import did_you_mean, nearest, plain, printable, shown
from pytest_modelopt.limits.units import UnitError
from pytest_modelopt.results.case import ORIGINAL
from pytest_modelopt.results.metric import MetricSpec, in_unit_interval
from pytest_modelopt.results.verdicts import Waiver
from pytest_modelopt.results.workload import at_workload, without_workload

if TYPE_CHECKING:
    from pytest_modelopt.optimizing.expression import Expression

_T = TypeVar("_T")
_ISSUE = re.compile(r"[ \t]+(#[0-9]+)")


@dataclass(frozen=True)
class StatedWaiver:
    """One waiver of a budgets file and the limit that it is about."""

    case: str
    """'model/recipe' in canonical spelling, or 'model/original'."""
    limit: str
    waiver: Waiver


@dataclass(frozen=True)
class _Stated:
    """A limit as the file has it, read as far as it can be."""

    name: str
    text: str
    value: float | None
    metric: MetricSpec


_Limits = dict[str, dict[str, _Stated]]
"""By case and by name."""


def waiver_problems(
    document: Document, expressions: Mapping[Location, Expression], *, today: datetime.date | None
) -> Iterator[Problem]:
    """What is wrong with the waivers beside their form: cases and limits that are not there, ceilings, last days.

    `today` is the day on which they must still hold; None where it does not matter.
    """
    stated = _limits_of(document, expressions)
    first: dict[tuple[str, str], int] = {}
    for index, raw in enumerate(_raw_waivers(document)):
        if not isinstance(raw, dict):
            continue
        here: Location = ("waivers", index)
        name = f"waiver {index + 1}"
        until = _read(parse_until, raw.get("until"))
        if until is not None and today is not None and until < today:
            yield document.problem((*here, "until"), _expired(name, raw, until))
        issue = _commented_issue(document, (*here, "reason"))
        if issue:
            yield document.problem(
                (*here, "reason"),
                f"reason of {name}: YAML takes {shown(issue)} for a comment, and the reason ends before it; put quotes "
                "around the whole reason",
            )
        written, limit = _read(parse_case, raw.get("case")), _read(parse_limit_name, raw.get("limit"))
        if written is None:
            continue
        case = canonical_case(written, stated)
        wrong = _no_such_case(stated, written, case)
        if wrong or case is None:
            yield document.problem((*here, "case"), f"case of {name}: {wrong}")
        elif limit is None:
            continue
        elif limit not in stated[case]:
            yield document.problem((*here, "limit"), f"{name}: {_no_such_limit(case, limit, stated[case])}")
        elif (case, limit) in first:
            message = f"{name} is about {limit} of {plain(case)} again, as in line {first[case, limit]}; keep one"
            yield document.problem(here, message)
        else:
            first[case, limit] = document.line(here)
            wrong = _wrong_ceiling(stated[case][limit], raw)
            if wrong:
                yield document.problem((*here, "ceiling"), f"ceiling of {name}: {wrong}")


def stated_waivers(
    document: Document, forms: Sequence[WaiverForm], metrics: Mapping[str, MetricSpec]
) -> tuple[StatedWaiver, ...]:
    """The waivers of a file without problems. `metrics` are those of each model."""
    candidates = {
        at_workload(f"{model}/{name}", workload)
        for model, entry in document.data["models"].items()
        for name in _candidates(entry)
        for workload in _workloads(entry)
    }
    found = []
    for index, form in enumerate(forms):
        here: Location = ("waivers", index)
        case = canonical_case(form.case, candidates)
        assert case is not None
        ceiling = None
        if form.ceiling is not None:
            ceiling = _parsed(form.limit, form.ceiling, metrics[case.partition("/")[0]])
        waiver = Waiver(
            until=form.until.isoformat(),
            reason=form.reason,
            file=document.file,
            line=document.line(here),
            owner=form.owner,
            ceiling=ceiling,
            ceiling_text="" if ceiling is None else _text(document, here),
        )
        found.append(StatedWaiver(case, form.limit, waiver))
    return tuple(found)


def _text(document: Document, waiver: Location) -> str:
    where: Location = (*waiver, "ceiling")
    return document.texts[where].strip()


def canonical_case(written: str, known: Collection[str]) -> str | None:
    """'model/recipe @ workload' with the recipe in canonical spelling; None where there is no such recipe, nor such a
    case among those that are `known`."""
    model, _, row = written.partition("/")
    recipe, workload = without_workload(row)
    as_it_is = at_workload(f"{model.strip()}/{recipe}", workload)
    return as_it_is if recipe == ORIGINAL or as_it_is in known else canonical_row(model, row)


# --- what the file has, as far as it can be read ---------------------------------------------------------------------


def _raw_waivers(document: Document) -> list[Any]:
    waivers = document.data.get("waivers")
    return waivers if isinstance(waivers, list) else []


def _limits_of(document: Document, expressions: Mapping[Location, Expression]) -> _Limits:
    """The limits of every case, also of a file with problems: those are told once, where they are."""
    models = document.data.get("models")
    found: _Limits = {}
    for model, entry in models.items() if isinstance(models, dict) else ():
        if not isinstance(entry, dict):
            continue
        metric = _metric(entry)
        regression, shared = _limits(entry.get("regression"), metric), _limits(entry.get("budget"), metric)
        recipes = entry["recipes"] if isinstance(entry.get("recipes"), dict) else {}
        at = {key: expressions.get(("models", model, "recipes", key)) for key in recipes}
        known = {expression.text: recipes[key] for key, expression in at.items() if expression is not None}
        for workload, point in _workloads(entry).items():
            of_point = _limits(point, metric)
            original = entry.get("original")
            own = {**_limits(original, metric), **_nested(original, workload, metric)}
            own = _tightest(own, _on_targets(original, metric))
            found[at_workload(f"{model}/{ORIGINAL}", workload)] = {**own, **regression}
            for name, stated in [*known.items(), *_candidates(entry).items()]:
                own = {**shared, **_limits(stated, metric), **of_point, **_nested(stated, workload, metric)}
                own = _tightest(own, [*_on_targets(entry, metric), *_on_targets(stated, metric)])
                if name in _candidates(entry):
                    own = {limit: each for limit, each in own.items() if not LIMITS[limit].is_about_recipe}
                of_base = _limits(stated.get("regression"), metric) if isinstance(stated, dict) else {}
                found[at_workload(f"{model}/{name}", workload)] = {**own, **regression, **of_base}
    return found


def _workloads(entry: object) -> dict[str, Any]:
    """What each states; of a model without workloads the one that has no name."""
    found = entry.get("workloads") if isinstance(entry, dict) else None
    return found if isinstance(found, dict) and found else {"": {}}


def _nested(stated: object, workload: str, metric: MetricSpec) -> dict[str, _Stated]:
    """The limits that a case states of itself at a workload."""
    found = stated.get("workloads") if isinstance(stated, dict) else None
    return _limits(found.get(workload), metric) if isinstance(found, dict) else {}


def _on_targets(stated: object, metric: MetricSpec) -> list[_Stated]:
    """The limits that it states on machines of any target."""
    found = stated.get("targets") if isinstance(stated, dict) else None
    points = found.values() if isinstance(found, dict) else ()
    return [limit for point in points for limit in _limits(point, metric).values()]


def _tightest(everywhere: dict[str, _Stated], on_targets: Iterable[_Stated]) -> dict[str, _Stated]:
    """Of each name the strictest, which is the first that a waiver may be needed for."""
    found = dict(everywhere)
    for limit in on_targets:
        known = found.setdefault(limit.name, limit)
        if None in (known.value, limit.value):
            continue
        assert known.value is not None
        assert limit.value is not None
        if is_looser(limit.name, known.value, limit.value, higher_is_better=limit.metric.known_direction):
            found[limit.name] = limit
    return found


def _candidates(entry: object) -> dict[str, Any]:
    found = entry.get("candidates") if isinstance(entry, dict) else None
    return found if isinstance(found, dict) else {}


def _limits(mapping: object, metric: MetricSpec) -> dict[str, _Stated]:
    stated = mapping if isinstance(mapping, dict) else {}
    return {name: _limit(name, stated[name], metric) for name in LIMITS if name in stated}


def _limit(name: str, raw: object, metric: MetricSpec) -> _Stated:
    value = raw.get("limit") if isinstance(raw, dict) else raw
    return _Stated(name, str(value), _read(lambda given: _parsed(name, given, metric), value), metric)


def _metric(entry: dict[str, Any]) -> MetricSpec:
    stated = entry.get("metric", "accuracy")
    given = stated if isinstance(stated, dict) else {"name": stated}
    direction = given.get("higher_is_better")
    return MetricSpec(str(given.get("name")), higher_is_better=direction if isinstance(direction, bool) else None)


def _parsed(name: str, raw: object, metric: MetricSpec) -> float:
    known = metric.name if isinstance(metric.name, str) else None
    kind = LIMITS[name]
    if kind.no_drop(known):
        raise UnitError(kind.no_drop(known))
    return kind.parse(raw, unit_interval=in_unit_interval(known))


def _read(parse: Callable[[object], _T], raw: object) -> _T | None:
    """None where the schema finds something wrong with it, which it then says."""
    try:
        return parse(raw)
    except ValueError:
        return None


# --- problems in words -----------------------------------------------------------------------------------------------


def _expired(name: str, raw: Mapping[str, Any], until: datetime.date) -> str:
    limit, case, reason = (plain(str(raw.get(key, "nothing"))) for key in ("limit", "case", "reason"))
    owner = f"; owner: {plain(str(raw['owner']))}" if raw.get("owner") else ""
    return (
        f"{name}, of {limit} of {case}, expired on {until.isoformat()} (reason: {reason}{owner}): fix what breaks the "
        "limit and remove the waiver, or give it a later `until` and a reason that holds"
    )


def _no_such_case(stated: _Limits, written: str, case: str | None) -> str:
    """Why no case of the file is meant, as the end of a sentence; empty where one is."""
    from pytest_modelopt.optimizing.expression import RecipeError, parse

    if case in stated:
        return ""
    model, _, row = (part.strip() for part in written.partition("/"))
    rows = [each.removeprefix(f"{model}/") for each in stated if each.startswith(f"{model}/")]
    if not rows:
        models = dict.fromkeys(each.partition("/")[0] for each in stated)
        return f"there is no model {shown(model)}{did_you_mean(model, models)}"
    recipe, workload = without_workload(row)
    spelling, recipes = recipe, {without_workload(each)[0] for each in rows}
    with contextlib.suppress(RecipeError):
        spelling = parse(recipe).text
    if {recipe, spelling} & recipes:  # of a recipe that is there, the workload is not
        names = dict.fromkeys(without_workload(each)[1] for each in rows)
        if not workload:
            return (
                f"{plain(model)} has workloads: name one behind the recipe, as `{recipe} @ {plain(next(iter(names)))}`"
            )
        return f"{plain(model)} has no workload {shown(workload)}{did_you_mean(workload, filter(None, names))}"
    try:
        parse(recipe)
    except RecipeError as error:
        near = nearest(recipe, [ORIGINAL])
        return f"{printable(str(error))}{f'; did you mean {near!r}?' if near else ''}"
    return f"{plain(model)} has no recipe {shown(spelling)}{did_you_mean(at_workload(spelling, workload), rows)}"


def _no_such_limit(case: str, limit: str, stated: Mapping[str, _Stated]) -> str:
    nothing = f"{plain(case)} states no {limit}, so there is nothing to waive"
    if not stated and without_workload(case)[0].endswith(f"/{ORIGINAL}"):
        return f"{nothing}: the limits of an original stand below `original:` and `regression:` of its model"
    return f"{nothing}{did_you_mean(limit, stated)}"


def _commented_issue(document: Document, reason: Location) -> str:
    """'#123' where that stands behind a reason without quotes: a comment, which nobody meant; else empty."""
    span = document.spans.get(reason)
    match = None if span is None else _ISSUE.match(document.source, span[1])
    return "" if match is None or document.source[match.start() - 1] in "\"'\r\n" else match[1]


def _wrong_ceiling(limit: _Stated, raw: Mapping[str, Any]) -> str:
    """Why the ceiling cannot be one, as the end of a sentence; empty where it can, or where there is none."""
    ceiling = raw.get("ceiling")
    if "ceiling" not in raw or isinstance(ceiling, (dict, list, bool)) or ceiling is None:
        return ""
    try:
        value = _parsed(limit.name, ceiling, limit.metric)
    except UnitError as error:
        return str(error)
    if limit.value is None:
        return ""
    looser = is_looser(limit.name, value, limit.value, higher_is_better=limit.metric.known_direction)
    if looser or (looser is None and value != limit.value):
        return ""
    return (
        f"{shown(ceiling)} is not looser than the limit, {plain(limit.text)}, so it would waive nothing; a ceiling is "
        "what must still hold while the limit is broken"
    )
