"""What head states less strictly than the base did: pure functions of two budgets, for the top of the report.

A limit may be looser in several ways at once: each is one entry. Limits that the base did not state loosen nothing.
"""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pytest_modelopt.config.loader import BudgetsFile, CaseEntry
from pytest_modelopt.config.targets import strictest
from pytest_modelopt.limits.catalogue import LIMITS, is_looser
from pytest_modelopt.results.answers import Inference
from pytest_modelopt.results.base import Loosening, LooseningKind
from pytest_modelopt.results.case import ORIGINAL
from pytest_modelopt.results.figures import (
    format_factor,
    format_number,
    format_percentage,
    format_points,
    format_time,
)
from pytest_modelopt.results.metric import MetricSpec
from pytest_modelopt.results.record import Record, Target
from pytest_modelopt.results.source import Named
from pytest_modelopt.results.target import Fingerprint, fingerprint_of, format_kind
from pytest_modelopt.results.verdicts import Limit, Waiver
from pytest_modelopt.results.workload import Workload, without_workload

_OF_THE_CALL = ("batch_size", "threads", "device", "example_inputs")


@dataclass(frozen=True)
class _Stated:
    """The limits of one case, against its original or against its base, and what they are about."""

    case: str
    model: str
    limits: Mapping[str, Limit]
    inference: Inference
    metric: MetricSpec | None
    """None where it is not known as it was stated."""
    higher_is_better: bool | None
    line: int
    settings: Mapping[str, str | float | None]
    """How it is measured, by the key of the budgets file; a saved record holds few of them."""


def loosened(
    base: BudgetsFile, head: BudgetsFile, higher_is_better: Mapping[str, bool] | None = None
) -> tuple[Loosening, ...]:
    """Limits that `head` relaxed, removed, waived or downgraded to `warn`, by case, then by limit.

    `higher_is_better` says of models by name what a measurement knows of their metrics and the file does not: without
    it any change of `min_accuracy` in such a metric is listed, with a word that its direction is not known.
    """
    found = _loosened(_of_file(base), _of_file(head, higher_is_better or {}), head)
    return (*found, *_of_targets(base.targets, head))


def loosened_from_record(base: Record, head: BudgetsFile) -> tuple[Loosening, ...]:
    """The same against the limits of a saved record. Cases of tests are left out: their markers state them."""
    found: list[Loosening] = []
    for number, machine in enumerate((base.environment, *base.other_machines)):
        there = replace(base, cases=tuple(case for case in base.cases if case.machine == number))
        here = _of_file(head, machine=None if machine is None else fingerprint_of(machine))
        found += _loosened(_of_record(there), here, head)
    return (*dict.fromkeys(found), *_of_targets(base.targets, head))


def loosened_limits(
    case: str, base: Mapping[str, Limit], head: Mapping[str, Limit], higher_is_better: bool | None, file: str, line: int
) -> Iterator[Loosening]:
    """The same of the limits of one test, which stand in `line` of `file` at head."""
    before, after = (_Stated(case, "", limits, "set", None, higher_is_better, line, {}) for limits in (base, head))
    yield from _of_case(before, after, file)


def removed_cases(base: BudgetsFile, head: BudgetsFile) -> tuple[str, ...]:
    """Cases that `base` has and `head` has not: 'digits-vit/int8-dynamic', by name.

    'digits-vit/original' is among them where the whole model is gone and its original had limits.
    """
    return _removed(_of_file(base), _of_file(head))


def removed_from_record(base: Record, head: BudgetsFile) -> tuple[str, ...]:
    """The same against the cases of a saved record."""
    return _removed(_of_record(base), _of_file(head))


# --- what is stated --------------------------------------------------------------------------------------------------


def _of_file(
    file: BudgetsFile, higher_is_better: Mapping[str, bool] | None = None, machine: Fingerprint | None = None
) -> dict[str, _Stated]:
    """With the limits that hold on one machine, or with those of each target, beside those that hold everywhere."""
    known = higher_is_better or {}
    found = {}
    for entry in (*file.originals, *file.cases):
        model, workload = entry.model, entry.workload
        batch = () if workload.takes == "all" else ("batch_size",)
        limits = entry.everywhere if machine is None else entry.limits_on(machine)
        found[entry.name] = _Stated(
            case=entry.name,
            model=model.name,
            limits={**(_of_each_target(entry) if machine is None else {}), **_by_name((*limits, *entry.regression))},
            inference=model.inference,
            metric=model.metric,
            higher_is_better=known.get(model.name, model.metric.known_direction),
            line=entry.line,
            settings={
                "slices": model.slices,
                "call": model.call if model.generation is None else model.generation.text,
                "optimize": model.optimize or None,
                **_examples(model.data, workload),
                **{name: getattr(workload, name) for name in ("device", "threads", *batch)},
                "time_limit": workload.time_limit_s,
                "base_setup": shlex.join(file.base_setup) or None,
            },
        )
    return found


