"""All rules together: silent on what was not observed, whatever a record holds, and each with a sentence of its own."""

from __future__ import annotations

import ast
import inspect
from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, given, settings

from pytest_modelopt.diagnosis import empty_comparison, small_coverage, unfair_timing, wrong_answers
from pytest_modelopt.diagnosis.examine import RULES, examine
from pytest_modelopt.results.case import Case, CaseError
from pytest_modelopt.results.observations import Observations
from pytest_modelopt.results.record import Environment
from tests.diagnosis.cases_by_hand import ENVIRONMENT, sound, variant_with
from tests.reporting.records_by_hand import case, realistic
from tests.results.test_record_json import _any


def test_nothing_is_found_of_what_was_not_observed() -> None:
    bare = replace(sound(), coverage=None)
    assert bare.reference is not None
    assert bare.variant is not None
    for seen in (None, Observations()):
        blind = replace(
            bare,
            reference=replace(bare.reference, observations=seen),
            variant=replace(bare.variant, observations=seen),
        )
        assert examine(blind, None) == ()
    assert examine(case(reference=None), None) == ()
    assert all(examine(each, ENVIRONMENT) == () or each.coverage for each in realistic().cases)


def test_of_a_case_in_error_its_message_says_it_all() -> None:
    assert examine(replace(variant_with(fake_quantizers=3), error=CaseError("timing", "killed")), ENVIRONMENT) == ()


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(_any(Case), _any(Environment))
def test_no_record_breaks_a_rule(of: Case, environment: Environment) -> None:
    """A record may come from a run that nobody trusts."""
    examine(replace(of, error=None), environment)


def test_every_rule_of_these_files_is_asked() -> None:
    for module in (empty_comparison, small_coverage, unfair_timing, wrong_answers):
        functions = [each for _, each in inspect.getmembers(module, inspect.isfunction)]
        rules = [each for each in functions if each.__module__ == module.__name__ and _is_rule(each)]
        assert set(rules) <= set(RULES)
    assert len({rule.__name__ for rule in RULES}) == len(RULES)


def _is_rule(function: object) -> bool:
    annotations = getattr(function, "__annotations__", {})
    return annotations.get("return") == "Finding | None"


def test_every_rule_has_a_test_that_plants_its_fault() -> None:
    planted = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    for module in (empty_comparison, small_coverage, unfair_timing, wrong_answers):
        tree = ast.parse(inspect.getsource(module))
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        names = [
            node.args[0].value
            for node in calls
            if isinstance(node.func, ast.Name) and node.func.id == "Finding" and isinstance(node.args[0], ast.Constant)
        ]
        assert names
        for name in names:
            assert f'"{name}"' in planted, name
