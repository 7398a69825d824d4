"""What each layer costs and gives under a recipe: as a table, and in words with a bar for each, the worst first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tabulate import tabulate

from pytest_modelopt.reporting.columns import MISSING as NOT_MEASURED
from pytest_modelopt.reporting.columns import alike
from pytest_modelopt.reporting.names import shortened
from pytest_modelopt.reporting.plain_text import plain_line
from pytest_modelopt.results.layer_costs import LayerCost, RecipeSensitivity

_BAR = 20
"""Characters of the longest bar."""
_HEADERS = ("layer", "kind", "flips", "drop", "saves", "work")
_LONGEST = 300


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
        tuple(_rows(scored, work, unit_interval=found.unit_interval)),
        tuple(cost.harm / worst if worst else 0.0 for cost in scored),
        tuple(_not_scored(found)),
    )


def _not_scored(found: RecipeSensitivity) -> Iterator[str]:
    reasons: dict[str, list[str]] = {}
    for cost in found.ranked:
        if cost.why:
            reasons.setdefault(shortened(cost.why, _LONGEST), []).append(cost.group.name)
    for why, names in reasons.items():
        yield plain_line(f"not scored alone: {', '.join(names)} ({why})")
    left = [group.name for group in found.left]
    if left:
        yield plain_line(f"not reached: {', '.join(left)}; the same command goes on there")


def _rows(costs: Sequence[LayerCost], work: int, *, unit_interval: bool) -> Iterator[tuple[str, ...]]:
    ends = [(cost.drop, cost.low, cost.high) for cost in costs]
    drops = iter(alike([each for of in ends for each in of], "points", in_points=unit_interval))
    saved = alike([cost.saved_bytes for cost in costs], "bytes")
    shares = alike([cost.group.multiply_adds / work if work else None for cost in costs], "percentage")
    for cost, bytes_saved, share in zip(costs, saved, shares, strict=True):
        drop, low, high = next(drops), next(drops), next(drops)
        yield (
            plain_line(cost.group.name + (f" and {len(cost.group.names) - 1} more" if cost.group.names[1:] else "")),
            plain_line(cost.group.kind),
            NOT_MEASURED if cost.flips is None else f"{cost.flips:,}",
            drop if NOT_MEASURED in (low, high) else f"{drop} ({low} to {high})",
            bytes_saved,
            share,
        )