def _of_each_target(entry: CaseEntry) -> dict[str, Limit]:
    """Limits of a case that are stricter on a machine of a target than everywhere, by 'min_speedup on arm'."""
    found = {}
    for at in entry.at_targets:
        for limit in strictest((*at.limits, *entry.everywhere), entry.model.metric.known_direction):
            if limit in at.limits:
                found[f"{limit.name} on {at.target.name}"] = limit
    return found


def _of_targets(base: Sequence[Target], head: BudgetsFile) -> Iterator[Loosening]:
    """Targets of which other machines are one now, perhaps fewer, or that a run may lack now."""
    now = {target.name: target for target in head.targets}
    for was in base:
        at = now.get(was.name)

        def entry(what: str, old: str, new: str, by: str = "", name: str = was.name) -> Loosening:
            return Loosening(f"target {name}", what, "relaxed", old, new, by, head.file or head.path.name, 1)

        if was.is_required and (at is None or not at.is_required):
            yield entry("required", "true", "false" if at is not None else "no such target")
        if at is not None and replace(at, is_required=was.is_required) != was:
            yield entry("machines", format_kind(was), format_kind(at), "its limits hold on other machines")


def _examples(data: Named | None, workload: Workload) -> dict[str, str | None]:
    inputs = None if workload.example_inputs is None else str(workload.example_inputs)
    first = "" if inputs is None or workload.takes != "first" else "the first of "
    return {"data": None if data is None else str(data), "example_inputs": inputs and f"{first}{inputs}"}


def _of_record(record: Record) -> dict[str, _Stated]:
    found: dict[str, _Stated] = {}
    for case in record.cases:
        if case.id.partition("::")[0].endswith(".py"):
            continue
        limits = _by_name(limit for limit in case.limits if limit.name in LIMITS)
        direction = None if case.metric is None else case.higher_is_better
        if case.name in found:  # against its original and against its base, or on several machines
            known = found[case.name]
            limits = {**known.limits, **limits}
            direction = known.higher_is_better if direction is None else direction
        settings: dict[str, str | float | None] = {"batch_size": case.batch_size, "device": case.device}
        settings |= {
            "call": case.call or None if case.generation is None else case.generation.text,
            "optimize": case.optimize or None,
        }
        found[case.name] = _Stated(case.name, case.model, limits, case.inference, None, direction, 1, settings)
    return found


def _by_name(limits: Iterable[Limit]) -> dict[str, Limit]:
    return {limit.name: limit for limit in limits}


# --- the comparison --------------------------------------------------------------------------------------------------


def _loosened(base: Mapping[str, _Stated], head: Mapping[str, _Stated], file: BudgetsFile) -> tuple[Loosening, ...]:
    name = file.file or file.path.name
    found = [each for before in base.values() for each in _of_case(before, _now(before, base, head), name)]
    return tuple(sorted(found, key=lambda each: (each.case, each.limit, each.kind)))


def _now(before: _Stated, base: Mapping[str, _Stated], head: Mapping[str, _Stated]) -> _Stated | None:
    """The case of head that corresponds to one of the base: that of the same name; else a new one of the same row at a
    workload with the same call; of a base without workloads the first of them, where none has the same call."""
    if before.case in head:
        return head[before.case]
    row, workload = without_workload(before.case)
    came = [each for name, each in head.items() if name not in base and without_workload(name)[0] == row]
    alike = [each for each in came if all(each.settings.get(n) == before.settings.get(n) for n in _OF_THE_CALL)]
    return next(iter(alike or ([] if workload else came)), None)


def _of_case(before: _Stated, after: _Stated | None, file: str) -> Iterator[Loosening]:
    for name, old in before.limits.items():
        new = (after.limits.get(name) or after.limits.get(old.name)) if after is not None else None
        if after is None or new is None:
            line = after.line if after is not None else 1
            yield Loosening(before.case, name, "removed", old.text, "removed", "", file, line)
        else:
            yield from (replace(each, limit=name) for each in _of_limit(before, after, old, new))


def _of_limit(before: _Stated, after: _Stated, old: Limit, new: Limit) -> Iterator[Loosening]:
    def entry(kind: LooseningKind, was: str, now: str, by: str = "", of: Limit | Waiver = new) -> Loosening:
        return Loosening(after.case, new.name, kind, was, now, by, of.file, of.line)

    direction = before.higher_is_better if after.higher_is_better is None else after.higher_is_better
    looser = is_looser(new.name, new.value, old.value, higher_is_better=direction)
    if looser or (looser is None and new.value != old.value):
        unsure = "" if looser else ", and whether higher is better is not known"
        yield entry("relaxed", old.text, new.text, f"{_by(old, new)}{unsure}")
    if LIMITS[new.name].is_about_answers and before.inference != after.inference:
        by = "what these examples break may be inconclusive for the population" if after.inference != "set" else ""
        yield entry("relaxed", before.inference, after.inference, by)
    if LIMITS[new.name].is_of_score and None not in (before.metric, after.metric) and before.metric != after.metric:
        yield entry("relaxed", _with_metric(old, before), _with_metric(new, after), "another metric")
    for name in _settings_of(new.name):
        if name not in before.settings or name not in after.settings:
            continue
        was, now = before.settings[name], after.settings[name]
        if _may_be_kinder(new.name, name, was, now):
            old_text, new_text = (
                f"{limit.text} at {name} {_format_setting(name, value)}" for limit, value in ((old, was), (new, now))
            )
            yield entry("relaxed", old_text, new_text, f"another {name}")
    if old.level == "error" and new.level == "warn":
        yield entry("warn", old.text, f"{new.text} (warn)")
    if new.waiver is not None:
        waived = _waived(old, new, new.waiver, direction)
        if waived is not None:
            yield entry("waived", *waived, of=new.waiver)


