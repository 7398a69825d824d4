"""Recipe expressions, text in and canonical text out: `prune-structured(ratio=0.5) + int8-dynamic`.

    expression = recipe { "+" recipe }
    recipe     = name [ "(" [ key "=" value { "," key "=" value } ] ")" ]
    value      = number | true | false | bare word | 'quoted' | "quoted"

Spaces are free. All recipes of an expression run in the order in which they are written.
"""

from __future__ import annotations

import difflib
import math
import pickle
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from pytest_modelopt.optimizing.recipe import BARE_WORD, FORMS, Form, LayerRecipe, Recipe, RecipeError, keep_patterns
from pytest_modelopt.optimizing.registry import RECIPES, added

__all__ = ["Expression", "RecipeError", "canonical_text", "parse", "step_texts"]

Value = int | float | bool | str

NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\Z")
_MOST_HINTS = 6
"""Recipes that are named because they have a parameter which another one lacks."""
_LONGEST_NUMBER = 300
"""Characters of a whole number: of thousands, Python makes none."""
WHOLE_NUMBER = re.compile(r"[+-]?\d+\Z")
PERCENTAGE = re.compile(r"(\d+(?:\.\d*)?)\s*%\Z")


@dataclass(frozen=True)
class Expression:
    """Recipes in the order in which they run. Two with the same canonical text are equal."""

    text: str
    """The canonical spelling."""
    written: str = field(compare=False)
    """As the user wrote it."""
    _steps: tuple[Recipe, ...] | bytes = field(compare=False, repr=False)

    @classmethod
    def of(cls, steps: Sequence[Recipe], written: str = "") -> Expression:
        """These recipes, whether or not they are registered."""
        text = "+".join(step.canonical() for step in steps)
        return cls(text, written or text, tuple(steps))

    @property
    def steps(self) -> tuple[Recipe, ...]:
        """The recipes. In a worker the first call makes them, and registers the project's own."""
        if isinstance(self._steps, bytes):
            # Not untrusted: the pytest process made these bytes of its own objects.
            steps, others = pickle.loads(self._steps)  # noqa: S301
            RECIPES.update({recipe.recipe_name: recipe for recipe in others})
            object.__setattr__(self, "_steps", steps)
        assert isinstance(self._steps, tuple)
        return self._steps

    @property
    def imports_compiler(self) -> bool:
        """Whether a step works with torch's compiler or exporter."""
        return any(step.imports_compiler for step in self.steps)

    @property
    def can_keep(self) -> bool:
        """Whether a step changes layers one by one, and can leave some."""
        return any(isinstance(step, LayerRecipe) for step in self.steps)

    def keeping(self, layers: Sequence[str]) -> Expression:
        """The same, of which each step that can leaves these layers, too, beside those that it leaves anyway.

        Raises:
            RecipeError: the name of a layer holds a comma or a quote, so no text can state it.
        """
        for name in layers:
            if any(character in name for character in ",'\""):
                raise RecipeError(f"keep cannot name the layer {name!r}: its name holds a comma or a quote")
        names = [_literal(name) for name in layers]
        return Expression.of(
            [
                step.model_copy(update={"keep": ",".join(dict.fromkeys((*keep_patterns(step.keep), *names)))})
                if isinstance(step, LayerRecipe)
                else step
                for step in self.steps
            ]
        )

    def trained_by(self, function: str) -> Expression | None:
        """The same, of which the last step that can has `package.module:function` train the model; None where none can,
        or one does already."""
        can = [number for number, step in enumerate(self.steps) if "finetune" in type(step).model_fields]
        if not can or self.training:
            return None
        steps = list(self.steps)
        steps[can[-1]] = steps[can[-1]].model_copy(update={"finetune": function})
        return Expression.of(steps)

    @property
    def training(self) -> str:
        """The function of the project that trains the model, as `package.module:function`; '' where none does."""
        return next(filter(None, (getattr(step, "finetune", "") for step in self.steps)), "")

    def __str__(self) -> str:
        """As a budgets file states it, with blanks around `+`."""
        return " + ".join(step.canonical() for step in self.steps)

    def __getstate__(self) -> dict[str, object]:
        """The recipes travel as bytes, since the classes of a project need the paths and the environment of its worker,
        which that has not yet when it is given its variant."""
        packed = self._steps if isinstance(self._steps, bytes) else _packed(self._steps)
        return {"text": self.text, "written": self.written, "_steps": packed}


