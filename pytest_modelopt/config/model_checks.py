"""Names of models and recipes of a budgets file, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pytest_modelopt.config.document import Document
from pytest_modelopt.config.problems import Problem
from pytest_modelopt.config.schema import Location
from pytest_modelopt.limits.spelling import plain, printable, shown

if TYPE_CHECKING:
    from pytest_modelopt.optimizing.expression import Expression


def _models(document: Document) -> dict[str, Any]:
    models = document.data.get("models")
    return models if isinstance(models, dict) else {}


def name_problems(document: Document) -> Iterator[Problem]:
    for name in _models(document):
        if not name.strip():
            yield document.problem(("models", name), "a model has an empty name; give it one, for example `my-model`")
        elif name != name.strip():
            yield document.problem(
                ("models", name), f"the model name {shown(name)} begins or ends with a blank; remove it"
            )
        elif "::" in name or "/" in name or not name.isprintable():
            found = "`::`" if "::" in name else "`/`" if "/" in name else "an invisible character"
            message = (
                f"the model name {shown(name)} contains {found}, which would make the test's name unclear; use `-`"
            )
            yield document.problem(("models", name), message)


def read_recipes(document: Document) -> tuple[dict[Location, Expression], list[Problem]]:
    """The recipe at each location, and what is wrong with recipes."""
    from pytest_modelopt.optimizing.expression import RecipeError, parse

    expressions: dict[Location, Expression] = {}
    problems: list[Problem] = []
    for model, entry in _models(document).items():
        recipes = entry.get("recipes") if isinstance(entry, dict) else None
        first: dict[str, str] = {}
        for written in recipes if isinstance(recipes, dict) else ():
            location = ("models", model, "recipes", written)
            try:
                expression = expressions[location] = parse(written)
            except RecipeError as error:
                at = document.stated_at(location)
                whose = "`defaults:`" if at[0] == "defaults" else plain(str(at[1]))
                problems.append(document.problem(at, f"recipe of {whose}: {printable(str(error))}"))
                continue
            other = first.setdefault(expression.text, written)
            if other != written:
                line = document.line((*location[:-1], other))
                message = f"the recipe {shown(written)} is the same as {shown(other)} in line {line}; keep one of them"
                problems.append(document.problem(location, message))
    return expressions, problems
