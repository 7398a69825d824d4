"""What each layer costs and gives under a recipe, in words: a table with a bar for each, the worst first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tabulate import tabulate

from pytest_modelopt.exploring.sensitivity import Sensitivity
from pytest_modelopt.reporting.plain_text import plain_line
from pytest_modelopt.results.figures import format_bytes, format_number, format_percentage, format_points
from pytest_modelopt.results.layer_costs import LayerCost

_BAR = 20
"""Characters of the longest bar."""
_HEADERS = ("layer", "kind", "flips", "drop", "saves", "work", "harm")
_LONGEST = 120
NOT_MEASURED = "-"


def lines(found: Sensitivity, *, unit_interval: bool) -> Iterator[str]:
    """`unit_interval`: the metric is one from 0 to 1, whose drops are told in percentage points."""
    scored = [cost for cost in found.ranked if not cost.why]
    examples = max((cost.examples for cost in scored), default=0)
    if scored:
        yield f"{found.recipe} on each layer alone, all others as they are, on {examples:,} examples; the worst first:"
        yield from _table(scored, sum(group.multiply_adds for group in found.groups), unit_interval=unit_interval)
        yield (
            "flips: examples whose prediction changed; drop with its bounds, each at 95%; saves: bytes, counted; work: "
            "the layer's share of the multiply-adds in these layers, which is an estimate of the time that it can save"
        )
    reasons: dict[str, list[str]] = {}
    for cost in found.ranked:
        if cost.why:
            reasons.setdefault(_shortened(cost.why), []).append(cost.group.name)
    for why, names in reasons.items():
        yield plain_line(f"not by itself: {', '.join(names)} ({why})")
    if found.left:
        yield plain_line(f"not reached: {', '.join(group.name for group in found.left)}; a second call goes on there")


def _table(costs: Sequence[LayerCost], work: int, *, unit_interval: bool) -> Iterator[str]:
    worst = max(cost.harm for cost in costs)
    rows = [
        (
            plain_line(cost.group.name + (f" and {len(cost.group.names) - 1} more" if cost.group.names[1:] else "")),
            plain_line(cost.group.kind),
            NOT_MEASURED if cost.flips is None else f"{cost.flips:,}",
            _drop(cost, unit_interval=unit_interval),
            NOT_MEASURED if cost.saved_bytes is None else _saved(cost.saved_bytes),
            format_percentage(cost.group.multiply_adds / work) if work else NOT_MEASURED,
            "#" * round(_BAR * cost.harm / worst) if worst else "",
        )
        for cost in costs
    ]
    yield from tabulate(rows, _HEADERS, tablefmt="simple", disable_numparse=True).splitlines()


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
