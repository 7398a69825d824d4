"""What the doctor found, as sentences: each says what happened, why, and what to do."""

from __future__ import annotations

from pytest_modelopt.reporting.messages import answer_findings, comparison_findings, coverage_findings
from pytest_modelopt.reporting.messages.sentence_parts import Message
from pytest_modelopt.reporting.plain_text import plain_line
from pytest_modelopt.results.case import MeasuredCase
from pytest_modelopt.results.verdicts import Finding

MESSAGES: dict[str, Message] = {
    **comparison_findings.MESSAGES,
    **coverage_findings.MESSAGES,
    **answer_findings.MESSAGES,
}
"""By the name of the rule."""


def format_finding(case: MeasuredCase, finding: Finding) -> str:
    """The sentence on one line, safe to print: names in it may be a stranger's. An unknown rule is told by its name."""
    message = MESSAGES.get(finding.rule)
    return plain_line(finding.rule if message is None else message(case, finding.parameters))
