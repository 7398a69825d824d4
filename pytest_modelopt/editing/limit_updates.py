"""Limits set to what a record measured, with headroom: what changes, and what stays as it is and why. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import PurePath

from pytest_modelopt.config.loader import BudgetsFile, CaseEntry
from pytest_modelopt.editing.value_format import reworded
from pytest_modelopt.editing.yaml_positions import Place, Stated
from pytest_modelopt.judging.headroom import judged, tightest, with_headroom
from pytest_modelopt.limits.catalogue import LIMITS, parse_value
from pytest_modelopt.limits.units import UnitError
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.figures import format_count
from pytest_modelopt.results.generation import Generation
from pytest_modelopt.results.metric import MetricSpec, in_unit_interval
from pytest_modelopt.results.record import Record
from pytest_modelopt.results.target import fingerprint_of
from pytest_modelopt.results.timed_pairs import Timing
from pytest_modelopt.results.verdicts import Limit, Verdict


@dataclass(frozen=True)
class Settings:
    """How limits are set: `headroom` is a share (0.05 for 5%), `only` names cases, none for all of them."""

    headroom: float = 0.05
    loosen: bool = False
    only: frozenset[str] = frozenset()
    regression: bool = False
    """Also limits against a base."""
    disturbances: Callable[[Timing], Sequence[str]] = lambda timing: ()
    """How others disturbed a timing, in words: no timed limit is set to what was measured then."""


@dataclass(frozen=True)
class Change:
    """One value of the file that becomes another one."""

    place: Place
    limit: Limit
    """As it is stated now."""
    text: str
    """The new value, as the file will state it."""
    measured: str
    """The figure that decides, in words, and its case."""
    cases: int = 1
    """How many share the value."""


@dataclass(frozen=True)
class Left:
    """One limit that stays as it is, for a reason that the user should know."""

    limit: Limit
    why: str


@dataclass(frozen=True)
class Update:
    """What is to be done with a file."""

    changes: tuple[Change, ...]
    left: tuple[Left, ...]
    tight: int
    """Limits that hold and leave no more than the headroom."""
    rules: int
    """Limits against a base, which nobody asked for."""


@dataclass(frozen=True)
class _Measured:
    """What one measured case has to say about a limit: certain, and how far it could be tightened."""

    case: Case
    stated: Stated
    verdict: Verdict
    end: float | None
    """The tightest value that it keeps for certain."""
    value: float | None
    """With headroom."""


class _Leave(Exception):
    """A limit stays as it is; the message says why."""


def update(budgets: BudgetsFile, stated: tuple[Stated, ...], record: Record, settings: Settings) -> Update:
    """What the record says about every limit of the file. `stated` is what `stated_limits` found in it."""
    changes: list[Change] = []
    left: list[Left] = []
    tight = rules = 0
    for sharing in _shared(stated):
        cases = tuple(dict.fromkeys(each.case for each in sharing))
        limit = sharing[0].limit
        if settings.only and not settings.only & set(cases):
            continue
        if any(each.is_regression for each in sharing) and not settings.regression:
            rules += 1
            continue
        try:
            change = _change(budgets, sharing, record, settings)
        except _Leave as why:
            left.append(Left(limit, str(why)))
            continue
        if change is None:
            tight += 1
        else:
            changes.append(change)
    return Update(tuple(changes), tuple(left), tight, rules)


def foreign_cases(budgets: BudgetsFile, record: Record) -> tuple[str, ...]:
    """Cases of the record that the file does not have, of those whose limits are not stated elsewhere."""
    known = {entry.name for entry in (*budgets.cases, *budgets.originals)}
    strange = (
        case.name
        for case in record.cases
        if case.name not in known and (not case.limits or any(_is_of(budgets, limit) for limit in case.limits))
    )
    return tuple(dict.fromkeys(strange))


def _shared(stated: tuple[Stated, ...]) -> Iterator[list[Stated]]:
    """Limits by what is written, in the order of the file; those that cannot be replaced stand alone."""
    with_place = sorted((each for each in stated if each.place is not None), key=lambda each: (each.place, each.case))
    for _, group in groupby(with_place, key=lambda each: each.place):
        yield list(group)
    yield from ([each] for each in stated if each.place is None)


# --- one value of the file -------------------------------------------------------------------------------------------


def _change(budgets: BudgetsFile, sharing: list[Stated], record: Record, settings: Settings) -> Change | None:
    """The new value that all cases keep which share it; None where the stated one is tight. Raises _Leave."""
    limit, place = sharing[0].limit, sharing[0].place
    if place is None:
        raise _Leave(
            "is written in a way that is not replaced here (a block, an escape, an alias of something that is no limit)"
        )
    names = list(dict.fromkeys(each.limit.name for each in sharing))
    if len(names) > 1:
        raise _Leave(f"shares its value with {' and '.join(names[1:])}: write it out for each")
    found = [each for one in sharing for each in _measured(budgets, one, record, settings)]
    is_broken = any(each.verdict.outcome == "fail" for each in found)
    for each in found:
        if each.end is None:
            raise _Leave(f"{each.case.name} keeps no value of it for certain: remove the limit, or change the variant")
        if each.value is None and not limit.value and not is_broken:
            return None
        if each.value is None:
            raise _Leave(f"0 was measured of {each.case.name}, and a share of 0 is no headroom: state it by hand")
    from_above = LIMITS[limit.name].bounds_from_above(found[0].case)
    pick = max if from_above else min
    decisive = pick(found, key=lambda each: each.value if each.value is not None else 0.0)
    assert decisive.value is not None
    text = reworded(limit.name, limit.text, decisive.value, up=from_above)
    value = _parsed(sharing[0], text, found)
    is_looser = value > limit.value if from_above else value < limit.value
    keeping = dict.fromkeys(each.case.name for each in found if each.verdict.outcome != "fail")
    if is_broken and keeping:
        target = sharing[0].target
        alone = f"`{limit.name}: {text}` below {f'`targets: {_line(target)}:` of ' if target else ''}its recipe"
        count = format_count(len(keeping), "case")
        share = "shares" if len(keeping) == 1 else "share"
        raise _Leave(
            f"is broken: {_format_measured(decisive)} was measured, and it is kept by {count} that {share} the value, "
            f"which would be loosened, too: state {alone}"
        )
    if is_broken and not settings.loosen:
        raise _Leave(f"is broken: {_format_measured(decisive)} was measured; with --loosen it would become {text}")
    if not is_broken and (is_looser or value == limit.value):
        return None
    for each in found:
        if judged(each.case, limit, value, record.timed_limits).outcome != "pass":
            raise _Leave(f"{each.case.name} would not keep {text} for certain")
    return Change(place, limit, text, _format_measured(decisive), len({each.case for each in sharing}))


def _measured(budgets: BudgetsFile, stated: Stated, record: Record, settings: Settings) -> Iterator[_Measured]:
    """What each of the record's cases of that name says. Raises _Leave where one of them is not certain."""
    named = [
        case for case in record.cases if case.name == stated.case and (case.base is not None) == stated.is_regression
    ]
    if not named:
        raise _Leave(f"{stated.case} is not in the record")
    if stated.entry.at_targets and not stated.is_regression:
        named = [case for case in named if stated.limit in _limits_there(stated.entry, record, case)]
        if not named:
            raise _Leave(f"holds of {stated.case} on no machine of the record, or a stricter one does")
    judged_here = [case for case in named if not _is_of_a_test(budgets, case, stated)]
    if not judged_here:
        raise _Leave(f"the record judged {stated.case} by a limit that is stated elsewhere")
    for case in judged_here:
        verdict = _certain(case, stated, settings)
        end = tightest(case, stated.limit, verdict.measured, record.timed_limits)
        value = None if end is None else with_headroom(case, stated.limit, end, verdict.measured, settings.headroom)
        yield _Measured(case, stated, verdict, end, value)


