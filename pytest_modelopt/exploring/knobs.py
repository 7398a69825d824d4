"""Knobs of recipes, numbers between which a model's best setting may lie, and the recipes that their settings make.

Each knob is a grid of settings in order. The grid is fine enough that neighbours hardly differ, and a setting is text
that a budgets file can state (`ratio=0.37`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from pytest_modelopt.optimizing.expression import Expression
from pytest_modelopt.optimizing.recipe import Recipe

_SHARES = tuple(round(0.01 * each, 2) for each in range(5, 96))
_LOST_ENERGY = tuple(0.5 * 0.78**each for each in range(26))
_OF_ALL_BYTES = tuple(0.95 * 0.91**each for each in range(31, -1, -1))
_BATCHES = (1, 2, 4, 8, 16, 32, 64)
KNOBS = ("ratio", "energy", "bytes", "batches")
"""Names of parameters that are knobs, where a recipe has them."""


@dataclass(frozen=True)
class Knob:
    """One parameter of one step of an expression."""

    step: int
    name: str
    settings: tuple[float, ...]
    """In order: floats, or whole numbers."""

    @property
    def text(self) -> str:
        """A name that no other knob of its family has."""
        return f"{self.step}.{self.name}"


@dataclass(frozen=True)
class Family:
    """One expression with its knobs: all recipes that their settings make."""

    base: Expression
    knobs: tuple[Knob, ...]

    @property
    def text(self) -> str:
        """A name that no other family of a model has."""
        return f"{self.base.text} by {', '.join(knob.text for knob in self.knobs)}"

    def recipe(self, indices: Sequence[int]) -> Expression:
        """The expression in which each knob has the setting at its index."""
        steps = list(self.base.steps)
        for knob, index in zip(self.knobs, indices, strict=True):
            steps[knob.step] = _with(steps[knob.step], knob.name, knob.settings[index])
        return Expression.of(steps)

    def indices(self, recipe: Expression) -> tuple[int, ...] | None:
        """The settings, each the nearest on its grid, of a recipe of this family; None for one of another."""
        found = []
        if len(recipe.steps) != len(self.base.steps):
            return None
        for knob in self.knobs:
            value = getattr(recipe.steps[knob.step], knob.name, None)
            if value is None:
                return None
            found.append(min(range(len(knob.settings)), key=lambda each: abs(knob.settings[each] - value)))
        own = self.recipe(found)
        steps = list(own.steps)
        for knob in self.knobs:  # what is no knob must be the same
            steps[knob.step] = _with(steps[knob.step], knob.name, getattr(recipe.steps[knob.step], knob.name))
        return tuple(found) if Expression.of(steps).text == recipe.text else None


def families(recipe: Expression, linear_bytes: int) -> list[Family]:
    """Those of an expression: one for each way to state its knobs. `low-rank(ratio=0.5)` has three, since `energy` or
    `bytes` may take the place of `ratio`; an expression without a knob has none.

    `linear_bytes`: of the weights of all Linear of the original, of which `bytes` is a share.
    """
    of_steps = [_ways(step, number, linear_bytes) for number, step in enumerate(recipe.steps)]
    made = (Family(recipe, tuple(knob for way in ways for knob in way)) for ways in product(*of_steps))
    return [family for family in made if family.knobs]


def _ways(step: Recipe, number: int, linear_bytes: int) -> list[tuple[Knob, ...]]:
    """The sets of knobs of one step: those in force, and one set for each that may stand instead."""
    grids = {name: _grid(name, step, linear_bytes) for name in KNOBS if name in type(step).model_fields}
    usable = {name: grid for name, grid in grids.items() if grid}
    in_force = [name for name in usable if getattr(step, name) is not None]
    fixed = [name for name in in_force if not _may_be_left_out(step, name)]
    ways = [in_force, *([*fixed, name] for name in usable if name not in in_force)]
    return [tuple(Knob(number, name, usable[name]) for name in names) for names in ways]


def _grid(name: str, step: Recipe, linear_bytes: int) -> tuple[float, ...]:
    """Empty for a knob that changes nothing here."""
    if name == "ratio":
        return _SHARES
    if name == "energy":
        return tuple(sorted({round(1 - lost, 4) for lost in _LOST_ENERGY}))
    if name == "bytes":
        return tuple(dict.fromkeys(max(1, round(share * linear_bytes)) for share in _OF_ALL_BYTES if linear_bytes))
    return _BATCHES if step.calibrates else ()


def _may_be_left_out(step: Recipe, name: str) -> bool:
    """Whether the parameter may be None: then another one stands in its place."""
    return type(None) in getattr(type(step).model_fields[name].annotation, "__args__", ())


def _with(step: Recipe, name: str, value: float) -> Recipe:
    """The same recipe with another setting. A knob that it had instead is left out."""
    values = {each: getattr(step, each) for each in type(step).model_fields}
    instead = {each for each in KNOBS if values.get(each) is not None and _may_be_left_out(step, each)}
    if values.get(name) is None:
        values |= dict.fromkeys(instead)
    given = {each: own for each, own in values.items() if own is not None and each != name}
    return type(step)(**given, **{name: value})
