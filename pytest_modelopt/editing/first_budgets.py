"""A first budgets file of what was measured: limits that hold now, and why some recipes got none. Pure."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import yaml

from pytest_modelopt.editing.value_format import reworded
from pytest_modelopt.judging.headroom import judged, tightest, with_headroom
from pytest_modelopt.limits.catalogue import LIMITS, is_looser, parse_value
from pytest_modelopt.limits.units import UnitError
from pytest_modelopt.reporting.messages.reasons import format_useless
from pytest_modelopt.results.case import Case, MeasuredCase
from pytest_modelopt.results.figures import format_bytes
from pytest_modelopt.results.metric import in_unit_interval
from pytest_modelopt.results.verdicts import Limit, Verdict

FASTER = 1.1
"""A variant pays that is this many times as fast for certain: by the low end of the interval."""
SAVED = 0.1
"""A variant pays that saves this share of memory or of size."""
_LEAST_SAVED = 1024
"""Bytes: of a model of no size, a share is nothing."""
_SLOWEST = 0.5
"""A speedup below which a recipe is left out, whatever it saves."""
AS_FAST = Limit("min_speedup", FASTER, f"{FASTER}x", "warn", "init", 0)
"""What timing has to decide while a first file is made."""

_ROOM = 0.05
_ROOM_OF_PROCESSES = 0.15
"""Of memory where it is that of fresh processes: pages of libraries differ between machines."""
_SPEED_KEPT = 0.5
"""The share of a gain in speed that is demanded: ratios differ from one machine to the next."""
EXAMPLES_OF_ROOM = 3
"""So many examples may go wrong beyond those that do: of 0 of n, 3 / n is the 95% bound for others of their kind."""
_FEWEST = 12
"""Of fewer examples, that room would be a quarter of all of them."""
WRONG = 0.05
"""A drop beyond this share of the best score, or of the original's where there is none, is too much."""
NOT_TOO_WRONG = Limit("max_accuracy_drop", WRONG, f"{100 * WRONG:g} pp", "error", "init", 0)
"""The same as a limit, of a score from 0 to 1."""
_ROUNDING = 1e-9
_WIDTH = 118
_LONGEST = 4000
"""Of a cause, in characters: of a longer one the middle is left out."""


@dataclass(frozen=True)
class Outcome:
    """One recipe, or one file, as it was tried."""

    spelling: str
    """As the file states it: the recipe, or the candidate's name."""
    case: Case | None
    """None where it was not tried: where `untried` is empty, too, it is stated without limits."""
    told: str = ""
    """What was measured, in words."""
    untried: str = ""
    """Why it was not tried."""
    file: str = ""
    """Of a candidate, from the folder of the budgets file; empty for a recipe."""
    also: Case | None = None
    """The same on other examples: limits on answers are those that both keep."""


@dataclass(frozen=True)
class Head:
    """What the file says beside its cases: comment lines, the model's name, and `key: value` of the model."""

    comments: tuple[str, ...]
    name: str
    keys: tuple[tuple[str, object], ...]
    defaults: tuple[tuple[str, str], ...] = ()


# --- what pays -------------------------------------------------------------------------------------------------------


def why_not(outcome: Outcome, timed_limits: int) -> str:
    """Why the recipe or the file is not worth a budget here; '' where it is."""
    case = outcome.case
    if case is None:
        return outcome.untried
    if case.error is not None:
        return case.error.message
    if too_wrong := why_too_wrong(case):
        return too_wrong
    speed = _verdict(case, "min_speedup", _SLOWEST, timed_limits)
    if speed.outcome == "fail" or (speed.measured is not None and speed.measured < _SLOWEST):
        return f"it takes more than {1 / _SLOWEST:g} times as long as the original"
    if _saves(case, timed_limits) or _verdict(case, "min_speedup", FASTER, timed_limits).outcome == "pass":
        return ""
    least = f"{SAVED:.0%} (or {format_bytes(_LEAST_SAVED)})"
    return f"it saves less than {least} of memory and of size, and is not {FASTER}x as fast for certain"