def _limits_there(entry: CaseEntry, record: Record, case: Case) -> tuple[Limit, ...]:
    """Those that hold on the machine on which the case was measured."""
    machine = record.machine_of(case)
    return () if machine is None else entry.limits_on(fingerprint_of(machine))


def _certain(case: Case, stated: Stated, settings: Settings) -> Verdict:
    """The verdict of a limit that the record knows and that was decided. Raises _Leave."""
    name = stated.case
    if case.error is not None:
        raise _Leave(f"{name} ended in an error")
    then = _of_name(case.limits, stated.limit.name)
    if then is None:
        raise _Leave(f"the record knows no such limit of {name}: the file has changed since")
    if (then.text, then.value) != (stated.limit.text, stated.limit.value):
        raise _Leave(f"the record judged {name} by {_line(then.text)}: the file has changed since")
    changed = _measured_otherwise(case, stated)
    if changed:
        raise _Leave(f"{name} was measured with {changed}: the file has changed since")
    verdict = next((each for each in case.verdicts if each.limit.name == stated.limit.name), None)
    if stated.limit.waiver is not None or then.waiver is not None:
        raise _Leave(f"is waived for {name}")
    if verdict is None:
        raise _Leave(f"was not judged for {name}")
    if verdict.outcome not in ("pass", "fail"):
        raise _Leave(f"is {verdict.outcome} for {name}")
    timing = case.loading if LIMITS[stated.limit.name].figure == "loading" else case.timing
    disturbed = settings.disturbances(timing) if timing is not None else ()
    if disturbed and LIMITS[stated.limit.name].is_timed:
        raise _Leave(f"{name} was timed on a disturbed machine ({', '.join(disturbed)}): run it again on a quiet one")
    return verdict