def _literal(name: str) -> str:
    """The pattern that matches this name only."""
    return re.sub(r"([*?[])", r"[\1]", name)


def _packed(steps: tuple[Recipe, ...]) -> bytes:
    """With the recipes that are not built in, which messages name. Classes of a conftest.py travel as code: each folder
    may have one of its own, which no worker could import by name."""
    import cloudpickle

    others = added()
    names = {recipe.__module__ for recipe in (*others, *map(type, steps))}
    modules = [sys.modules[name] for name in names if name in sys.modules]
    by_value = [module for module in modules if str(getattr(module, "__file__", "")).endswith("conftest.py")]
    for module in by_value:
        cloudpickle.register_pickle_by_value(module)
    try:
        return bytes(cloudpickle.dumps((steps, others)))
    finally:
        for module in by_value:
            cloudpickle.unregister_pickle_by_value(module)


def parse(text: str) -> Expression:
    """Read an expression.

    Raises:
        RecipeError: with what is wrong, where it can be told the nearest correct spelling, and the way out.
    """
    if not isinstance(text, str):
        raise RecipeError(f"a recipe is text such as 'int8-dynamic', not {text!r}")
    if not text.strip():
        raise RecipeError(f"the recipe is empty; write one of {_listed(RECIPES)}")
    parts = _split(text, "+", text)
    if not all(part.strip() for part in parts):
        raise RecipeError(
            f"a '+' in {text!r} has nothing before or after it; write for example 'low-rank + int8-dynamic'"
        )
    recipes = tuple(_recipe(part.strip(), text) for part in parts)
    _refuse_impossible_orders(recipes)
    return Expression.of(recipes, text)


def canonical_text(text: str) -> str | None:
    """The one spelling of an expression, the same for all texts of one meaning; None for text that is no expression."""
    try:
        return parse(text).text
    except RecipeError:
        return None


def step_texts(text: str) -> tuple[str, ...]:
    """An expression split at each '+' outside of parentheses and quotes; its recipes need not be known."""
    try:
        return tuple(part.strip() for part in _split(text, "+", text))
    except RecipeError:
        return (text.strip(),)


def unfit_for_file(recipes: Sequence[Recipe], suffix: str) -> str:
    """Why these recipes cannot start from a program in a file with this suffix; '' where they can."""
    wrong = next((recipe.recipe_name for recipe in recipes if suffix not in recipe.takes_files), "")
    if not wrong:
        return ""
    fitting = [name for name, recipe in RECIPES.items() if suffix in recipe.takes_files]
    if not fitting:
        return (
            f"{wrong} takes a model of torch, and no recipe takes {suffix} files; name a `factory:`, or state what was "
            "made of the file below `candidates:`"
        )
    return f"{wrong} cannot start from {suffix} files; those that do are {_listed(fitting)}"


def _recipe(part: str, text: str) -> Recipe:
    name, bracket, rest = part.partition("(")
    name = name.strip()
    found = recipe_class(name)
    if not bracket:
        return found()
    arguments, trailing = _until_closing(rest, text)
    if trailing.strip():
        raise RecipeError(f"{trailing.strip()!r} after ')' in {text!r} is not understood; join two recipes with '+'")
    return _construct(found, dict(_arguments(arguments, found, text)), text)


