"""Rows by name, 'model/recipe @ workload', as people write them: with the recipe in any spelling."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_modelopt.optimizing.expression import canonical_text
from pytest_modelopt.results.workload import at_workload, without_workload

if TYPE_CHECKING:
    from pytest_modelopt.config.loader import CaseEntry


def canonical_row(model: str, row: str) -> str | None:
    """The name with the recipe in canonical spelling; None where there is no such recipe."""
    recipe, workload = without_workload(row)
    text = canonical_text(recipe)
    return None if text is None else f"{model.strip()}/{at_workload(text, workload)}"


def rows_named(model: str, row: str, cases: tuple[CaseEntry, ...]) -> list[str]:
    """The rows of the model that are meant, without its name: where no workload is named, those at all of them."""
    recipe, workload = without_workload(row)
    named = {recipe, canonical_text(recipe)}
    return [
        case.row
        for case in cases
        if case.model.name == model.strip() and case.recipe in named and workload in ("", case.workload.name)
    ]
