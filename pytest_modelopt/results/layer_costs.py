"""Layers of a model as a recipe changes them: each by itself, what it costs in answers, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LayerGroup:
    """A layer that a recipe changes, or several that stay or change together: those that share a weight."""

    names: tuple[str, ...]
    """In the model's order; to keep the first keeps all."""
    kind: str
    """The class of the first, and whether it is depthwise: 'Conv2d', 'Conv2d (depthwise)'."""
    weight_bytes: int
    """Of the layers as they were."""
    multiply_adds: int
    """Of one call; 0 where they could not be counted."""

    @property
    def name(self) -> str:
        return self.names[0]


@dataclass(frozen=True, slots=True)
class LayerCost:
    """What came of a recipe on one group alone, all others kept as they are."""

    group: LayerGroup
    saved_bytes: int | None = None
    """Bytes that the model holds less, counted; None where its memory cannot be read."""
    examples: int = 0
    """On which it was scored; 0 where it was not."""
    flips: int | None = None
    """Examples whose prediction changed; None for a metric that is not right-or-wrong per example."""
    drop: float | None = None
    """In the metric's unit."""
    low: float | None = None
    high: float | None = None
    """Bounds of the drop in the population, each at 95% alone; None where there are none."""
    why: str = ""
    """Why it was not scored: the recipe changes nothing there without others, or refuses."""

    @property
    def is_known(self) -> bool:
        """Whether it was tried."""
        return bool(self.examples or self.why)

    @property
    def harm(self) -> float:
        """By how much answers suffer, as a number that orders groups of one model: the share of flipped examples, and
        where a metric has none, the drop."""
        if self.flips is not None and self.examples:
            return self.flips / self.examples
        return max(0.0, self.drop or 0.0)


@dataclass(frozen=True, slots=True)
class RecipeSensitivity:
    """What a recipe costs on each layer alone, as `explore` has measured it on the examples by which it chooses."""

    model: str
    recipe: str
    unit_interval: bool
    """Whether the metric is one from 0 to 1, whose drops are told in percentage points."""
    costs: tuple[LayerCost, ...]
    """One of each group of layers that the recipe changes; of those that were not reached without figures."""

    @property
    def ranked(self) -> list[LayerCost]:
        """What was tried, the worst first; last those that were not scored."""
        tried = [cost for cost in self.costs if cost.is_known]
        return sorted(tried, key=lambda cost: (bool(cost.why), -cost.harm, -(cost.drop or 0.0), cost.group.name))

    @property
    def left(self) -> list[LayerGroup]:
        """Those of which nothing is known yet."""
        return [cost.group for cost in self.costs if not cost.is_known]
