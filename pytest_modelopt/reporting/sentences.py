"""What there is to say about a record beside its tables: structured, and only rendered by each form of the report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import get_args

from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.limits.comparable import lacks_base
from pytest_modelopt.reporting.changed_answers import changed_line
from pytest_modelopt.reporting.item import Item, Label, Severity
from pytest_modelopt.reporting.messages.coverage_findings import layer_types
from pytest_modelopt.reporting.messages.findings import MESSAGES, format_finding
from pytest_modelopt.reporting.messages.next_steps import ONLY_EXPLAINS, after_error, after_verdict
from pytest_modelopt.reporting.messages.reasons import REASONS, why_no_base
from pytest_modelopt.reporting.messages.short import format_short
from pytest_modelopt.reporting.messages.verdicts import FOUND, format_note, format_verdict
from pytest_modelopt.reporting.names import case_name, on_machine, sides
from pytest_modelopt.reporting.notes import notes
from pytest_modelopt.reporting.plain_text import plain_line, plain_lines
from pytest_modelopt.reporting.timing_conditions import disturbances
from pytest_modelopt.results.case import Case, CaseError, Stage
from pytest_modelopt.results.figures import format_bytes, format_percentage
from pytest_modelopt.results.measurement import Coverage, LayerCoverage
from pytest_modelopt.results.outcome import unjudged_limits
from pytest_modelopt.results.record import Record
from pytest_modelopt.results.verdicts import Finding, Limit, Verdict

EXPLAINED = frozenset({*FOUND, *REASONS, *MESSAGES, *(f"error-{stage}" for stage in get_args(Stage))})
"""Codes of what a case may say: each is a heading of the documentation."""
_TYPES_SHOWN = 4
_SAID_BY = {"memory-moved": "memory-in-layer"}
"""Findings, and the one that says the same by name where it was made, too."""

_DOING: dict[Stage, str] = {
    "start": "starting its worker process",
    "read": "reading its data",
    "load": "loading the model or its data",
    "optimize": "applying the recipe",
    "size": "measuring its size",
    "memory": "measuring its memory",
    "score": "scoring it",
    "timing": "timing it",
    "limits": "reading its limits",
    "compare": "comparing it with the {other}",
    "test": "running its test",
}


def items(record: Record) -> list[Item]:
    """Everything to say: case by case in the record's order, then what holds for models and for the whole run."""
    return [*(item for told in items_by_case(record, record.cases) for item in told), *notes(record)]


def items_by_case(record: Record, cases: Iterable[Case]) -> Iterator[list[Item]]:
    """What is to say about each of the cases. A cause that several of a model share is told with the first of them."""
    alike: dict[object, list[Case]] = {}
    told = [(case, items_of_case(record, case), _shared_cause(record, case)) for case in cases]
    for case, _, cause in told:
        alike.setdefault(cause, []).append(case)
    for case, found, cause in told:
        same = alike[cause]
        if cause is None or len(same) == 1:
            yield found
        elif same[0] is case:
            yield [_of_all(item, same) if item.is_shared else item for item in found]
        else:
            yield [item for item in found if not item.is_shared]


def _shared_cause(record: Record, case: Case) -> object:
    """What several cases of a model may have in common, to be told once: an error, or that there is no base."""
    machine = on_machine(record, case)
    if case.expected is not None:
        return None
    if case.error is not None:
        return (case.model, machine, case.base is None, case.error)
    if case.base is None or not lacks_base(case):
        return None
    limits = [(verdict.limit.name, verdict.limit.level, verdict.outcome) for verdict in case.verdicts]
    return (case.model, machine, case.base.status, case.base.why, tuple(limits))


def _of_all(item: Item, cases: list[Case]) -> Item:
    name, others = plain_line(cases[0].name), ", ".join(plain_line(other.row) for other in cases[1:])
    title, text = (told.replace(name, f"{name} and {others}", 1) for told in (item.title, item.text))
    return replace(item, title=title, text=text)


def items_of_case(record: Record, case: Case) -> list[Item]:
    """Everything to say about one case of the record, with its machine where the record has several."""
    told = case_items(case, record.strict)
    on = on_machine(record, case)
    if not on:
        return told
    return [
        replace(item, title=f"{item.title}{on}", text=f"{item.text} (measured{on})", case_id=f"{item.case_id}{on}")
        for item in told
    ]


