"""All rules together: silent on what was not observed, whatever a record holds, and without a word of English."""

from __future__ import annotations

import ast
import inspect
from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, given, settings

from pytest_modelopt.diagnosis import (
    base_changes,
    empty_comparison,
    growth,
    small_coverage,
    unfair_timing,
    wrong_answers,
)
from pytest_modelopt.diagnosis.examine import RULES, RULES_AGAINST, examine
from pytest_modelopt.reporting.messages.findings import format_finding
from pytest_modelopt.results.case import Case, CaseError
from pytest_modelopt.results.json import case_from_data, case_to_data
from pytest_modelopt.results.observations import Observations
from pytest_modelopt.results.record import Environment
from tests.diagnosis.cases_by_hand import sound, variant_with
from tests.reporting.records_by_hand import ENVIRONMENT, case, realistic
from tests.results.any_record import any_value

FAMILIES = (base_changes, empty_comparison, growth, small_coverage, unfair_timing, wrong_answers)


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
@given(any_value(Case), any_value(Environment))
def test_no_record_breaks_a_rule(of: Case, environment: Environment) -> None:
    """A record may come from a run that nobody trusts. What is found can be told, and written as it is."""
    of = replace(of, error=None)
    findings = examine(of, environment)
    assert all(format_finding(of, finding) for finding in findings)
    judged = replace(of, findings=findings)
    assert case_from_data(case_to_data(judged)) == judged


def test_every_rule_of_these_files_is_asked() -> None:
    for module in FAMILIES:
        functions = [each for _, each in inspect.getmembers(module, inspect.isfunction)]
        rules = [each for each in functions if each.__module__ == module.__name__ and _is_rule(each)]
        assert set(rules) <= {*RULES, *RULES_AGAINST}
    assert len({rule.__name__ for rule in RULES}) == len(RULES)


def _is_rule(function: object) -> bool:
    annotations = getattr(function, "__annotations__", {})
    return annotations.get("return") == "Finding | None"


def test_every_rule_has_a_test_that_plants_its_fault() -> None:
    planted = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    for module in FAMILIES:
        tree = ast.parse(inspect.getsource(module))
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        names = [
            str(node.args[0].value)
            for node in calls
            if isinstance(node.func, ast.Name) and node.func.id == "Finding" and isinstance(node.args[0], ast.Constant)
        ]
        assert names
        for name in names:
            assert f'"{name}"' in planted, name


def test_no_sentence_stands_beside_a_rule() -> None:
    """`reporting/messages` words what was found: no text is put together here, and none has four words."""
    for path in Path(inspect.getfile(growth)).parent.glob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        assert not [node.lineno for node in nodes if isinstance(node, ast.JoinedStr)], path.name
        texts = [node.value for node in nodes if isinstance(node, ast.Constant) and id(node) not in docstrings]
        assert not [text for text in texts if isinstance(text, str) and text.count(" ") > 2], path.name
