"""Which model and recipe of the base is which of head's: a new name, or another parameter, makes no new model of it.

What has the same name is the same. Of what went and what came, the most alike are the same: models with the same
factory or data, recipes with the same steps. Where that does not say which is which, none of them is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from pytest_modelopt.config.loader import BudgetsFile, ModelEntry
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.optimizing.recipe import Recipe, RecipeError

_ALSO_ALIKE = ("metric", "calibration", "example_inputs", "slices", "call", "optimize", "inference")
Likeness = tuple[float, ...]
"""Larger where two are more alike."""
_Thing = TypeVar("_Thing", bound=Hashable)


@dataclass(frozen=True)
class Pairs:
    """What is called otherwise at head than it was at the base, by the names that head gives."""

    models: Mapping[str, str] = field(default_factory=dict)
    recipes: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """By model and recipe."""
    unsure_models: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Models that came, each with those that went and could be the same."""
    unsure_recipes: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)

    def at_base(self, model: str, recipe: str | None) -> tuple[str, str | None]:
        """What the base calls a model and a recipe of head."""
        was = recipe if recipe is None else self.recipes.get((model, recipe), recipe)
        return self.models.get(model, model), was

    def unsure(self, model: str, recipe: str | None) -> tuple[str, ...]:
        """What of the base it may be, where that is not known."""
        return self.unsure_models.get(model, ()) or self.unsure_recipes.get((model, recipe or ""), ())

    def as_head_calls(self, base: BudgetsFile, head: BudgetsFile) -> BudgetsFile:
        """The base's file with head's names; a model that two of head's are compared with stands there twice."""
        recipes = {(model, was): recipe for (model, recipe), was in self.recipes.items()}
        ours = {model.name for model in head.models}
        called = [(name, was) for name, was in self.models.items()]
        called += [
            (each.name,) * 2 for each in base.models if each.name in ours or each.name not in dict(called).values()
        ]
        models = {name: replace(_by_name(base)[was], name=name) for name, was in called}
        cases = [
            replace(case, model=models[name], recipe=recipes.get((name, case.recipe), case.recipe))
            for name, was in called
            for case in base.cases
            if case.model.name == was
        ]
        return replace(base, models=tuple(models.values()), cases=tuple(cases))


def pairs_of(base: BudgetsFile, head: BudgetsFile) -> Pairs:
    """Which is which in two budgets files.

    A model whose name stays and whose factory does not may also be one that came with its factory: then both are
    compared with it.
    """
    theirs, ours = _by_name(base), _by_name(head)
    went, came = _apart(list(theirs), list(ours))
    replaced = [name for name in theirs if name in ours and theirs[name].origin != ours[name].origin]

    def likeness(was: str, now: str) -> Likeness | None:
        if was in ours and theirs[was].origin != ours[now].origin:
            return None
        return _likeness_of_models((theirs[was], _recipes(base, was)), (ours[now], _recipes(head, now)))

    models, unsure_models = matched([*went, *replaced], came, likeness)
    left = tuple(name for name in went if name not in models.values())
    unsure_models |= {name: left for name in came if left and name not in models and name not in unsure_models}
    recipes: dict[tuple[str, str], str] = {}
    unsure: dict[tuple[str, str], tuple[str, ...]] = {}
    for name in ours:
        was = models.get(name, name)
        if was in theirs and name not in unsure_models:
            same, unknown = recipe_pairs(_recipes(base, was), _recipes(head, name))
            recipes |= {(name, recipe): before for recipe, before in same.items()}
            unsure |= {(name, recipe): before for recipe, before in unknown.items()}
    return Pairs(models, recipes, unsure_models, unsure)


def recipe_pairs(base: Iterable[str], head: Iterable[str]) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """The base's recipe by that of head which has the same steps and other parameters, and where it is not known."""
    return matched(*_apart(list(base), list(head)), _likeness_of_recipes)