def why_too_wrong(case: MeasuredCase) -> str:
    """Why the answers alone leave it out; '' where they do not."""
    drop = case.drop
    if drop is None or case.reference is None or case.reference.score is None:
        return ""
    is_share = in_unit_interval(case.metric)
    if drop <= WRONG * (1.0 if is_share else abs(case.reference.score)) + _ROUNDING:
        return ""
    return f"its score dropped by {LIMITS['max_accuracy_drop'].format(drop, unit_interval=is_share)}"


def _saves(case: Case, timed_limits: int) -> bool:
    """Whether memory or size is smaller, for certain, by a share that pays."""
    sides = (case.reference, case.variant)
    memory, size = [case.memory_bytes(side) for side in sides], [side.size_bytes if side else None for side in sides]
    return any(
        before is not None
        and after is not None
        and before - after >= _LEAST_SAVED
        and _verdict(case, name, SAVED, timed_limits).outcome == "pass"
        for name, (before, after) in (("min_memory_reduction", memory), ("min_size_reduction", size))
    )


def _verdict(case: Case, name: str, value: float, timed_limits: int) -> Verdict:
    return judged(case, _loose(name), value, timed_limits)


def _loose(name: str) -> Limit:
    return Limit(name, 1.0, "", "error", "init", 0)


# --- limits ----------------------------------------------------------------------------------------------------------


def first_limits(outcome: Outcome, timed_limits: int) -> tuple[tuple[str, str], ...]:
    """(name, text) of limits that the case keeps for certain, with room to spare."""
    found = _limits_of(outcome.case, timed_limits)
    if outcome.also is not None and outcome.case is not None:
        other = _limits_of(outcome.also, timed_limits)
        found = {name: _looser(name, text, other.get(name, text), outcome.case) for name, text in found.items()}
    return tuple(found.items())


def _looser(name: str, one: str, other: str, case: Case) -> str:
    if not LIMITS[name].is_about_answers:
        return one
    is_share = in_unit_interval(case.metric)
    values = [parse_value(name, yaml.safe_load(text), unit_interval=is_share) for text in (one, other)]
    return other if is_looser(name, values[1], values[0], higher_is_better=case.higher_is_better) else one


def _limits_of(case: Case | None, timed_limits: int) -> dict[str, str]:
    if case is None or case.error is not None:
        return {}
    found = {name: _of_bytes(case, name, timed_limits) for name in ("max_memory", "max_size")}
    found["min_speedup"] = _of_speed(case, timed_limits)
    found.update(_of_answers(case, timed_limits))
    return {name: text for name, text in found.items() if text}


def why_no_answers(outcomes: Sequence[Outcome]) -> str:
    """Why no recipe of the model gets a limit on its answers; '' where one may."""
    measured = [each.case for each in outcomes if each.case is not None and each.case.error is None]
    reasons = [_why_no_answers(case) for case in measured]
    return reasons[0] if reasons and all(reasons) else ""


def _why_no_answers(case: Case) -> str:
    side = case.variant
    if side is None or side.score is None:
        return "they have no score" if side is None else side.unmeasured.get("score", "they have no score")
    if side.examples < _FEWEST:
        return (
            f"there are {side.examples} examples, so that a single one is {1 / side.examples:.0%}: give {_FEWEST} or "
            "more, hundreds if you can"
        )
    return format_useless(case, LIMITS["max_accuracy_drop"].why_useless(case))


def _of_bytes(case: Case, name: str, timed_limits: int) -> str:
    end = _end(case, name, timed_limits)
    room = _ROOM_OF_PROCESSES if case.foreign_runtimes and name == "max_memory" else _ROOM
    value = None if end is None else with_headroom(case, _loose(name), end, end, room)
    return "" if value is None else _written(case, name, value, timed_limits)


