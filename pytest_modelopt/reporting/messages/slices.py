"""Sentences on slices of the data: what the worst one lost, and what their bounds allow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from pytest_modelopt.limits.slices import SliceRow, beyond, slice_rows, too_small, worst_first
from pytest_modelopt.limits.spelling import plain
from pytest_modelopt.reporting.messages.figures import (
    beyond_limit,
    format_drop,
    format_figure,
    format_repeats,
    needed_examples,
    other_passes,
)
from pytest_modelopt.results.answers import Slices
from pytest_modelopt.results.case import MeasuredCase
from pytest_modelopt.results.figures import format_count, format_first, format_points
from pytest_modelopt.results.verdicts import Limit, Verdict
from pytest_modelopt.statistics.proportions import drop_bounds

_NAMED = 3
_LONGEST_TITLE = 60


def slice_title(slices: Slices, name: str) -> str:
    """'class 3', 'slice night': on one line, never long."""
    text = plain(name)
    text = text if len(text) <= _LONGEST_TITLE else f"{text[:_LONGEST_TITLE]}..."
    return f"{'class' if slices.of_classes else 'slice'} {text}"


def format_slice(case: MeasuredCase, row: SliceRow, limit: Limit | None = None) -> str:
    """'class 3 lost 4 of 45 examples and won 1 (6.67 pp)'."""
    assert case.slices is not None
    assert row.drop is not None
    title, drop = slice_title(case.slices, row.name), format_drop(case, float(row.drop), limit)
    if row.lost is None:
        return f"{title} dropped by {drop} on {_examples(row.examples)}"
    return f"{title} lost {row.lost:,} of {_examples(row.examples)} and won {row.won:,} ({drop})"


def format_small_slices(case: MeasuredCase, limit: Limit) -> str:
    """'2 of 10 slices have so few examples ...', or '' where none is too small."""
    small = too_small(case, limit)
    if not small or case.slices is None:
        return ""
    ordered = sorted(small, key=lambda row: row.examples)
    names = [f"{slice_title(case.slices, row.name)} ({row.examples:,})" for row in ordered]
    have = "slices has" if len(small) == 1 else "slices have"
    return (
        f"{len(small):,} of {len(case.slices.names):,} {have} so few examples that a single one is more than "
        f"{limit.text}, so a drop of 0 there proves nothing: {_listed(names)}"
    )


def format_slices(case: MeasuredCase, verdict: Verdict) -> str:
    """What a verdict on slices rests on."""
    assert case.slices is not None
    rows = slice_rows(case.slices)
    of_set = verdict.reason.code == "slices-on-the-set"
    text = (_on_the_set if of_set else _in_the_population)(case, verdict, rows)
    passes = other_passes(case, verdict)
    if passes:
        text += f"{passes}; {format_repeats(case)}"
    unscored = [slice_title(case.slices, row.name) for row in rows if row.drop is None]
    if unscored:
        text += (
            f"; {'a slice has' if len(unscored) == 1 else f'{len(unscored):,} slices have'} no score: "
            f"{_listed(unscored)}; give them examples on which the metric has a value, or one name with others"
        )
    return text


def _on_the_set(case: MeasuredCase, verdict: Verdict, rows: Sequence[SliceRow]) -> str:
    assert case.slices is not None
    limit, worst, broken = verdict.limit, worst_first(rows)[0], beyond(rows, verdict.limit)
    if not broken:
        small = format_small_slices(case, limit)
        return f"at worst {format_slice(case, worst, limit)}{f'; {small}' if small else ''}"
    assert verdict.measured is not None
    text = f"{format_slice(case, worst, limit)}{beyond_limit(case, limit, verdict.measured)}"
    if worst in too_small(case, limit) and not _is_certain(worst, limit):
        enough = math.ceil(1 / Fraction(repr(limit.value)))
        text += (
            f"; with {_examples(worst.examples)} a single one is {format_points(1 / worst.examples)}, more than the "
            f"limit, so a single wrong answer breaks it: give the slice at least {enough:,} examples"
        )
    others = [
        f"{slice_title(case.slices, row.name)} ({format_drop(case, float(row.drop), limit)} of {row.examples:,})"
        for row in broken[1:]
        if row.drop is not None
    ]
    if others:
        text += f"; {len(others):,} more of {len(rows):,} slices beyond the limit: {_listed(others)}"
    return text


def _is_certain(row: SliceRow, limit: Limit) -> bool:
    """Whether the slice lost so many examples that their number says something beyond them: the one-sided 95% bound of
    its drop is beyond the limit, too."""
    if row.lost is None or row.won is None:
        return False
    low, _ = drop_bounds(row.lost, row.won, row.examples)
    return low > limit.value


def _in_the_population(case: MeasuredCase, verdict: Verdict, rows: Sequence[SliceRow]) -> str:
    assert case.slices is not None
    found, limit = verdict.reason.parameters, verdict.limit
    row, title = next(row for row in rows if row.name == found["slice"]), slice_title(case.slices, str(found["slice"]))
    end = found["bound"]
    assert isinstance(end, float)
    bound = format_figure(case, limit, end, kept=False)
    if found["by_slices"] == "fail":
        among = f", shared among {len(rows):,} slices" if len(rows) > 1 else ""
        return f"{format_slice(case, row, limit)}, at least {bound} in the population (95%{among})"
    text = f"at worst {format_slice(case, worst_first(rows)[0], limit)}"
    most = f"at most {bound} in the population (95%)"
    if found["by_slices"] == "pass":
        return f"{text}; the highest bound is that of {title}, {most}"
    return (
        f"{text}, and {found['open']:,} of {len(rows):,} slices may be beyond the limit, most of all {title} with "
        f"{_examples(row.examples)}, {most}: {needed_examples(found['needed'], f' of {title}')}"
    )


def _examples(number: int) -> str:
    return format_count(number, "example")


def _listed(names: Sequence[str]) -> str:
    return format_first(names, _NAMED)