def case_items(case: Case, strict: bool) -> list[Item]:
    """Everything to say about one case: its error, or its limits that were not kept, not decided or waived."""
    told = list(_of_case(case, strict))
    if case.expected is None:
        return told
    red = [item for item in told if item.severity == "error"]
    return [_expected(case, red), *(item for item in told if item.severity != "error")]


def _expected(case: Case, red: list[Item]) -> Item:
    """One note about a test that is marked with `xfail`: whether it fails, and with what."""
    assert case.expected is not None
    name, reason = case_name(case), plain_line(case.expected.reason)
    because = f" ({reason})" if reason else ""
    if case.expected.outcome == "xfailed":
        found = " ".join(item.text for item in red)
        title, text = f"{name}: xfailed", f"{name}: expected to fail{because}{f': {found}' if found else ''}"
    else:
        title, text = f"{name}: xpassed", f"{name}: expected to fail{because}, but its test passes: take the mark away"
    return Item("info", "NOTE", title, text, why=red[0].why if red else (), case_id=case.id)


def _of_case(case: Case, strict: bool) -> Iterator[Item]:
    why = tuple(_explanation(case, strict))
    if case.error is not None:
        yield _error(case, case.error, why)
    for label, verdicts in _labelled(case, strict):
        yield _verdicts(case, verdicts, label, () if label == "NOTE" else why)
    yield from _found_though_all_hold(case, strict)
    yield from _without_base(case)
    yield from _noted(case)
    if case.error is None:
        for limit in unjudged_limits(case):
            name = f"{case_name(case)}: {plain_line(limit.name)}"
            yield Item(
                severity="error" if limit.level == "error" else "warning",
                label="FAIL" if limit.level == "error" else "WARN",
                title=f"{name} was not judged",
                text=f"{name} {plain_line(limit.text)} was not judged, which counts as broken."
                f" ({plain_line(limit.file)}:{limit.line})",
                short=f"{plain_line(limit.name)} {plain_line(limit.text)}: not judged",
                next_step="measure it again with this version",
                case_id=case.id,
                file=limit.file,
                line=limit.line,
                excess=math.inf,
            )


def _labelled(case: Case, strict: bool) -> Iterator[tuple[Label, list[Verdict]]]:
    """The verdicts that there is something to say about; those of one cause together."""
    found = [(label, verdict) for verdict in case.verdicts if (label := _label(verdict, strict)) is not None]
    if not lacks_base(case):
        yield from ((label, [verdict]) for label, verdict in found)
        return
    together: dict[tuple[Label, str], list[Verdict]] = {}
    for label, verdict in found:
        key = verdict.outcome if label != "NOTE" else format_verdict(case, verdict)  # a waiver has a reason of its own
        together.setdefault((label, key), []).append(verdict)
    yield from ((label, verdicts) for (label, _), verdicts in together.items())


def _error(case: Case, error: CaseError, why: tuple[str, ...]) -> Item:
    message = plain_lines(error.message)
    stated = case.limits[0] if case.limits else None
    doing = _DOING[error.stage].format(other=sides(case)[0])
    title = f"{case_name(case)}: error while {doing}"
    return Item(
        severity="error",
        label="ERROR",
        title=title,
        text=f"{title}: {plain_line(message[0])}",
        short=plain_line(f"error while {doing}: {message[0]}"),
        next_step=plain_line(after_error(case)),
        why=(*(plain_line(line) for line in message[1:] if line.strip()), *why),
        output=tuple(plain_lines(error.output)) if error.output.strip() else (),
        case_id=case.id,
        is_shared=True,
        file=stated.file if stated else None,
        line=stated.line if stated else None,
        code=f"error-{error.stage}",
        excess=math.inf,
    )


def _label(verdict: Verdict, strict: bool) -> Label | None:
    if verdict.outcome == "pass":
        return None
    if verdict.outcome == "waived":
        return "NOTE"
    if verdict.limit.level == "warn":
        return "WARN"
    if verdict.outcome == "inconclusive" and not strict:
        return "INCONCLUSIVE"
    return "FAIL"


_IN_SHORT = {
    "fail": "is broken",
    "inconclusive": "is inconclusive",
    "not measured": "was not measured",
    "waived": "is waived",
}
_OF_SEVERAL = {
    "fail": "are broken",
    "inconclusive": "are inconclusive",
    "not measured": "were not measured",
    "waived": "are waived",
    "pass": "hold",
}
_SEVERITY: dict[Label, Severity] = {
    "ERROR": "error",
    "FAIL": "error",
    "INCONCLUSIVE": "warning",
    "WARN": "warning",
    "NOTE": "info",
}