def matched(
    went: Iterable[_Thing], came: Iterable[_Thing], likeness: Callable[[_Thing, _Thing], Likeness | None]
) -> tuple[dict[_Thing, _Thing], dict[_Thing, tuple[_Thing, ...]]]:
    """What went by what came, the most alike first; and what came where several are equally alike, with these.

    `likeness` is None for two that cannot be the same.
    """
    left = {(was, now): alike for was in went for now in came if (alike := likeness(was, now)) is not None}
    same: dict[_Thing, _Thing] = {}
    unsure: dict[_Thing, tuple[_Thing, ...]] = {}
    while left:
        best = max(left.values())
        most = [pair for pair, alike in left.items() if alike == best]
        for was, now in most:
            rivals = [pair for pair in most if was == pair[0] or now == pair[1]]
            if len(rivals) == 1:
                same[now] = was
            else:
                unsure[now] = tuple(dict.fromkeys(before for before, after in rivals if after == now))
        done = {was for was, _ in most}, {now for _, now in most}
        left = {pair: alike for pair, alike in left.items() if pair[0] not in done[0] and pair[1] not in done[1]}
    return same, unsure


def _apart(base: list[str], head: list[str]) -> tuple[list[str], list[str]]:
    """What went, and what came."""
    return [name for name in base if name not in head], [name for name in head if name not in base]


def _by_name(file: BudgetsFile) -> dict[str, ModelEntry]:
    return {model.name: model for model in file.models}


def _recipes(file: BudgetsFile, model: str) -> list[str]:
    return list(dict.fromkeys(case.recipe for case in file.cases if case.model.name == model))


def _likeness_of_models(was: tuple[ModelEntry, list[str]], now: tuple[ModelEntry, list[str]]) -> Likeness | None:
    (base, base_recipes), (head, head_recipes) = was, now
    same_factory, same_data = base.origin == head.origin, base.data == head.data
    if not same_factory and not same_data:
        return None
    others = sum(getattr(base, name) == getattr(head, name) for name in _ALSO_ALIKE)
    shared = len(set(base_recipes) & set(head_recipes)) / max(1, len(set(base_recipes) | set(head_recipes)))
    return (same_factory, same_data, others, shared)


def _likeness_of_recipes(was: str, now: str) -> Likeness | None:
    try:
        base, head = parse(was), parse(now)
    except RecipeError:  # a saved record may hold what is registered no more
        return None
    if [step.recipe_name for step in base.steps] != [step.recipe_name for step in head.steps]:
        return None
    return (-sum(map(_distance, base.steps, head.steps)),)


def _distance(was: Recipe, now: Recipe) -> float:
    """How far the parameters of two steps lie apart: 0 to 1 for each."""
    pairs = [(getattr(was, name), getattr(now, name)) for name in type(was).model_fields]
    return sum(_apart_by(one, other) for one, other in pairs)


def _apart_by(one: object, other: object) -> float:
    if one == other:
        return 0.0
    if isinstance(one, bool) or isinstance(other, bool):
        return 1.0
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return abs(one - other) / (abs(one) + abs(other))
    return 1.0


# --- in words --------------------------------------------------------------------------------------------------------


def format_pairs(pairs: Pairs, base: str) -> list[str]:
    """What was compared with what, one sentence each."""
    models = [
        f"{now} is compared with {was} of {base}, which has the same factory or data and is gone, or is another model"
        for now, was in pairs.models.items()
    ]
    recipes = [
        f"{model}/{now} is compared with {pairs.models.get(model, model)}/{was} of {base}: "
        "the same steps with other parameters"
        for (model, now), was in pairs.recipes.items()
    ]
    return [*models, *recipes]


def format_unsure(what: str, unsure: tuple[str, ...], base: str) -> str:
    """Why `what` is compared with none of those that it may have been."""
    return (
        f"{', '.join(unsure)} of {base} {'is' if len(unsure) == 1 else 'are'} gone, and whether {what} is what became "
        "of it is not known: rename in one change and alter factory, data or parameters in another"
    )
