"""What to do about a broken limit where nothing that was found says it: one step for each kind of figure."""

from __future__ import annotations

import shlex

from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.results.case import ORIGINAL, Case
from pytest_modelopt.results.verdicts import Figure, Verdict

_CHEAPER: dict[Figure, str] = {
    "memory": "a smaller peak",
    "process_memory": "a smaller peak",
    "cache": "a smaller cache",
    "size": "smaller files",
    "timing": "faster calls on this machine",
    "loading": "a faster start",
    "prefill": "a faster first token",
    "decode": "faster tokens",
}
ONLY_EXPLAINS = {
    *("memory-in-layer", "size-in-file", "memory-moved", "runtime-changed"),
    *("preparation", "int8-without-vnni", "fused-path", "churn", "over-pruned"),
}
"""Rules whose sentence says what happened and why, and not what to do."""
_ANSWERS = ("score", "predictions", "slices")


def after_verdict(case: Case, verdict: Verdict) -> str:
    """The next step after a limit that is not kept; '' where its sentence says what it takes."""
    limit = verdict.limit
    if verdict.outcome == "inconclusive":
        return ""
    if verdict.outcome == "not measured" or limit.name not in LIMITS:
        return "give it what it lacks, or take the limit away"
    kind = LIMITS[limit.name]
    if kind.against == "base":
        return (
            f"look for it in what changed since {case.base.name if case.base else 'the base'}; where it is meant, "
            "waive it or state another limit"
        )
    accept = "where this is good enough, state another limit"
    if case.recipe == ORIGINAL:
        return f"change the model itself; {accept}"
    if case.variant is not None and case.variant.provenance is not None:
        return f"make the candidate anew; {accept}"
    return f"{_other_recipe(case, kind.figure)}; {accept}"


def after_error(case: Case) -> str:
    """The next step after a case that could not be measured; '' outside of pytest, where its name selects nothing."""
    if "::" not in case.id:
        return ""
    test, _, _ = case.id.partition("#")
    has_output = case.error is not None and case.error.output.strip()
    where = " (see the worker's last output, too)" if has_output else ""
    return f'correct that{where}, then run this case alone: pytest --modelopt "{test}"'


def _other_recipe(case: Case, figure: Figure) -> str:
    # The command knows a model of budgets.yaml by its name.
    by_name = f"::{case.model}::" in case.id
    explore = f"pytest-modelopt explore {shlex.quote(case.model) if by_name else 'MODEL'}"
    if figure in _ANSWERS:
        return f"take a milder setting of the recipe, or see which layers cost the answers: {explore} --sensitivity"
    if figure == "coverage":
        return "take a recipe that changes the layers that were left alone"
    return f"look for a recipe with {_CHEAPER.get(figure, 'a better figure')}: {explore}"
