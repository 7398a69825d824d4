"""How the answers changed, for someone who wants to look at them: the first changed examples, the worst slices."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_modelopt.limits.slices import slice_rows, worst_first
from pytest_modelopt.reporting.columns import alike
from pytest_modelopt.reporting.messages.figures import in_points
from pytest_modelopt.reporting.messages.slices import slice_title
from pytest_modelopt.results.answers import Agreement
from pytest_modelopt.results.case import Case

EXAMPLES_SHOWN = 10
SLICES_SHOWN = 5


@dataclass(frozen=True)
class Columns:
    """A small table: its headers, its rows, and how many more rows the record holds."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    more: int


def counts(case: Case) -> str:
    """'3 of 450 predictions changed: 2 right to wrong, 1 wrong to right'; '' where nobody compared them."""
    changed = case.agreement
    if changed is None:
        return ""
    told = f"{changed.flips:,} of {changed.examples:,} predictions changed"
    return f"{told}: {_both(changed)}" if counts_right(case) else told


def _both(changed: Agreement) -> str:
    return f"{changed.right_to_wrong:,} right to wrong, {changed.wrong_to_right:,} wrong to right"


def counts_right(case: Case) -> bool:
    """Whether the answers were held against targets, and not against the original's own answers."""
    return case.agreement is not None and case.metric != "agreement"


def changed_line(case: Case) -> str:
    """'changed (2 right to wrong, ...): example 17 (target 3): 3 -> 5; ...' on one line, '' where there are none."""
    table = changed_examples(case)
    if table is None:
        return ""
    told = []
    for row in table.rows:
        cells = dict(zip(table.headers, row, strict=True))
        target = f" (target {cells['target']})" if "target" in cells else ""
        told.append(f"example {cells['example']}{target}: {cells['before']} -> {cells['after']}")
    more = f"; and {table.more:,} more in the record" if table.more else ""
    both = f" ({_both(case.agreement)})" if case.agreement is not None and counts_right(case) else ""
    return f"changed{both}: {'; '.join(told)}{more}"


def changed_examples(case: Case) -> Columns | None:
    """The first examples that the two variants answer differently, counted from 0; None where there are none."""
    listed = case.agreement.changed if case.agreement is not None else None
    if listed is None or not listed.index:
        return None
    headers = ["example", "before", "after"]
    columns: list[list[str]] = [
        [str(number) for number in column[:EXAMPLES_SHOWN]] for column in (listed.index, listed.before, listed.after)
    ]
    if listed.target is not None:
        headers.insert(1, "target")
        columns.insert(1, [str(number) for number in listed.target[:EXAMPLES_SHOWN]])
        if case.metric == "accuracy":  # elsewhere the first prediction does not say whether an answer is right
            headers.append("what it means")
            pairs = zip(listed.target, listed.before, listed.after, strict=True)
            columns.append([_meaning(*each) for each in list(pairs)[:EXAMPLES_SHOWN]])
    more = max(0, len(listed.index) - EXAMPLES_SHOWN)
    return Columns(tuple(headers), tuple(zip(*columns, strict=True)), more)


def _meaning(target: int, before: int, after: int) -> str:
    if before == target:
        return "right to wrong"
    return "wrong to right" if after == target else "both wrong"


def worst_slices(case: Case) -> Columns | None:
    """The slices that lost most; None where no slice lost anything, and where there is one only."""
    if case.slices is None or len(case.slices.names) < 2:
        return None
    lost = [row for row in worst_first(slice_rows(case.slices)) if row.drop is not None and row.drop > 0]
    if not lost:
        return None
    counted = case.slices.right_to_wrong is not None
    headers = ("slice", "examples", *(("right to wrong", "wrong to right") if counted else ()), "drop")
    shown = lost[:SLICES_SHOWN]
    drops = alike([float(row.drop or 0) for row in shown], "points", in_points=in_points(case, None))
    rows = tuple(
        (
            slice_title(case.slices, row.name),
            f"{row.examples:,}",
            *((f"{row.lost:,}", f"{row.won:,}") if row.lost is not None and row.won is not None else ()),
            drop,
        )
        for row, drop in zip(shown, drops, strict=True)
    )
    return Columns(headers, rows, max(0, len(lost) - SLICES_SHOWN))