def _verdict(case: Case, verdict: Verdict, label: Label, why: tuple[str, ...]) -> Item:
    limit = verdict.limit
    found = [] if label == "NOTE" else _found(case, limit)
    says_next = label == "NOTE" or any(each.rule not in ONLY_EXPLAINS for each in found)
    return Item(
        severity=_SEVERITY[label],
        label=label,
        title=plain_line(f"{case.name}: {limit.name} {_IN_SHORT[verdict.outcome]}"),
        text=plain_line(format_verdict(case, verdict)),
        short=plain_line(format_short(case, verdict)),
        next_step="" if says_next else plain_line(after_verdict(case, verdict)),
        found=tuple(format_finding(case, each) for each in found),
        changed=_changed_examples(case, limit) if label != "NOTE" else (),
        why=why,
        case_id=case.id,
        file=limit.file,
        line=limit.line,
        code=_code(case, verdict),
        excess=_excess(verdict),
    )


def _verdicts(case: Case, verdicts: list[Verdict], label: Label, why: tuple[str, ...]) -> Item:
    """One verdict, or several that have the same cause."""
    first = _verdict(case, verdicts[0], label, why)
    item = replace(first, is_shared=lacks_base(case) and label != "NOTE")
    if len(verdicts) == 1:
        return item
    name, names = plain_line(case.name), plain_line(", ".join(verdict.limit.name for verdict in verdicts))
    what = _OF_SEVERAL[verdicts[0].outcome]
    counted = ", which counts as broken" if verdicts[0].outcome == "not measured" else ""
    text = f"{name}: {names} {what}{counted}: {why_no_base(case)}. ({verdicts[0].limit.file}:{verdicts[0].limit.line})"
    short = "; ".join(format_short(case, verdict) for verdict in verdicts)
    return replace(item, title=f"{name}: {len(verdicts)} limits {what}", text=plain_line(text), short=plain_line(short))


def _excess(verdict: Verdict) -> float:
    if verdict.outcome == "inconclusive":
        return 0.0
    if verdict.measured is None:
        return math.inf
    distance = abs(verdict.measured - verdict.limit.value)
    return distance / abs(verdict.limit.value) if verdict.limit.value else math.inf


# --- what the doctor found --------------------------------------------------------------------------------------------


def told_findings(case: Case) -> list[Finding]:
    """Without those whose facts another one tells, too."""
    rules = {each.rule for each in case.findings}
    return [each for each in case.findings if _SAID_BY.get(each.rule) not in rules]


def _found(case: Case, limit: Limit) -> list[Finding]:
    """What explains its figure; what says what to do comes first."""
    found = [each for each in told_findings(case) if _explains(each, limit.name)]
    return sorted(found, key=lambda each: each.rule in ONLY_EXPLAINS)


def _code(case: Case, verdict: Verdict) -> str:
    """Under which the documentation explains it: what was found first about it, or else why it is what it is.

    '' where a record has a word of its own there.
    """
    explaining = [found.rule for found in told_findings(case) if _explains(found, verdict.limit.name)]
    return next((code for code in (*explaining, verdict.reason.code) if code in EXPLAINED), "")


def _explains(found: Finding, name: str) -> bool:
    """What explains a score explains its slices, too."""
    figure = LIMITS[name].figure if name in LIMITS else None
    return figure in found.explains or (figure == "slices" and "score" in found.explains)


def _found_though_all_hold(case: Case, strict: bool) -> Iterator[Item]:
    """Findings that matter though no limit shows them: they may be why the limits hold."""
    told = _told_rules(case, strict)
    for finding in told_findings(case):
        if finding.is_note and finding.rule not in told:
            name = case_name(case)
            yield Item(
                "info",
                "NOTE",
                title=f"{name}: {plain_line(finding.rule)}",
                text=f"{name}: {format_finding(case, finding)}",
                case_id=case.id,
            )


# --- a base that is none ---------------------------------------------------------------------------------------------


_WITHOUT_BASE = {
    "new": "it is new, so nothing of it is judged",
    "unpaired": "it is not known which model of the base it was",
    "failed": "the base fails here, too, so what changed is not known",
    "unusable": "the base could not be brought to run",
}


def _without_base(case: Case) -> Iterator[Item]:
    """Why there is no base to compare with, where no verdict says so."""
    base = case.base
    if base is None or base.status == "compared" or case.error is not None:
        return
    if base.status != "new" and any(verdict.outcome != "pass" for verdict in case.verdicts):
        return
    name, why = case_name(case), plain_line(base.why).rstrip(".")
    told = f"{why}, so nothing of it is judged" if why and base.status == "new" else _WITHOUT_BASE[base.status]
    if why and base.status != "new":
        told += f" ({why})"
    yield Item("info", "NOTE", f"{name}: no base", f"{name}: {told}", case_id=case.id, is_shared=True)


