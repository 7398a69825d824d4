"""The least set of layers to keep, held against trying all sets."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import pytest

from pytest_modelopt.measuring.controller.fewest_kept_layers import by_kind, fewest_first, least, remembered


@pytest.mark.parametrize("seed", range(20))
def test_no_layer_can_be_left_out_and_few_sets_are_tried(seed: int) -> None:
    """What is needed is one or two sets of layers; the least that is found is one of them, or of its like."""
    drawn = random.Random(seed)
    units = list(range(drawn.randint(2, 40)))
    needed = [set(drawn.sample(units, drawn.randint(1, min(3, len(units))))) for _ in range(2)]
    asked: list[frozenset[int]] = []

    def holds(kept: Sequence[int]) -> bool:
        asked.append(frozenset(kept))
        return any(each <= set(kept) for each in needed)

    found = least(units, remembered(holds))
    tried = list(asked)
    assert any(set(found) == each for each in needed)
    assert not any(holds(rest) for rest in itertools.combinations(found, len(found) - 1))
    assert len(tried) == len(set(tried)), "each set is tried once"
    assert len(tried) <= 2 * len(found) * (1 + len(units).bit_length())


@pytest.mark.parametrize("seed", range(20))
def test_the_least_beginning_that_holds(seed: int) -> None:
    drawn = random.Random(seed)
    units = list(range(drawn.randint(1, 60)))
    needed = drawn.randint(1, len(units))
    asked = []

    def holds(kept: Sequence[int]) -> bool:
        asked.append(len(kept))
        return len(kept) >= needed

    assert fewest_first(units, holds) == units[:needed]
    assert len(asked) <= 2 * len(units).bit_length() + 1
    assert fewest_first(units, lambda kept: False) is None
    assert fewest_first([], lambda kept: False) is None


def test_kinds_that_suffice_and_kinds_that_do_together() -> None:
    kinds = {"Linear": ["a", "b"], "LSTM": ["c"], "Conv2d": ["d", "e"]}
    harms = {"a": 5.0, "b": 0.0, "c": 3.0, "d": 0.0, "e": 1.0}

    def harm(kept: Sequence[str]) -> float:
        return sum(harms.values()) - sum(harms[each] for each in kept)

    assert by_kind(kinds, harm, lambda kept: "c" in kept) == ["c"]
    assert by_kind(kinds, harm, lambda kept: {"a", "c"} <= set(kept)) == ["a", "b", "c"]
    assert by_kind(kinds, harm, lambda kept: len(kept) == 5) is None, "to keep all of them is no recipe"
