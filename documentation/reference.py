"""Pages of reference, made from what the program itself uses: limits, recipes, options, commands, schemas."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pytest_modelopt
from pytest_modelopt import testing
from pytest_modelopt.cli.main import parser
from pytest_modelopt.config.limit_schema import WORDS_OF_UNITS
from pytest_modelopt.config.schema import SCHEMA_FILE
from pytest_modelopt.limits.catalogue import CANDIDATE_LIMITS, LIMITS, ORIGINAL_LIMITS
from pytest_modelopt.optimizing.listing import described
from pytest_modelopt.optimizing.registry import BUILT_IN as RECIPES
from pytest_modelopt.plugin.options import SETTINGS, SWITCH
from pytest_modelopt.results.metric import BUILT_IN as METRICS
from pytest_modelopt.results.metric import TOP_K_MEANING
from pytest_modelopt.results.record_schema import record_schema

Schema = Mapping[str, Any]


def limits() -> Iterator[str]:
    """Each limit with what it bounds, how it is written, and where it may stand."""
    yield "Where a limit may stand, and what decides it. [What the figures are](../limits.md)."
    for kind in LIMITS.values():
        yield f"## `{kind.name}`"
        yield kind.meaning
        forms = WORDS_OF_UNITS[kind.unit]
        written = [f"`{example}`" for form in forms for example in form.get("examples", ())]
        written += [form["description"].rstrip(".").lower() for form in forms if "description" in form]
        places = (
            ["`regression:`"] if kind.against == "base" else ["`budget:`", "a recipe", "a workload", "a test's marker"]
        )
        places += ["a candidate"] * (kind.name in CANDIDATE_LIMITS) + ["`original:`"] * (kind.name in ORIGINAL_LIMITS)
        decided = "statistics; it may stay inconclusive" if kind.is_timed else "a figure that repeats"
        yield _list({"Written as": ", ".join(written), "Stated in": ", ".join(places), "Decided by": decided})


def recipes() -> Iterator[str]:
    """Each built-in recipe with its parameters and what it needs."""
    yield "`pytest-modelopt recipes` prints this, and what runs on your machine. [Which does what](../recipes.md)."
    for recipe in RECIPES:
        first, *more = described(recipe)
        yield f"## `{recipe.recipe_name}`"
        yield first.removeprefix(f"{recipe.recipe_name}: ")
        yield "\n".join(f"* {_text(line.strip())}" for line in (*more, f"runs on {' and '.join(recipe.devices)}"))


def options() -> Iterator[str]:
    """The options of pytest and their ini keys."""
    yield "The command line goes before the ini file, which goes before budgets.yaml."
    rows = [("`--modelopt`", "", SWITCH)]
    for name, metavar, text in SETTINGS:
        option = f"--modelopt-{name.replace('_', '-')} {metavar}".strip()
        rows.append((f"`{option}`", f"`modelopt_{name}`", text))
    yield _table(("option", "ini key", "meaning"), rows)


def commands() -> Iterator[str]:
    """Each command with its arguments, as argparse knows them."""
    yield "Exit status: 0, 1 where the record is red, 2 for wrong input, 130 after Ctrl-C or SIGTERM."
    (choice,) = (action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    helps = {action.dest: action.help for action in choice._choices_actions}
    for name, command in choice.choices.items():
        yield f"## `{name}`"
        yield _sentence(command.description or helps[name] or "")
        yield f"```text\n{_usage(command)}\n```"
        rows = [(f"`{_shown(action)}`", _help(action)) for action in command._actions if action.dest != "help"]
        yield _table(("argument", "meaning"), rows) if rows else "It has no arguments."


def metrics() -> Iterator[str]:
    """What `metric:` may name."""
    yield "What `metric:` names, beside any class of torchmetrics and functions of the project. [How](../accuracy.md)."
    rows = [(f"`{name}`", text) for name, text in {**METRICS, "top-K": TOP_K_MEANING}.items()]
    yield _table(("metric", "meaning"), rows)


def budgets_file() -> Iterator[str]:
    """The keys of budgets.yaml, as the JSON Schema for editors has them."""
    yield "`pytest-modelopt schema` prints the JSON Schema, for editors. [How keys work together](../budgets-file.md)."
    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    yield from _definitions({"The file": schema, **schema["$defs"]}, without=set(LIMITS))


def record() -> Iterator[str]:
    """The fields of record.json."""
    yield "`pytest-modelopt schema --record` prints the JSON Schema, for programs."
    schema = record_schema()
    yield from _definitions({"Record": schema, **schema["$defs"]}, without=set())


def api() -> Iterator[str]:
    """The public names of Python, from their docstrings."""
    for name, module in pytest_modelopt._PUBLIC.items():
        yield f"::: {module}.{name}"
    for name in testing.__all__:
        yield f"::: {testing.__name__}.{name}"
    yield "::: pytest_modelopt.plugin.hookspecs.pytest_modelopt_register_recipes"


PAGES: dict[str, tuple[str, Callable[[], Iterable[str]]]] = {
    "limits": ("All limits", limits),
    "recipes": ("All recipes", recipes),
    "options": ("Options of pytest", options),
    "commands": ("Commands", commands),
    "metrics": ("Metrics", metrics),
    "budgets-file": ("Keys of budgets.yaml", budgets_file),
    "record": ("Fields of record.json", record),
    "api": ("Python", api),
}
"""By file name in reference/: title, and what makes the paragraphs."""


def page(name: str) -> str:
    """The Markdown of a page."""
    title, paragraphs = PAGES[name]
    return "\n\n".join([f"# {title}", *paragraphs()]) + "\n"


# --- pieces of Markdown ----------------------------------------------------------------------------------------------


def _definitions(definitions: Mapping[str, Schema], without: set[str]) -> Iterator[str]:
    """A heading and a table of keys for each; keys `without` are limits, which have a page of their own."""
    for name, schema in definitions.items():
        keys = {key: each for key, each in schema["properties"].items() if key not in without}
        yield f"## {name}"
        if schema.get("description"):
            yield _text(schema["description"])
        if keys:
            rows = [(f"`{key}`", _type(each), _told(each)) for key, each in keys.items()]
            yield _table(("key", "type", "meaning"), rows)
        stated = [key for key in schema["properties"] if key not in keys]
        if stated:
            yield f"Limits: {', '.join(f'[{key}](limits.md#{key})' for key in stated)}."


def _told(schema: Schema) -> str:
    return _text(" ".join(schema.get("description", "").split()))


def _type(schema: Schema) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for word in ("anyOf", "oneOf"):
        if word in schema:
            return " or ".join(dict.fromkeys(filter(None, map(_type, schema[word]))))
    if "const" in schema or "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    kind = schema.get("type", "")
    if kind == "array" and isinstance(schema.get("items"), dict):
        return f"list of {_type(schema['items'])}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"mapping of {_type(schema['additionalProperties'])}"
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def _usage(command: argparse.ArgumentParser) -> str:
    """On one line, whatever the width of the terminal."""
    return " ".join(command.format_usage().removeprefix("usage: ").split())


def _shown(action: argparse.Action) -> str:
    metavar = action.metavar or action.dest.upper()
    value = "" if action.nargs == 0 else metavar if isinstance(metavar, str) else " ".join(metavar)
    if action.choices is not None and action.metavar is None:
        value = "|".join(map(str, action.choices))
    return f"{', '.join(action.option_strings)} {value}".strip()


def _help(action: argparse.Action) -> str:
    return _text(" ".join((action.help or "").replace("%(default)s", str(action.default)).replace("%%", "%").split()))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."


def _list(entries: Mapping[str, str]) -> str:
    return "\n".join(f"* {name}: {text}" for name, text in entries.items() if text)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _text(text: str) -> str:
    """Prose in which no character means something to Markdown, but for code between backticks."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([\\*_<>\[\]#])", r"\\\1", part) for part in parts)