def _settings_of(name: str) -> Iterator[str]:
    """The settings on which the figure of a limit depends."""
    figure = LIMITS[name].figure
    if figure == "coverage":
        yield "optimize"
    if figure in ("memory", "process_memory", "cache", "timing", "loading", "prefill", "decode"):
        yield from ("batch_size", "device", "example_inputs")
    if figure not in ("size", "coverage"):
        yield "call"
    if figure in ("timing", "loading", "prefill", "decode"):
        yield from ("threads", "time_limit")
    if figure in ("score", "slices", "predictions"):
        yield "data"
    if figure == "slices":
        yield "slices"
    if LIMITS[name].against == "base":
        yield "base_setup"


def _may_be_kinder(limit: str, setting: str, was: str | float | None, now: str | float | None) -> bool:
    """Whether the limit may be easier to keep under the new value of a setting; of most, nobody knows the direction.

    What was not timed long enough is inconclusive, and not red.
    """
    is_ordered = setting == "time_limit" or (setting == "batch_size" and LIMITS[limit].unit in ("bytes", "time"))
    if is_ordered and isinstance(was, (int, float)) and isinstance(now, (int, float)):
        return was > now
    return was != now


def _format_setting(name: str, value: str | float | None) -> str:
    if name == "time_limit" and isinstance(value, float):
        return format_time(value)
    return "none" if value is None else str(value)


def _waived(old: Limit, new: Limit, waiver: Waiver, higher_is_better: bool | None) -> tuple[str, str, str] | None:
    """How the waiver was before, how it is now, and by how much it is looser; None where it is not.

    What it accepts at most was accepted before, where its ceiling is not beyond the old limit.
    """
    ceiling = waiver.ceiling
    if ceiling is not None and is_looser(new.name, ceiling, old.value, higher_is_better=higher_is_better) is False:
        return None
    now = f"waived until {waiver.until}{_up_to(waiver)}: {waiver.reason}"
    before = old.waiver
    if before is None:
        return old.text, now, "" if waiver.ceiling is None else _by(old, _at_ceiling(new, waiver))
    told = []
    days = (datetime.date.fromisoformat(waiver.until) - datetime.date.fromisoformat(before.until)).days
    if days > 0:
        told.append(f"{days} day{'' if days == 1 else 's'} longer")
    if before.ceiling is not None and waiver.ceiling is None:
        told.append("without a ceiling")
    elif (
        before.ceiling is not None
        and waiver.ceiling is not None
        and is_looser(new.name, waiver.ceiling, before.ceiling, higher_is_better=higher_is_better) is not False
    ):
        told.append(f"ceiling {_by(_at_ceiling(old, before), _at_ceiling(new, waiver))}")
    return (f"waived until {before.until}{_up_to(before)}", now, ", ".join(told)) if told else None


def _at_ceiling(limit: Limit, waiver: Waiver) -> Limit:
    assert waiver.ceiling is not None
    return replace(limit, value=waiver.ceiling, text=waiver.ceiling_text)


def _up_to(waiver: Waiver) -> str:
    return "" if waiver.ceiling is None else f" up to {waiver.ceiling_text}"


def _with_metric(limit: Limit, stated: _Stated) -> str:
    assert stated.metric is not None
    return f"{limit.text} of {stated.metric.name}"


def _by(old: Limit, new: Limit) -> str:
    """By how much they differ, in words: '+33%', '0.5 pp', '0.3x less'."""
    unit, distance = LIMITS[new.name].unit, abs(new.value - old.value)
    if unit in ("bytes", "time"):
        if old.value == 0:
            return f"{new.text}, was 0"
        return f"{'+' if new.value > old.value else '-'}{format_percentage(distance / old.value)}"
    if unit == "factor":
        return f"{format_factor(distance)} {'less' if new.value < old.value else 'more'}"
    in_points = unit == "percentage" or any(each.text.rstrip().endswith(("%", "pp")) for each in (old, new))
    return format_points(distance) if in_points else format_number(distance)


def _removed(base: Mapping[str, _Stated], head: Mapping[str, _Stated]) -> tuple[str, ...]:
    def is_gone(stated: _Stated) -> bool:
        is_original = without_workload(stated.case)[0] == f"{stated.model}/{ORIGINAL}"
        return _now(stated, base, head) is None and (bool(stated.limits) or not is_original)

    return tuple(sorted(stated.case for stated in base.values() if is_gone(stated)))
