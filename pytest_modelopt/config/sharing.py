"""What several models of a budgets file share: `x-` keys, `defaults:` and patterns of names, written into each model.

After `expand` a document holds plain models only, and for all that a model was given the line and the text of where it
is stated, as if the file had repeated it there by an alias. So whatever reads a document knows nothing of sharing.

The closest statement wins: of the model, then of the patterns that match its name, the last one of the file first,
then of `defaults:`. Limits are taken one by one, also those of one recipe; anything else as a whole. Within one of
these a limit of a recipe goes before that of `budget:`, and never before one that stands closer.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_modelopt.config.problems import BudgetsError
from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.limits.spelling import did_you_mean, shown

if TYPE_CHECKING:
    from pytest_modelopt.config.document import Document
    from pytest_modelopt.config.schema import Location

OF_DEFAULTS = ("budget", "metric", "recipes")
"""Keys of a model that `defaults:` may state for all."""
_LIMITS = ("budget", "regression", "original")
_PLACES = ("workloads", "targets")
"""Below which limits hold at one workload, or on some machines."""
_OF_ONE_MODEL = ("factory", "file", "sha256", "inputs", "candidates")
_WILDCARDS = "*?["
_MOST_COPIES = 100_000
_Value = TypeVar("_Value")


def is_pattern(name: str) -> bool:
    """Whether the name of a model stands for all models that match it."""
    return any(character in name for character in _WILDCARDS)


def is_ignored(location: Location) -> bool:
    """Whether it is below an `x-` key of the file or of a model, which is there to be named by aliases."""
    places = (location[0],) if location[:1] != ("models",) else location[2:3]
    return any(str(key).startswith("x-") for key in places)


def expand(document: Document) -> None:
    """Write out in each model what it shares, and take patterns and `x-` keys out of the data."""
    document.data = _without_x(document.data)
    models = document.data.get("models")
    if not isinstance(models, dict):
        return
    stated = {name: _without_x(entry) for name, entry in models.items()}
    document.patterns = {name: entry for name, entry in stated.items() if is_pattern(name)}
    document.data["models"] = models = {name: entry for name, entry in stated.items() if not is_pattern(name)}
    _Expansion(document).run(models)


def _without_x(mapping: Any) -> Any:
    if not isinstance(mapping, dict):
        return mapping
    return {key: value for key, value in mapping.items() if not key.startswith("x-")}


@dataclass(frozen=True)
class _Layer:
    """What is stated for several models, and where."""

    at: Location
    data: Mapping[str, Any]


class _Expansion:
    def __init__(self, document: Document) -> None:
        self._document = document
        self._copies = 0
        self._below: dict[Location, list[Location]] = {}
        for location in document.lines:
            for depth in range(1, len(location) + 1):
                self._below.setdefault(location[:depth], []).append(location)

    def run(self, models: dict[str, Any]) -> None:
        matched: set[str] = set()
        defaults = self._document.data.get("defaults")
        of_all = {key: defaults[key] for key in OF_DEFAULTS if key in defaults} if isinstance(defaults, dict) else {}
        targets = mapping_or_empty(self._document.data.get("targets"))
        of_targets = {
            name: {key: each[key] for key in LIMITS if key in each}
            for name, stated in targets.items()
            if (each := mapping_or_empty(stated))
        }
        for name, entry in models.items():
            patterns = [each for each in self._document.patterns if fnmatch.fnmatchcase(name, each)]
            matched.update(patterns)
            layers = [_Layer(("models", each), self._document.patterns[each]) for each in reversed(patterns)]
            if isinstance(entry, dict):
                of_file = _Layer((), {"targets": of_targets})
                self._fill(("models", name), entry, [*layers, _Layer(("defaults",), of_all), of_file])
        for pattern, entry in self._document.patterns.items():
            self._check(pattern, entry, models, is_matched=pattern in matched)

    def _check(self, pattern: str, entry: Any, models: Mapping[str, Any], *, is_matched: bool) -> None:
        at: Location = ("models", pattern)
        if not is_matched:
            message = f"the pattern {shown(pattern)} matches the name of no model{did_you_mean(pattern, models)}"
            what = "a name with `*`, `?` or `[...]` is a pattern, whose keys hold for all models that match it"
            self._document.problems.append(self._document.problem(at, f"{message}: {what}"))
        for key in _OF_ONE_MODEL:
            if isinstance(entry, dict) and key in entry:
                message = f"`{key}:` belongs to one model, and {shown(pattern)} is a pattern; move it below the model"
                self._document.unreadable.add((*at, key))
                self._document.problems.append(self._document.problem((*at, key), message))

    def _fill(self, at: Location, entry: dict[str, Any], layers: Sequence[_Layer]) -> None:
        for layer in layers:
            if not isinstance(layer.data, Mapping):  # told by the schema
                continue
            closer = {key: set(mapping_or_empty(entry.get(key))) for key in ("budget", "regression")}
            for key, value in layer.data.items():
                here, there = (*at, key), (*layer.at, key)
                if key in _OF_ONE_MODEL:
                    continue
                if key == "recipes" and isinstance(value, dict):
                    self._recipes(here, there, entry, value, closer)
                elif key in _LIMITS and isinstance(value, dict):
                    stated = set(mapping_or_empty(entry.get(key)))
                    own = self._limits(here, there, entry, key, value, set(_PLACES))
                    self._points(here, there, own, value, stated)
                elif key == "targets" and isinstance(value, dict):
                    self._points(at, layer.at, entry, layer.data, set(), (key,))
                elif key == "workloads" and key not in entry and isinstance(value, dict):
                    kept = (_without(point, closer["budget"]) for point in value.values())
                    entry[key] = dict(zip(value, kept, strict=True))
                    self._copy(there, here)
                elif key not in entry:
                    entry[key] = value
                    self._copy(there, here)

    def _recipes(
        self, here: Location, there: Location, entry: dict[str, Any], stated: Any, closer: dict[str, set[str]]
    ) -> None:
        recipes = self._mapping_in(here, there, entry, "recipes")
        if recipes is None:
            return
        for recipe, limits in stated.items():
            at, of = (*here, recipe), (*there, recipe)
            stated_here = set(mapping_or_empty(recipes.get(recipe)))
            apart = {*closer["budget"], "regression", *_PLACES}
            own = self._limits(at, of, recipes, recipe, mapping_or_empty(limits), apart)
            self._points(at, of, own, mapping_or_empty(limits), closer["budget"] | stated_here)
            if own is None and recipe not in recipes:  # a mistake, which is told where it stands
                recipes[recipe] = limits
            regression = mapping_or_empty(mapping_or_empty(limits).get("regression"))
            if own is not None and regression:
                places: tuple[Location, Location] = (*at, "regression"), (*of, "regression")
                self._limits(*places, own, "regression", regression, closer["regression"])

    def _points(
        self,
        here: Location,
        there: Location,
        own: dict[str, Any] | None,
        stated: Mapping[str, Any],
        closer: set[str],
        places: Sequence[str] = _PLACES,
    ) -> None:
        """Limits at single workloads, of which `closer` has the names that go before them, and on the machines of
        targets, which hold whatever is stated elsewhere; limit by limit."""
        for key in places:
            points = stated.get(key)
            if own is None or not isinstance(points, dict) or not points:
                continue
            at, of = (*here, key), (*there, key)
            known = self._mapping_in(at, of, own, key)
            for name, limits in points.items() if known is not None else ():
                assert known is not None
                if isinstance(limits, dict):
                    before = closer if key == "workloads" else set[str]()
                    self._limits((*at, name), (*of, name), known, name, limits, before)
                elif name not in known:
                    known[name] = limits
                    self._copy((*of, name), (*at, name))

    def _limits(
        self, here: Location, there: Location, holder: dict[str, Any], key: str, stated: Any, closer: set[str]
    ) -> dict[str, Any] | None:
        """The mapping `key` of `holder`, with those limits that nothing closer states; None where it is none."""
        own = self._mapping_in(here, there, holder, key)
        if own is None:
            return None
        for limit in [each for each in stated if each not in own and each not in closer]:
            own[limit] = stated[limit]
            self._copy((*there, limit), (*here, limit))
        return own

    def _mapping_in(self, here: Location, there: Location, holder: dict[str, Any], key: str) -> dict[str, Any] | None:
        if key not in holder:
            self._copy_one(there, here)
        if holder.get(key) is None:
            holder[key] = {}
        found = holder[key]
        return found if isinstance(found, dict) else None

    def _copy(self, there: Location, here: Location) -> None:
        """The lines and texts of all below `there`, for what now stands below `here`, too."""
        for location in self._below.get(there, ()):
            self._copy_one(location, (*here, *location[len(there) :]))

    def _copy_one(self, there: Location, here: Location) -> None:
        self._copies += 1
        if self._copies > _MOST_COPIES:
            message = f"`defaults:` and patterns make more than {_MOST_COPIES} values; is it the right file?"
            raise BudgetsError([*self._document.problems, self._document.problem(there, message)])
        document = self._document
        document.origins[here] = there
        _repeat(document.lines, there, here)
        _repeat(document.texts, there, here)
        _repeat(document.spans, there, here)
        if there in document.unreadable:
            document.unreadable.add(here)


def _repeat(known: dict[Location, _Value], there: Location, here: Location) -> None:
    if there in known:
        known[here] = known[there]


def _without(point: Any, limits: set[str]) -> Any:
    return {key: value for key, value in point.items() if key not in limits} if isinstance(point, dict) else point


def mapping_or_empty(value: object) -> dict[str, Any]:
    """The value where it is a mapping, else an empty one: another check reports the wrong type."""
    return value if isinstance(value, dict) else {}
