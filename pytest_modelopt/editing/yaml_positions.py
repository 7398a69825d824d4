"""Where in a budgets file each limit's value is written, and the file with other values in these places."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pytest_modelopt.config.document import Document
from pytest_modelopt.config.loader import BudgetsFile, CaseEntry
from pytest_modelopt.config.schema import Location
from pytest_modelopt.config.sharing import is_ignored
from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.results.case import ORIGINAL
from pytest_modelopt.results.verdicts import Limit


@dataclass(frozen=True, order=True)
class Place:
    """The characters of the file, from `start` to before `end`, that are the value: no quotes, no anchor."""

    start: int
    end: int


@dataclass(frozen=True)
class Stated:
    """One limit as it holds for one case. Where several cases share what is written, their places are the same."""

    case: str
    """'digits-vit/int8-dynamic'."""
    limit: Limit
    entry: CaseEntry
    is_regression: bool
    place: Place | None
    """None where the value is written in a way that cannot be replaced (a block, an escape, an alias of no limit)."""
    target: str = ""
    """On whose machines it holds; '' where it holds everywhere."""


def stated_limits(budgets: BudgetsFile, document: Document) -> Iterator[Stated]:
    """Every limit of every case, in the order of the file's cases. `document` is what `budgets` was read from."""
    told: set[str] = set()
    for entry in budgets.cases:
        model: Location = ("models", entry.model.name)
        own, at = _own(entry, model), ("workloads", entry.workload.name)
        shared: tuple[Location, ...] = ((*model, *at), own, (*model, "budget"))
        for limit in entry.everywhere:
            mappings = ((*own, *at), *((own,) if entry.recipe == ORIGINAL else shared))
            yield Stated(entry.name, limit, entry, False, _place(document, limit, *mappings))
        for there in entry.at_targets:
            of_target = ("targets", there.target.name)
            for limit in there.limits:
                places = ((*own, *of_target), (*model, *of_target))
                place = _place(document, limit, *places)
                yield Stated(entry.name, limit, entry, False, place, there.target.name)
        for limit in entry.regression if entry.recipe != ORIGINAL else ():
            of_base = ((*own, "regression"), own, (*model, "regression"))
            yield Stated(entry.name, limit, entry, True, _place(document, limit, *of_base))
        if entry.model.name not in told:
            told.add(entry.model.name)
            for original in budgets.originals:
                for limit in original.regression if original.model == entry.model else ():
                    place = _place(document, limit, (*model, "regression"))
                    yield Stated(original.name, limit, original, True, place)


def _own(entry: CaseEntry, model: Location) -> Location:
    """The location of the limits that hold for this case only."""
    if entry.recipe == ORIGINAL:
        return (*model, ORIGINAL)
    if entry.candidate is not None:
        return (*model, "candidates", entry.recipe)
    assert entry.expression is not None
    return (*model, "recipes", entry.expression.written)


def require_only(before: Document, after: Document, texts: Mapping[Place, str]) -> None:
    """That `after` says what `before` says but for `texts`, in the same lines.

    Raises:
        ValueError: where it does not.
    """
    new = {span: text for place, text in texts.items() for span in before.spans.values() if _is_inside(place, span)}
    expected = {location: new.get(before.spans[location], text) for location, text in before.texts.items()}
    if (after.texts, after.lines, after.problems) != (expected, before.lines, before.problems):
        raise ValueError(
            "with the new values the file would state something else, too (an alias or an indent that others use), "
            "so nothing was written: change it by hand"
        )


def replaced(source: str, texts: Mapping[Place, str]) -> str:
    """`source` with other texts in these places, and not a character else."""
    for place in sorted(texts, reverse=True):  # from the end, so that what stands before stays where it is
        source = source[: place.start] + texts[place] + source[place.end :]
    return source


def _is_inside(place: Place, span: tuple[int, int]) -> bool:
    return span[0] <= place.start and place.end <= span[1]


def _place(document: Document, limit: Limit, *mappings: Location) -> Place | None:
    """In the first of the mappings that states `limit`."""
    for mapping in mappings:
        location: Location = (*mapping, limit.name)
        for value in (location, (*location, "limit")):
            if value in document.spans and document.texts[value] == limit.text:
                span = document.spans[value]
                return _within(document.source, span, limit.text) if _holds_limits_only(document, span) else None
    return None


def _holds_limits_only(document: Document, span: tuple[int, int]) -> bool:
    """Whether no alias makes the same value something else, a time limit or a waiver's ceiling."""
    locations = (place for place, there in document.spans.items() if there == span and not is_ignored(place))
    return all((location[-2] if location[-1] == "limit" else location[-1]) in LIMITS for location in locations)


def _within(source: str, span: tuple[int, int], text: str) -> Place | None:
    """The value inside its node, which may begin with an anchor or a tag and have quotes around it."""
    start, end = span
    node = source[start:end]
    if node.endswith(text):
        return Place(end - len(text), end)
    for quote in "'\"":
        if node.endswith(f"{quote}{text}{quote}"):
            return Place(end - 1 - len(text), end - 1)
    return None
