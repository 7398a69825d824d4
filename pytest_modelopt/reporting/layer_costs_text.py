"""What each layer costs and gives under a recipe: as a table, and in words with a bar for each, the worst first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tabulate import tabulate

from pytest_modelopt.reporting.plain_text import plain_line
from pytest_modelopt.results.figures import format_bytes, format_number, format_percentage, format_points
from pytest_modelopt.results.layer_costs import LayerCost, RecipeSensitivity

_BAR = 20
"""Characters of the longest bar."""
_HEADERS = ("layer", "kind", "flips", "drop", "saves", "work")
_LONGEST = 300
NOT_MEASURED = "-"


LEGEND = (
    "flips: examples whose prediction changed; drop with its bounds, each at 95%; saves: bytes, counted; work: the "
    "layer's share of the multiply-adds in these layers, which is an estimate of the time that it can save"
)


@dataclass(frozen=True)
class LayerTable:
    """Of one recipe."""

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """A layer each, the worst first; the first cell is its name."""
    harms: tuple[float, ...]
    """Of each row: from 0 to 1, the share of the worst one's."""
    notes: tuple[str, ...] = ()


def lines(found: RecipeSensitivity) -> Iterator[str]:
    made = table(found)
    if made.rows:
        yield f"{made.title}; the worst first:"
        rows = [(*row, "#" * round(_BAR * harm)) for row, harm in zip(made.rows, made.harms, strict=True)]
        yield from tabulate(rows, (*made.headers, "harm"), tablefmt="simple", disable_numparse=True).splitlines()
        yield LEGEND
    yield from made.notes


def table(found: RecipeSensitivity) -> LayerTable:
    """The layers that were scored, and what is to say of the others."""
    scored = [cost for cost in found.ranked if not cost.why]
    examples = max((cost.examples for cost in scored), default=0)
    work = sum(cost.group.multiply_adds for cost in found.costs)
    worst = max((cost.harm for cost in scored), default=0.0)
    return LayerTable(
        f"{found.recipe} on each layer alone, all others as they are, on {examples:,} examples",
        _HEADERS,
        tuple(_row(cost, work, unit_interval=found.unit_interval) for cost in scored),
        tuple(cost.harm / worst if worst else 0.0 for cost in scored),
        tuple(_not_scored(found)),
    )


def _not_scored(found: RecipeSensitivity) -> Iterator[str]:
    reasons: dict[str, list[str]] = {}
    for cost in found.ranked:
        if cost.why:
            reasons.setdefault(_shortened(cost.why), []).append(cost.group.name)
    for why, names in reasons.items():
        yield plain_line(f"not scored alone: {', '.join(names)} ({why})")
    left = [group.name for group in found.left]
    if left:
        yield plain_line(f"not reached: {', '.join(left)}; the same command goes on there")


def _row(cost: LayerCost, work: int, *, unit_interval: bool) -> tuple[str, ...]:
    return (
        plain_line(cost.group.name + (f" and {len(cost.group.names) - 1} more" if cost.group.names[1:] else "")),
        plain_line(cost.group.kind),
        NOT_MEASURED if cost.flips is None else f"{cost.flips:,}",
        _drop(cost, unit_interval=unit_interval),
        NOT_MEASURED if cost.saved_bytes is None else _saved(cost.saved_bytes),
        format_percentage(cost.group.multiply_adds / work) if work else NOT_MEASURED,
    )


def _drop(cost: LayerCost, *, unit_interval: bool) -> str:
    if cost.drop is None:
        return NOT_MEASURED
    word = format_points if unit_interval else format_number
    if cost.low is None or cost.high is None:
        return word(cost.drop)
    return f"{word(cost.drop)} ({word(cost.low)} to {word(cost.high)})"


def _saved(saved: int) -> str:
    return format_bytes(saved) if saved >= 0 else f"-{format_bytes(-saved)}"


def _shortened(text: str) -> str:
    line = plain_line(text)
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."