def _of_speed(case: Case, timed_limits: int) -> str:
    end = _end(case, "min_speedup", timed_limits)
    if end is None or end < FASTER:
        return ""
    return _written(case, "min_speedup", 1 + (end - 1) * _SPEED_KEPT, timed_limits)


def _of_answers(case: Case, timed_limits: int) -> dict[str, str]:
    """A bound on the drop, and the floor that says the same of these examples: the original's score less the bound."""
    if _why_no_answers(case):
        return {}
    assert case.reference is not None
    is_better_up = not LIMITS["min_accuracy"].bounds_from_above(case)
    if case.reference.score is None:  # of a metric that gives the original none, and can have a floor only
        end = _end(case, "min_accuracy", timed_limits)
        if end is None:
            return {}
        room = max(_ROOM * abs(end), _room(case, 0.0))
        floor = end - room if is_better_up else end + room
        return {"min_accuracy": _written(case, "min_accuracy", floor, timed_limits)}
    drop = _end(case, "max_accuracy_drop", timed_limits)
    if drop is None:
        return {}
    is_share = in_unit_interval(case.metric)
    allowed = max(drop, 0.0) + _room(case, max(drop, 0.0))
    text = _written(case, "max_accuracy_drop", min(1.0, allowed) if is_share else allowed, timed_limits)
    if not text:
        return {}
    allowed = parse_value("max_accuracy_drop", yaml.safe_load(text), unit_interval=is_share)
    floor = case.reference.score - allowed if is_better_up else case.reference.score + allowed
    stated = _written(case, "min_accuracy", max(0.0, floor) if is_share else floor, timed_limits)
    return {"max_accuracy_drop": text, "min_accuracy": stated}


def _room(case: Case, drop: float) -> float:
    """Beyond a drop: 5% of it, a few examples, and what other examples of their kind may show where that is known."""
    assert case.variant is not None
    scores = [side.score for side in (case.reference, case.variant) if side is not None and side.score is not None]
    one = 1.0 if in_unit_interval(case.metric) else max(map(abs, scores))
    beyond = 0.0 if case.interval is None else case.interval.high - drop
    return max(_ROOM * drop, EXAMPLES_OF_ROOM * one / case.variant.examples, beyond)


def _end(case: Case, name: str, timed_limits: int) -> float | None:
    """The tightest value that the case keeps for certain."""
    measured = _verdict(case, name, 1.0, timed_limits).measured
    return tightest(case, _loose(name), measured, timed_limits)


def _written(case: Case, name: str, value: float, timed_limits: int) -> str:
    """The limit as it is written, rounded to the loose side; '' where the case would not keep it."""
    unit_interval = in_unit_interval(case.metric)
    value = float(f"{value:.9g}")  # 3.0000000001 is 3, and not rounded up from there
    style = LIMITS[name].format(value, unit_interval=unit_interval)
    text = reworded(name, style, value, up=LIMITS[name].bounds_from_above(case))
    try:
        stated = parse_value(name, yaml.safe_load(text), unit_interval=unit_interval)
    except UnitError:
        return ""
    return text if _verdict(case, name, stated, timed_limits).outcome == "pass" else ""


# --- the file --------------------------------------------------------------------------------------------------------


def render(head: Head, outcomes: Sequence[Outcome], timed_limits: int) -> str:
    """The file. What did not pay is a comment."""
    return "\n".join(_lines(head, outcomes, timed_limits)) + "\n"


def _lines(head: Head, outcomes: Sequence[Outcome], timed_limits: int) -> Iterator[str]:
    yield from comment_lines(head.comments, "")
    yield "version: 1"
    if head.defaults:
        yield "defaults:"
        yield from (f"  {key}: {value}" for key, value in head.defaults)
    yield "models:"
    yield from model_lines(head, outcomes, timed_limits, indent="  ")


def comment_lines(comments: Sequence[str], indent: str) -> Iterator[str]:
    for comment in comments:
        yield from _comments(indent, comment)


