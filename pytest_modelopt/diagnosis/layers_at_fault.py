"""The answers are wrong through some layers: those without which the recipe keeps its limits, as they were found."""

from __future__ import annotations

from pytest_modelopt.diagnosis.evidence import Evidence
from pytest_modelopt.optimizing.expression import RecipeError, parse
from pytest_modelopt.results.verdicts import Finding, Row


def layers_at_fault(evidence: Evidence) -> Finding | None:
    found = evidence.variant.layers_at_fault
    if found is None or not found.layers:
        return None
    try:
        recipe = str(parse(evidence.case.recipe).keeping(list(found.layers)))
    except RecipeError:  # of a record that was made with recipes of a project
        recipe = ""
    layers: list[Row] = [{"name": name, "kind": kind} for name, kind in found.layers.items()]
    return Finding(
        "layers-at-fault",
        {
            "layers": layers,
            "recipe": recipe,
            "kept_bytes": found.kept_bytes,
            "changed_bytes": found.changed_bytes,
            "examples": found.examples,
            "original_score": found.original_score,
            "broken_score": found.broken_score,
            "kept_score": found.kept_score,
            "broken_flips": found.broken_flips,
            "kept_flips": found.kept_flips,
            "least": found.is_least,
        },
        ("score", "predictions"),
    )