# --- answers ---------------------------------------------------------------------------------------------------------


def _changed_examples(case: Case, limit: Limit) -> tuple[str, ...]:
    line = changed_line(case) if limit.name in LIMITS and LIMITS[limit.name].is_about_answers else ""
    return (line,) if line else ()


def _noted(case: Case) -> Iterator[Item]:
    """What is worth saying of limits that hold."""
    for verdict in case.verdicts:
        limit = verdict.limit
        note = LIMITS[limit.name].note(case, limit) if limit.name in LIMITS else None
        name = plain_line(case.name)
        if verdict.outcome == "pass" and note is not None:
            yield Item(
                "info",
                "NOTE",
                title=f"{name}: {limit.name} says little",
                text=f"{name}: {limit.name} holds, but {plain_line(format_note(case, limit, note))}",
                case_id=case.id,
            )


# --- why -------------------------------------------------------------------------------------------------------------


def _explanation(case: Case, strict: bool) -> Iterator[str]:
    disturbed = disturbances(case.timing) if case.timing is not None and case.error is None else []
    if disturbed and any(limit.name in LIMITS and LIMITS[limit.name].is_timed for limit in case.limits):
        yield f"timed on a disturbed machine: {', '.join(disturbed)}"
    coverage = case.coverage
    if coverage is None:
        return
    told = _layers_told(case, strict)
    yield _changed(plain_line(case.recipe), coverage, is_rest_told=bool(told))
    for step in coverage.steps:
        if len(coverage.steps) > 1 and step.changed_bytes == 0:
            yield f"the step {plain_line(step.recipe)} changed nothing"
        for note in step.notes:
            if not told or not all(layers in note for layers in told):  # else a finding has said it of the same layers
                yield f"{plain_line(step.recipe)}: {plain_line(note)}"


def _layers_told(case: Case, strict: bool) -> list[str]:
    """'2 Conv2d (9.69 KiB)': what a finding that is told says was left alone."""
    found = [each for each in case.findings if each.rule == "left-alone" and each.rule in _told_rules(case, strict)]
    types = [kind for each in found for kind in layer_types(each.parameters)]
    return [f"{kind['layers']} {kind['type']} ({format_bytes(kind['weight_bytes'])})" for kind in types]


def _told_rules(case: Case, strict: bool) -> set[str]:
    """Rules whose findings stand under a limit of the case that is not kept."""
    open_limits = [verdict.limit.name for verdict in case.verdicts if _label(verdict, strict) not in (None, "NOTE")]
    return {found.rule for found in case.findings if any(_explains(found, name) for name in open_limits)}


def _changed(recipe: str, coverage: Coverage, *, is_rest_told: bool) -> str:
    """What the recipe reached, and the layers that it left alone, largest first, unless a finding says which."""
    text = f"{recipe} changed {format_percentage(coverage.share)} of the weight bytes"
    if coverage.multiply_adds_share is not None:
        text += f" and {format_percentage(coverage.multiply_adds_share)} of the multiply-adds"
    untouched = _by_type(layer for layer in coverage.layers if layer.weight_bytes and not layer.changed_bytes)
    partly = _by_type(layer for layer in coverage.layers if 0 < layer.changed_bytes < layer.weight_bytes)
    if untouched and not is_rest_told:
        text += f"; left alone: {untouched}"
    if partly:
        text += f"; changed in part: {partly}"
    return text


def _by_type(layers: Iterable[LayerCoverage]) -> str:
    groups: dict[str, list[LayerCoverage]] = {}
    for layer in layers:
        groups.setdefault(plain_line(layer.type), []).append(layer)
    unchanged = {
        name: sum(layer.weight_bytes - layer.changed_bytes for layer in group) for name, group in groups.items()
    }
    names = sorted(groups, key=lambda name: (-unchanged[name], name))
    shown = [f"{len(groups[name])} {name} ({format_bytes(unchanged[name])})" for name in names[:_TYPES_SHOWN]]
    rest = names[_TYPES_SHOWN:]
    if rest:
        layers_left = sum(len(groups[name]) for name in rest)
        shown.append(f"{layers_left} other ({format_bytes(sum(unchanged[name] for name in rest))})")
    return ", ".join(shown)
