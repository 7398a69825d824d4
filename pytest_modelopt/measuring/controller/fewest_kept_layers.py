"""The search for a least set of layers with which a recipe does no harm, by bisection: kinds of layers, then layers."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

Unit = TypeVar("Unit", bound=Hashable)


def by_kind(
    kinds: Mapping[str, Sequence[Unit]],
    harm: Callable[[Sequence[Unit]], float],
    holds: Callable[[Sequence[Unit]], bool],
) -> list[Unit] | None:
    """The units of the kinds that must be kept: of the one whose units suffice, or of several; None where none do.

    `harm` of keeping some units orders kinds, where more than one is needed.
    """
    for units in kinds.values():
        if holds(units):
            return list(units)
    kept: list[Unit] = []
    for units in sorted(kinds.values(), key=harm)[: len(kinds) - 1]:  # to keep all of them changes nothing
        kept += units
        if len(kept) > len(units) and holds(kept):
            return kept
    return None


def least(units: Sequence[Unit], holds: Callable[[Sequence[Unit]], bool]) -> list[Unit]:
    """A part of `units` that holds, of which no unit can be left out; `units` hold.

    QuickXplain: Junker (2004), "Preferred explanations and relaxations for over-constrained problems", AAAI. Of n units
    of which k are needed it asks about 2 k log2(n / k) times.
    """
    return _least([], False, list(units), holds)


def _least(kept: list[Unit], is_new: bool, units: list[Unit], holds: Callable[[Sequence[Unit]], bool]) -> list[Unit]:
    if is_new and holds(kept):
        return []
    if len(units) == 1:
        return units
    half = len(units) // 2
    first, second = units[:half], units[half:]
    of_second = _least([*kept, *first], True, second, holds)
    of_first = _least([*kept, *of_second], bool(of_second), first, holds)
    return [*of_first, *of_second]


def fewest_first(units: Sequence[Unit], holds: Callable[[Sequence[Unit]], bool]) -> list[Unit] | None:
    """The least beginning of `units` that holds, by doubling and bisection, as if a longer one held as well; None where
    none does."""
    low, high = 0, 1
    while not holds(units[:high]):
        if high >= len(units):
            return None
        low, high = high, min(2 * high, len(units))
    while high - low > 1:
        middle = (low + high) // 2
        if holds(units[:middle]):
            high = middle
        else:
            low = middle
    return list(units[:high])


def remembered(of: Callable[[Sequence[Unit]], bool]) -> Callable[[Iterable[Unit]], bool]:
    """The same, asked once for each set."""
    known: dict[frozenset[Unit], bool] = {}

    def holds(units: Iterable[Unit]) -> bool:
        listed = list(units)
        if frozenset(listed) not in known:
            known[frozenset(listed)] = of(listed)
        return known[frozenset(listed)]

    return holds