def _measured_otherwise(case: Case, stated: Stated) -> str:
    """What the file says otherwise now, of that which figures depend on; else empty."""
    metric, model, workload = case.metric, stated.entry.model, stated.entry.workload
    then_and_now: dict[str, tuple[object, object]] = {
        "device": (case.device, workload.device),
        "inference": (case.inference, model.inference),
        "call": (_call(case.generation, case.call), _call(model.generation, model.call)),
        "optimize": (case.optimize, model.optimize),
    }
    if workload.takes != "all":
        then_and_now["batch_size"] = (case.batch_size, workload.batch_size)
    if case.threads is not None:
        then_and_now["threads"] = (case.threads, workload.threads)
    if metric is not None and (model.metric.is_built_in or MetricSpec(metric).is_built_in):
        then_and_now["metric"] = (metric, str(model.metric.name))
    return ", ".join(f"{key} {_line(str(then))}" for key, (then, now) in then_and_now.items() if then != now)


def _call(generation: Generation | None, function: str | None) -> str | None:
    return function or None if generation is None else generation.text


def _is_of_a_test(budgets: BudgetsFile, case: Case, stated: Stated) -> bool:
    """A test may measure a case of the same name against limits of its own, or against some of its own."""
    limit = _of_name(case.limits, stated.limit.name)
    if limit is None:
        return bool(case.limits) and not any(_is_of(budgets, each) for each in case.limits)
    return not _is_of(budgets, limit)


def _is_of(budgets: BudgetsFile, limit: Limit) -> bool:
    """Whether the record says that this file states it; the root of its tests may have been another folder."""
    stated = PurePath(limit.file)
    if stated.is_absolute():  # the run may have been on another machine
        return stated.name == budgets.path.name
    return budgets.path.parts[-len(stated.parts) :] == stated.parts


def _of_name(limits: tuple[Limit, ...], name: str) -> Limit | None:
    return next((limit for limit in limits if limit.name == name), None)


def _parsed(stated: Stated, text: str, found: list[_Measured]) -> float:
    """What the new text means. Raises _Leave where the limit does not take it."""
    metric = stated.entry.model.metric.name
    unit_interval = in_unit_interval(metric if isinstance(metric, str) else None)
    try:
        return parse_value(stated.limit.name, _typed(text), unit_interval=unit_interval)
    except UnitError as error:
        raise _Leave(f"{found[0].case.name} would need {text}, which the limit does not take: {error}") from None


def _typed(text: str) -> object:
    """A bare number as YAML reads it: digits with a point, or without one."""
    if text.removeprefix("-").replace(".", "", 1).isdecimal():
        return float(text) if "." in text else int(text)
    return text


def _format_measured(each: _Measured) -> str:
    """'3.08 MiB (digits-vit/int8-dynamic)'."""
    figure = each.end if each.verdict.measured is None else each.verdict.measured
    assert figure is not None
    shown = LIMITS[each.stated.limit.name].format(figure, unit_interval=in_unit_interval(each.case.metric))
    return f"{shown} ({each.case.name})"


def _line(text: str) -> str:
    return repr(text)[1:-1]
