"""The table of an exploration's answer: what nothing dominates first, and of finalists both figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tabulate import tabulate

from pytest_modelopt.exploring.choice import Trial, broken, dominator
from pytest_modelopt.exploring.confirming import Confirmed
from pytest_modelopt.reporting.cells import PROCESS_METER, drop_cells, memory_cells, size_cells, speedup_cells
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.verdicts import Limit

_HEADERS = ("", "recipe", "memory", "size", "speed", "drop", "measured")
_MOST_SETTINGS = 8
"""Rows of settings that were tuned and that nothing dominates."""


def table_lines(trials: Sequence[Trial], confirmed: Sequence[Confirmed]) -> Iterator[str]:
    """Undominated candidates first; of a finalist its confirmed figures, and below them what the chosen part said. Of
    settings that were tuned some of those that nothing dominates, and the finalists."""
    measured = [trial for trial in trials if trial.case is not None and trial.case.variant is not None]
    whole = [trial for trial in measured if trial.is_whole]
    found = {id(trial): dominator(trial, whole) for trial in whole}
    anew = {each.trial.order: each for each in confirmed}
    measured.sort(key=lambda trial: (found.get(id(trial), trial) is not None, bool(broken(trial.case)), trial.order))
    shown = _shown([trial for trial in measured if trial.is_tuned], found, set(anew))
    told: list[tuple[str, str, Case, str]] = []
    for trial in measured:
        if trial.is_tuned and trial.order not in shown:
            continue
        mark = ">" if found.get(id(trial), trial) is None else ""
        assert trial.case is not None
        if trial.order in anew:
            told.append((mark, str(trial.recipe), anew[trial.order].case, _anew(anew[trial.order])))
            told.append(("", "  as it was chosen", trial.case, _state(trial)))
        else:
            told.append((mark, str(trial.recipe), trial.case, _state(trial)))
    if not told:
        return
    marks, recipes, cases, states = zip(*told, strict=True)
    rows = [*zip(marks, recipes, *_figures(cases), states, strict=True)]
    yield from tabulate(rows, _HEADERS, tablefmt="simple", disable_numparse=True).splitlines()
    yield "> nothing is certainly better in memory, size, drop and speed together"
    left_out = sum(trial.is_tuned for trial in measured) - len(shown)
    if left_out:
        yield f"and {left_out} further settings of these recipes, which no row shows"
    if any(row[2].endswith(PROCESS_METER) for row in rows):
        yield f"{PROCESS_METER} memory of fresh processes, of both sides: torch's allocator does not see the variant's"


def limit_names(limits: Sequence[Limit]) -> str:
    return ", ".join(f"{each.name} {each.text}" for each in limits)


def _shown(tuned: Sequence[Trial], found: dict[int, Trial | None], finalists: set[int]) -> set[int]:
    """The orders of the settings that have a row: of many on the front some that are spread over it by their size."""
    front = [each for each in tuned if found.get(id(each), each) is None and not broken(each.case)]
    front.sort(key=lambda trial: _size(trial.case))
    last = len(front) - 1
    if last >= _MOST_SETTINGS:
        front = [front[round(number * last / (_MOST_SETTINGS - 1))] for number in range(_MOST_SETTINGS)]
    return {each.order for each in front} | ({each.order for each in tuned} & finalists)


def _size(case: Case | None) -> int:
    return (case.variant.size_bytes or 0) if case is not None and case.variant is not None else 0


def _figures(cases: Sequence[Case]) -> tuple[list[str], ...]:
    """Memory, size, speed and drop, a column each."""
    timings = [case.timing if case.timing is not None and case.timing.pairs else None for case in cases]
    return memory_cells(cases), size_cells(cases), speedup_cells(timings, 1), drop_cells(cases)


def _anew(each: Confirmed) -> str:
    if each.holds:
        return "confirmed"
    misses = [verdict.limit for verdict in broken(each.case)]
    return f"anew: breaks {limit_names(misses)}" if misses else "anew: not for certain"


def _state(trial: Trial) -> str:
    if trial.why:
        return f"stopped: {trial.why}"
    misses = limit_names([each.limit for each in broken(trial.case)])
    cached = " (earlier)" if trial.is_cached else ""
    return f"breaks {misses}{cached}" if misses else f"chosen part{cached}"
