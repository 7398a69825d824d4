"""Every rule of the doctor has a sentence, which is safe to print whatever the names in it are."""

from __future__ import annotations

import ast
import inspect

from pytest_modelopt.diagnosis.examine import RULES, RULES_AGAINST, Rule, examine
from pytest_modelopt.reporting.messages import answer_findings, comparison_findings, coverage_findings
from pytest_modelopt.reporting.messages.findings import MESSAGES, format_finding
from pytest_modelopt.results.verdicts import Finding
from tests.diagnosis.cases_by_hand import sound, variant_with

HOSTILE = "body\n::error::x\x1b[31m\u202e"


def _name(rule: Rule) -> str:
    """What the rule calls its finding."""
    (name,) = [
        node.args[0].value
        for node in ast.walk(ast.parse(inspect.getsource(rule)))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Finding"
        if isinstance(node.args[0], ast.Constant)
    ]
    return str(name)


def test_every_rule_has_a_sentence_and_every_sentence_a_rule() -> None:
    assert {_name(rule) for rule in (*RULES, *RULES_AGAINST)} == MESSAGES.keys()
    families = (answer_findings, comparison_findings, coverage_findings)
    assert sum(len(family.MESSAGES) for family in families) == len(MESSAGES), "in one file only"


def test_a_rule_of_another_version_is_told_by_its_name() -> None:
    assert format_finding(sound(), Finding("read-twice", {"files": ["a"]}, ("memory",))) == "read-twice"
    assert format_finding(sound(), Finding(HOSTILE, {}, ("memory",))) == "body ::error::x"


def test_names_of_a_stranger_stay_text_on_one_line() -> None:
    of = variant_with(untied=(HOSTILE,), untied_bytes=512)
    (finding,) = examine(of, None)
    assert finding.parameters["weights"] == [HOSTILE], "a finding holds what was seen"
    assert format_finding(of, finding).startswith("body ::error::x shared one storage in the original and no longer do")
