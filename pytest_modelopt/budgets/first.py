"""A first budgets file of what was measured: limits that hold now, and why some recipes got none. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import yaml

from pytest_modelopt.budgets.deciding import bounds_from_above
from pytest_modelopt.budgets.headroom import judged, tightest, with_headroom
from pytest_modelopt.budgets.limits import format_value, metric_in_unit_interval, parse_value
from pytest_modelopt.budgets.rewording import reworded
from pytest_modelopt.budgets.units import UnitError
from pytest_modelopt.record.model import Case
from pytest_modelopt.record.verdicts import Limit

AS_FAST = Limit("min_speedup", 1.0, "1x", "warn", "init", 0)
"""What timing has to decide while a first file is made: whether the variant is faster at all."""

_NAMES = ("max_memory", "max_size", "min_speedup", "max_accuracy_drop", "min_accuracy")
_ROOM = 0.05
_SPEED_KEPT = 0.5
"""The share of a gain in speed that is demanded: ratios differ from one machine to the next."""
_ROOM_OF_PROCESSES = 0.15
"""Of memory where it is that of fresh processes: pages of libraries differ between machines."""
_WORTH = 0.05
"""A variant that saves less than this share of memory and of size, and is not faster, did not pay."""
_FASTER = 1.1
"""The least speedup that is worth a limit."""
_ROUNDING = 1e-9
_LONGEST = 180
"""Of a comment, in characters."""
_WRONG = 0.05
"""A drop beyond this share of the best score, or of the original's where there is none, is too much."""


@dataclass(frozen=True)
class Outcome:
    """One recipe as it was tried."""

    spelling: str
    """As the file states it."""
    case: Case | None
    """None where it was not tried yet: it is stated without limits."""
    told: str
    """What was measured, in words."""
    disturbed: str = ""
    """How others disturbed its timing, in words: then nothing is demanded of its speed."""


@dataclass(frozen=True)
class Head:
    """What the file says beside its recipes: comment lines, the model's name, and `key: value` of the model."""

    comments: tuple[str, ...]
    name: str
    keys: tuple[tuple[str, str], ...]
    defaults: tuple[tuple[str, str], ...] = ()


def first_limits(outcome: Outcome, timed_limits: int) -> tuple[tuple[str, str], ...]:
    """(name, text) of limits that the case keeps for certain, with headroom."""
    return tuple((name, text) for name in _NAMES if (text := _text(outcome, name, timed_limits)))


def why_not(outcome: Outcome, timed_limits: int) -> str:
    """Why the recipe is not worth a budget here; '' where it is."""
    case = outcome.case
    if case is None:
        return ""
    if case.error is not None:
        return case.error.message
    drop = case.drop
    if drop is not None and case.original is not None and case.original.score is not None:
        is_share = metric_in_unit_interval(case.metric)
        if drop > _WRONG * (1.0 if is_share else abs(case.original.score)) + _ROUNDING:
            told = format_value("max_accuracy_drop", drop, unit_interval=is_share)
            return f"wrong: its score dropped by {told}"
    if _saves(case) or _text(outcome, "min_speedup", timed_limits):
        return ""
    if outcome.disturbed:
        return f"not clearly smaller than the original, and timed on a disturbed machine: {outcome.disturbed}"
    return "neither clearly smaller nor clearly faster than the original"


def render(head: Head, outcomes: Sequence[Outcome], timed_limits: int) -> str:
    """The file. Recipes that did not pay are comments."""
    return "\n".join(_lines(head, outcomes, timed_limits)) + "\n"


def _lines(head: Head, outcomes: Sequence[Outcome], timed_limits: int) -> Iterator[str]:
    yield from (f"# {_comment(line)}" for line in head.comments)
    yield "version: 1"
    if head.defaults:
        yield "defaults:"
        yield from (f"  {key}: {value}" for key, value in head.defaults)
    yield "models:"
    yield f"  {_key(head.name)}:"
    yield from (f"    {key}: {_scalar(value)}" for key, value in head.keys)
    yield "    recipes:"
    for outcome in outcomes:
        why = why_not(outcome, timed_limits)
        if why:
            yield f"      # {_comment(outcome.spelling)}: left out: {_comment(why)}"
            if outcome.case is not None and outcome.case.error is None:
                yield f"      #   ({_comment(outcome.told)})"
            continue
        yield f"      {_key(outcome.spelling)}: # {_comment(outcome.told)}"
        yield from (f"        {name}: {text}" for name, text in first_limits(outcome, timed_limits))
        if outcome.disturbed:
            yield f"        # no min_speedup, since it was timed on a disturbed machine: {_comment(outcome.disturbed)}"


# --- limits ----------------------------------------------------------------------------------------------------------


def _text(outcome: Outcome, name: str, timed_limits: int) -> str:
    """The limit as it is written; '' where there is none that the case keeps, or none that is worth having."""
    case = outcome.case
    if case is None or case.error is not None or (name == "min_speedup" and outcome.disturbed):
        return ""
    loose = Limit(name, 1.0, "", "error", "init", 0)
    measured = judged(case, loose, 1.0, timed_limits).measured
    end = tightest(case, loose, measured, timed_limits)
    if end is None:
        return ""
    room = _ROOM_OF_PROCESSES if case.foreign_runtimes and name == "max_memory" else _ROOM
    if name == "min_speedup":
        value: float | None = 1 + (end - 1) * _SPEED_KEPT
    else:
        value = with_headroom(case, loose, end, measured, room)
    if value is None or (name == "min_speedup" and value < _FASTER):
        return ""
    unit_interval = metric_in_unit_interval(case.metric)
    style = format_value(name, value, unit_interval=unit_interval)
    text = reworded(name, style, value, up=bounds_from_above(case, loose))
    try:
        stated = parse_value(name, yaml.safe_load(text), unit_interval=unit_interval)
    except UnitError:
        return ""
    return text if judged(case, loose, stated, timed_limits).outcome == "pass" else ""


def _saves(case: Case) -> bool:
    """Whether memory or size is clearly smaller."""
    memory = (case.memory_bytes(case.original), case.memory_bytes(case.variant))
    size = tuple(side.size_bytes if side is not None else None for side in (case.original, case.variant))
    return any(
        before is not None and after is not None and after <= (1 - _WORTH) * before for before, after in (memory, size)
    )


# --- YAML ------------------------------------------------------------------------------------------------------------


def _comment(text: str) -> str:
    """On one line, of characters that YAML allows, and of a readable length."""
    line = "".join(character if character.isprintable() else " " for character in " ".join(text.split()))
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."


def _scalar(text: str) -> str:
    """Plain where YAML reads that as the same text, else quoted."""
    return text if _reads(f"a: {text}") == {"a": text} else _quoted(text)


def _key(text: str) -> str:
    return text if _reads(f"{text}: 1 # x") == {text: 1} else _quoted(text)


def _reads(line: str) -> object:
    try:
        return yaml.safe_load(line)
    except yaml.YAMLError:
        return None


def _quoted(text: str) -> str:
    return str(yaml.safe_dump(text, default_style='"', width=10**6, allow_unicode=True)).strip()
