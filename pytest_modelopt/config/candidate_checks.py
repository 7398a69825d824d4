"""Checks of candidates and of models without data that no type makes: names, places, limits that need examples."""

from __future__ import annotations

import contextlib
import posixpath
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from pytest_modelopt.config.candidate_schema import SUFFIXES, origin_mistakes
from pytest_modelopt.config.document import Document
from pytest_modelopt.config.problems import Problem
from pytest_modelopt.config.schema import CASES, Location, ModelSpec
from pytest_modelopt.config.sharing import mapping_or_empty
from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.limits.spelling import plain, shown
from pytest_modelopt.optimizing.expression import RecipeError, parse, unfit_for_file
from pytest_modelopt.results.case import ORIGINAL


def candidate_problems(document: Document) -> Iterator[Problem]:
    """Models without a case, names that mean something else, and files outside of the project."""
    for model, entry in mapping_or_empty(document.data.get("models")).items():
        if isinstance(entry, dict) and not {*CASES} & entry.keys() and entry.keys() <= ModelSpec.model_fields.keys():
            yield document.problem(
                ("models", model),
                f"{plain(model)} has no `recipes`; add `recipes:` with at least one recipe below it, for example "
                "`int8-dynamic:`, or `candidates:`, or `original:`",
            )
        yield from _origin_problems(document, model, entry)
        for name, candidate in mapping_or_empty(mapping_or_empty(entry).get("candidates")).items():
            here: Location = ("models", model, "candidates", name)
            why = wrong_name(name)
            if why:
                yield document.problem(here, f"the candidate {shown(name)} of {plain(model)} {why}; rename it")
            factory = mapping_or_empty(candidate).get("factory")
            if factory is not None and factory == mapping_or_empty(entry).get("factory"):
                message = (
                    f"the candidate {shown(name)} has the factory of {plain(model)} itself: nothing would be compared"
                )
                yield document.problem((*here, "factory"), f"{message}; name the one that makes the candidate")
            yield from _outside(document, here, f"{plain(model)}/{plain(name)}", candidate)


def _origin_problems(document: Document, model: str, entry: object) -> Iterator[Problem]:
    """Of where a model comes from, and recipes that cannot start from its file."""
    if not isinstance(entry, dict):
        return
    for mistake in origin_mistakes(entry):
        yield document.problem(("models", model), f"{plain(model)}: {mistake}")
    yield from _outside(document, ("models", model), plain(model), entry)
    for key in ("call", "optimize"):
        if key in entry and "file" in entry:
            message = f"{plain(model)}: `{key}:` needs a model of a `factory:`; a file is called as its program says"
            yield document.problem(("models", model, key), message)
    suffix = PurePosixPath(str(entry.get("file", ""))).suffix
    if suffix in SUFFIXES:
        for recipe in mapping_or_empty(entry.get("recipes")):
            with contextlib.suppress(RecipeError):  # told elsewhere
                why = unfit_for_file(parse(recipe).steps, suffix)
                if why:
                    yield document.problem(("models", model, "recipes", recipe), f"recipe of {plain(model)}: {why}")


def _outside(document: Document, at: Location, name: str, stated: object) -> Iterator[Problem]:
    file = mapping_or_empty(stated).get("file")
    from_root = posixpath.normpath(posixpath.join(posixpath.dirname(document.from_root), str(file)))
    if from_root.startswith(".."):
        yield document.problem(
            (*at, "file"), f"file of {name}: {shown(file)} lies outside of the project; put the file into it"
        )


def data_problems(document: Document) -> Iterator[Problem]:
    """Limits about answers, and calls, that a model without `data:` leaves without examples."""
    for name, entry in mapping_or_empty(document.data.get("models")).items():
        if not isinstance(entry, dict) or "data" in entry:
            continue
        at: Location = ("models", name)
        at_workloads = [mapping_or_empty(each) for each in mapping_or_empty(entry.get("workloads")).values()]
        if "example_inputs" not in entry and not (at_workloads and all("example_inputs" in x for x in at_workloads)):
            yield document.problem(
                at,
                f"{plain(name)} has no `data`; add `data: package.module:function`, the function that returns the "
                "examples, or `example_inputs:` where no limit is about answers",
            )
            continue
        parts: dict[Location, Any] = {(*at, key): entry.get(key) for key in ("original", "budget", "regression")}
        for key in ("recipes", "candidates", "workloads"):
            parts |= {(*at, key, case): stated for case, stated in mapping_or_empty(entry.get(key)).items()}
        for where, stated in list(parts.items()):
            parts |= {
                (*where, "workloads", name): own
                for name, own in mapping_or_empty(mapping_or_empty(stated).get("workloads")).items()
            }
        for where, stated in parts.items():
            for limit in mapping_or_empty(stated):
                if limit in LIMITS and LIMITS[limit].is_about_answers:
                    message = f"{limit} of {plain(name)} is about answers, and the model has no `data:`; add it"
                    yield document.problem((*where, limit), message)


def wrong_name(name: str) -> str:
    """Why a name cannot name a candidate, as the end of a sentence; '' where it can."""
    from pytest_modelopt.optimizing.expression import canonical_text

    if not name.strip() or name != name.strip() or "::" in name or "/" in name or not name.isprintable():
        return "is empty, or has a blank at its end, `::`, `/` or an invisible character in it"
    if name == ORIGINAL:
        return f"is called as the model itself, whose limits stand below `{ORIGINAL}:`"
    return "" if canonical_text(name) is None else "is called as a recipe"
