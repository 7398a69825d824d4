"""Sensitivity by layer: a recipe on each layer alone, what it costs in answers, and what it gives."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from pytest_modelopt.exploring.cache import Cache
from pytest_modelopt.measuring.controller.layer_trials import Tried
from pytest_modelopt.optimizing.expression import Expression
from pytest_modelopt.results.layer_costs import LayerCost, LayerGroup, RecipeSensitivity
from pytest_modelopt.statistics.proportions import drop_bounds

_FORMAT = "sensitivity 1"


class Trials(Protocol):
    """A worker that tries the recipe on some layers (`measuring.controller.layer_trials`)."""

    groups: tuple[LayerGroup, ...]

    def keep(self, groups: Sequence[LayerGroup]) -> Tried: ...


@dataclass
class Sensitivity:
    """The costs of a recipe by layer, as far as they are known: whatever interrupts `measure`, `costs` has the rest."""

    recipe: Expression
    cache: Cache
    groups: tuple[LayerGroup, ...]
    tell: Callable[[str], None] = lambda text: None

    def __post_init__(self) -> None:
        known = [cost for cost in _read(self.cache, self.recipe) if cost.group in self.groups]
        self.costs: list[LayerCost] = [cost for cost in known if cost.is_known]

    @property
    def left(self) -> list[LayerGroup]:
        """Those of which nothing is known yet."""
        known = {cost.group for cost in self.costs}
        return [group for group in self.groups if group not in known]

    def measure(self, trials: Trials) -> None:
        """All that is left, the largest first: there a recipe gives most."""
        for group in sorted(self.left, key=lambda each: -each.weight_bytes):
            self.tell(f"layer {len(self.costs) + 1} of {len(self.groups)}: {group.name}")
            others = [each for each in self.groups if each is not group]
            self.costs.append(cost_of(group, trials.keep(others)))
            _write(self.cache, self.recipe, [*self.costs, *map(LayerCost, self.left)])

    def told(self, model: str, *, unit_interval: bool) -> RecipeSensitivity:
        """The costs known so far, for reports and the record. `unit_interval`: the metric is one from 0 to 1."""
        costs = (*self.costs, *map(LayerCost, self.left))
        return RecipeSensitivity(model, str(self.recipe), unit_interval, costs)


def known_groups(cache: Cache, recipe: Expression) -> tuple[LayerGroup, ...]:
    """The layers that the recipe changes, as an earlier measurement has found them; none where there was none."""
    return tuple(cost.group for cost in _read(cache, recipe))


def cost_of(group: LayerGroup, tried: Tried) -> LayerCost:
    """The cost of changing one group of layers: of a trial that kept all other groups."""
    if tried.why:
        return LayerCost(group, why=tried.why)
    case, changed = tried.case, tried.case.agreement
    examples = case.variant.examples if case.variant is not None else 0
    low = high = None
    if changed is not None and changed.examples:
        low, high = drop_bounds(changed.right_to_wrong, changed.wrong_to_right, changed.examples)
    elif case.interval is not None:
        low, high = case.interval.low, case.interval.high
    return LayerCost(group, tried.saved_bytes, examples, changed.flips if changed else None, case.drop, low, high)


# --- the cache: read as data that somebody else may have written -----------------------------------------------------


def _read(cache: Cache, recipe: Expression) -> list[LayerCost]:
    file = cache.beside(recipe, _FORMAT)
    if file is None:
        return []
    try:
        data: Any = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(data, dict) or data.get("format") != _FORMAT or data.get("key") != cache.key:
            return []
        return list(map(_cost, data["costs"]))
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return []


def _write(cache: Cache, recipe: Expression, costs: Sequence[LayerCost]) -> None:
    cache.write(recipe, _FORMAT, {"costs": [asdict(cost) for cost in costs]})


def _cost(data: Any) -> LayerCost:
    """Raises ValueError, TypeError or LookupError for what is none."""
    group = data["group"]
    names, kind = tuple(group["names"]), group["kind"]
    numbers = [group["weight_bytes"], group["multiply_adds"], data["examples"]]
    texts = [*names, kind, data["why"]]
    if not names or any(type(text) is not str for text in texts) or any(type(each) is not int for each in numbers):
        raise ValueError("no group of layers")
    counts = (data["saved_bytes"], data["flips"])
    figures = (data["drop"], data["low"], data["high"])
    if any(type(each) not in (int, type(None)) for each in counts):
        raise ValueError("no counts")
    if any(type(each) not in (int, float, type(None)) for each in figures) or min(numbers) < 0:
        raise ValueError("no figures")
    return LayerCost(
        LayerGroup(names, kind, numbers[0], numbers[1]), counts[0], numbers[2], counts[1], *figures, why=data["why"]
    )