def recipe_class(name: str) -> type[Recipe]:
    """The recipe of that name.

    Raises:
        RecipeError: with the nearest name.
    """
    if name in RECIPES:
        return RECIPES[name]
    if not name:
        raise RecipeError(f"a recipe has no name; write one of {_listed(RECIPES)}")
    words = name.split()
    if len(words) > 1 and all(word in RECIPES for word in words):
        raise RecipeError(f"recipes are joined with '+': write {' + '.join(words)}")
    near = _nearest(name.lower().replace("_", "-"), RECIPES)
    raise RecipeError(f"unknown recipe {name!r}{near or f'; the recipes are {_listed(RECIPES)}'}")


def _arguments(arguments: str, recipe_class: type[Recipe], text: str) -> Iterator[tuple[str, Value]]:
    """The `key=value` pairs between the parentheses."""
    if not arguments.strip():
        return
    parameters = recipe_class.model_fields
    name = recipe_class.recipe_name
    seen = set()
    for argument in _split(arguments, ",", text):
        key, equals, value = argument.partition("=")
        key, value = key.strip(), value.strip()
        if not argument.strip():
            raise RecipeError(f"there is an empty part between the commas of {text!r}")
        if not equals:
            raise RecipeError(_positional_message(key, recipe_class))
        if key not in parameters:
            takes = f"{name} takes {_listed(parameters)}" if parameters else f"{name} takes no parameters"
            near = _nearest(key, parameters) or _taken_by(key)
            raise RecipeError(f"{name} has no parameter {key!r}{near}; {takes}")
        if key in seen:
            raise RecipeError(f"{name} is given {key!r} twice in {text!r}")
        if not value:
            raise RecipeError(f"{key!r} of {name} has no value in {text!r}")
        seen.add(key)
        yield key, _value(value, key, name)


def _taken_by(key: str) -> str:
    """Which recipes have the parameter that another one lacks; '' where none has, or too many to be a hint."""
    having = [name for name, recipe in RECIPES.items() if key in recipe.model_fields]
    return f", which {_listed(having)} take{'s' if len(having) == 1 else ''}" if 0 < len(having) <= _MOST_HINTS else ""


def _positional_message(value: str, recipe_class: type[Recipe]) -> str:
    name = recipe_class.recipe_name
    parameters = list(recipe_class.model_fields)
    if not parameters:
        return f"{name} takes no parameters: write {name}"
    if value in parameters:
        return f"{value!r} of {name} has no value: write {name}({value}={recipe_class.model_fields[value].default})"
    return f"the parameters of {name} are given by name: write {name}({parameters[0]}={value})"


def _value(value: str, key: str, name: str) -> Value:
    if value[0] in "'\"":
        if len(value) < 2 or value[-1] != value[0]:
            raise RecipeError(f"the quote in {key}={value} of {name} is never closed")
        return value[1:-1]
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    if WHOLE_NUMBER.match(value):
        if len(value) > _LONGEST_NUMBER:
            raise RecipeError(f"{key} of {name} is too large a number: it has {len(value)} digits")
        return int(value)
    if NUMBER.match(value):
        return float(value)
    percentage = PERCENTAGE.match(value)
    if percentage:
        raise RecipeError(f"{key} of {name} is a plain number: write {key}={float(percentage[1]) / 100:g}, not {value}")
    if not BARE_WORD.match(value):
        raise RecipeError(f"{key}={value} of {name} is neither a number nor a word; put quotes around other text")
    return value


def _construct(recipe_class: type[Recipe], arguments: dict[str, Value], text: str) -> Recipe:
    for key, value in arguments.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise RecipeError(f"{key} of {recipe_class.recipe_name} is too large a number in {text!r}")
    try:
        return recipe_class(**arguments)
    except ValidationError as error:
        problems = [_in_words(dict(problem), recipe_class) for problem in error.errors()]
        raise RecipeError("; ".join(problems)) from None


