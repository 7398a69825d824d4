"""One thing that a report says, structured: each form of the report renders it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from pytest_modelopt.reporting.addresses import TROUBLESHOOTING

Severity = Literal["error", "warning", "info"]
Label = Literal["ERROR", "FAIL", "INCONCLUSIVE", "WARN", "NOTE"]


@dataclass(frozen=True)
class Item:
    """One thing to say. All texts are plain: one line each, without control characters."""

    severity: Severity
    label: Label
    title: str
    """A few words that stand alone: 'digits-vit/int8-dynamic: max_memory is broken'."""
    text: str
    """The whole sentence."""
    short: str = ""
    """The same in a few words that do not say of which case it is: 'max_memory 1 MiB: 1.07 MiB (+6.8%)'."""
    next_step: str = ""
    """What to do, where nothing that was found says it."""
    found: tuple[str, ...] = ()
    """What the doctor found that explains the figure of this limit."""
    changed: tuple[str, ...] = ()
    """Under a limit about answers: the first examples that are answered differently; Markdown has a table of them."""
    why: tuple[str, ...] = ()
    """The likely cause, and what else is known about the case; the same for all items of one case."""
    output: tuple[str, ...] = ()
    """The last lines that the worker printed."""
    case_id: str | None = None
    file: str | None = None
    line: int | None = None
    is_shared: bool = False
    """Whether its cause may be that of other cases of the model, too."""
    code: str = ""
    """Under which the documentation explains it; empty where nothing does."""
    excess: float = 0.0
    """How far beyond its limit, as a share of the limit; infinite where nothing was measured. For sorting only."""

    @property
    def heading(self) -> str:
        """Of the page that explains red ones; '' where there is none."""
        return self.code if self.severity == "error" else ""

    @property
    def address(self) -> str:
        """Of that heading."""
        return f"{TROUBLESHOOTING}#{self.heading}" if self.heading else ""

    @property
    def told_below(self) -> tuple[str, ...]:
        """What belongs under the sentence: what explains it, with what to do; the next step where nothing says it."""
        return (*self.found, *self.next_line)

    @property
    def next_line(self) -> tuple[str, ...]:
        """'Next: ...'; none where something that was found says it."""
        return (f"Next: {self.next_step}",) if self.next_step else ()


def each_once(told: Sequence[Item], lines: Callable[[Item], Iterable[str]]) -> list[tuple[Item, list[str]]]:
    """The items with their lines; a line that several of one case have stands under the last of these, for them all."""
    last = {(item.case_id, line): index for index, item in enumerate(told) for line in lines(item)}
    return [
        (item, [line for line in dict.fromkeys(lines(item)) if last[item.case_id, line] == index])
        for index, item in enumerate(told)
    ]


def headings(told: Iterable[Item]) -> list[str]:
    """Of the page that explains the red ones: the first of each case, each once."""
    first: dict[str | None, str] = {}
    for item in told:
        if item.heading:
            first.setdefault(item.case_id, item.heading)
    return [*dict.fromkeys(first.values())]