def model_lines(head: Head, outcomes: Sequence[Outcome], timed_limits: int, *, indent: str) -> Iterator[str]:
    """The model as an entry of `models:`, whose keys are indented by `indent`."""
    yield f"{indent}{_key(head.name)}:"
    yield from (f"{indent}  {key}: {_value(value)}" for key, value in head.keys)
    none = why_no_answers(outcomes)
    if none:
        yield from _comments(f"{indent}  ", f"No limits on the answers: {none}.")
    for key, is_file in (("candidates", True), ("recipes", False)):
        yield from _section(key, [each for each in outcomes if bool(each.file) == is_file], timed_limits, indent)


def _section(key: str, outcomes: Sequence[Outcome], timed_limits: int, indent: str) -> Iterator[str]:
    """`recipes:` or `candidates:`, without the key where nothing is left below it."""
    told = [(outcome, why_not(outcome, timed_limits)) for outcome in outcomes if not outcome.untried]
    if not all(why for _, why in told):
        yield f"{indent}  {key}:"
    for outcome, why in told:
        if why:
            yield from _comments(f"{indent}    ", f"{outcome.spelling}: left out: {why}")
            if outcome.case is not None and outcome.case.error is None:
                yield from _comments(f"{indent}    ", f"  ({outcome.told})")
            continue
        yield from case_lines(outcome, timed_limits, indent=f"{indent}    ")
    untried = [(outcome.spelling, outcome.untried) for outcome in outcomes if outcome.untried]
    for line in format_untried(untried):
        yield from _comments(f"{indent}    ", line)


def case_lines(outcome: Outcome, timed_limits: int, *, indent: str) -> Iterator[str]:
    """The recipe or the candidate with its limits, as an entry of `recipes:` or `candidates:`."""
    yield f"{indent}{_key(outcome.spelling)}:" + (f" # {_plain(outcome.told)}" if outcome.told else "")
    stated = [("file", _value(outcome.file))] if outcome.file else []
    yield from (f"{indent}  {name}: {text}" for name, text in (*stated, *first_limits(outcome, timed_limits)))


def format_untried(untried: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Expressions that were not tried, those with the same reason in one line."""
    by_reason: dict[str, list[str]] = {}
    for expression, reason in untried:
        by_reason.setdefault(reason, []).append(expression)
    yield from (f"not tried, since {reason}: {', '.join(expressions)}" for reason, expressions in by_reason.items())


def _comments(indent: str, text: str) -> Iterator[str]:
    """The whole text in comment lines of a readable length, the second and later ones further in."""
    start = " " * (len(text) - len(text.lstrip()))
    lines = textwrap.wrap(_plain(text), _WIDTH - len(indent) - len(start) - 4, break_on_hyphens=False)
    for number, line in enumerate(lines or [""]):
        yield f"{indent}# {start}{'  ' if number else ''}{line}".rstrip()


def _plain(text: str) -> str:
    """On one line, of characters that YAML allows."""
    line = "".join(character if character.isprintable() else " " for character in " ".join(text.split()))
    half = _LONGEST // 2
    return line if len(line) <= _LONGEST else f"{line[:half]} [...] {line[-half:]}"


def _value(value: object) -> str:
    """Text, plain where YAML reads that as the same text, else quoted; a mapping in braces."""
    if isinstance(value, str):
        return value if _reads(f"a: {value}") == {"a": value} else _quoted(value)
    return _in_braces(value)


def _in_braces(value: object) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_in_braces(key)}: {_in_braces(item)}' for key, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_in_braces, value))}]"
    if isinstance(value, str):
        return value if _reads(f"{{{value}: {value}}}") == {value: value} else _quoted(value)
    return json.dumps(value)


def _key(text: str) -> str:
    return text if _reads(f"{text}: 1 # x") == {text: 1} else _quoted(text)


def _reads(line: str) -> object:
    try:
        return yaml.safe_load(line)
    except yaml.YAMLError:
        return None


def _quoted(text: str) -> str:
    return str(yaml.safe_dump(text, default_style='"', width=10**6, allow_unicode=True)).strip()