def _in_words(problem: dict[str, Any], recipe_class: type[Recipe]) -> str:
    """One of pydantic's findings as a sentence that knows nothing of pydantic."""
    said = problem.get("ctx", {}).get("error")  # by a validator of the recipe's own, about one parameter or several
    if isinstance(said, ValueError):
        about = f"{problem['loc'][0]} of " if problem["loc"] else ""
        return f"{about}{recipe_class.recipe_name}: {said}"
    key = str(problem["loc"][0])
    field = recipe_class.model_fields[key]
    what = allowed(field.annotation, field.metadata)
    return f"{key} of {recipe_class.recipe_name} must be {what}, not {problem['input']!r}"


def allowed(annotation: Any, constraints: Sequence[Any]) -> str:
    """What a parameter may be, in words: 'a number between 0 and 1, both excluded'."""
    choices = getattr(annotation, "__args__", ())
    if type(None) in choices:
        (annotation,) = (choice for choice in choices if choice is not type(None))
    if choices and all(isinstance(choice, str) for choice in choices):
        return " or ".join(repr(choice) for choice in choices)
    noun = {int: "a whole number", float: "a number", bool: "true or false"}.get(annotation, "text")
    bounds = {
        bound: getattr(constraint, bound)
        for constraint in constraints
        for bound in ("gt", "ge", "lt", "le")
        if getattr(constraint, bound, None) is not None
    }
    if "gt" in bounds and "lt" in bounds:
        return f"{noun} between {bounds['gt']} and {bounds['lt']}, both excluded"
    words = {"gt": "above", "ge": "of at least", "lt": "below", "le": "of at most"}
    return " and ".join([f"{noun} {words[bound]} {bounds[bound]}" for bound in bounds]) or noun


def _refuse_impossible_orders(recipes: Sequence[Recipe]) -> None:
    form: Form = "float"
    formed_by: Recipe | None = None
    seen: set[str] = set()
    for recipe in recipes:
        name = recipe.recipe_name
        if name in seen:
            raise RecipeError(f"{name} is written twice; each recipe can be in an expression once")
        seen.add(name)
        if form not in recipe.takes:
            if formed_by is None:
                raise RecipeError(f"{name} cannot come first: it takes weights that another recipe has changed")
            raise RecipeError(_order_message(recipe, formed_by, form))
        if recipe.gives is not None:
            form, formed_by = recipe.gives, recipe


def _order_message(recipe: Recipe, formed_by: Recipe, form: Form) -> str:
    name, first = recipe.recipe_name, formed_by.recipe_name
    text = f"{name} cannot follow {first}: {first} {FORMS[form]}, and {name} needs them in floating point"
    if form in ("compiled", "runtime"):
        text = f"{name} cannot follow {first}: {first} {FORMS[form]}"
    turned_form = recipe.gives or "float"
    if turned_form in formed_by.takes:
        return f"{text}; write {name} + {first}"
    return f"{text}; keep one of the two"


def _split(text: str, separator: str, whole: str) -> list[str]:
    """Split at the separator outside of parentheses and quotes."""
    parts, depth, quote, start = [], 0, "", 0
    for position, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
            if depth < 0:
                raise RecipeError(f"a ')' in {whole!r} has no '(' before it")
        elif character == separator and not depth:
            parts.append(text[start:position])
            start = position + 1
    if quote:
        raise RecipeError(f"a quote in {whole!r} is never closed")
    if depth:
        raise RecipeError(f"a '(' in {whole!r} is never closed")
    return [*parts, text[start:]]


def _until_closing(text: str, whole: str) -> tuple[str, str]:
    """What stands before and after the first ')' outside of quotes; a second '(' is refused."""
    quote = ""
    for position, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character == "(":
            raise RecipeError(f"{whole!r} has a '(' inside of parentheses; a value is a number, a word or quoted text")
        elif character == ")":
            return text[:position], text[position + 1 :]
    raise RecipeError(f"a '(' in {whole!r} is never closed")


def _nearest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
