"""JUnit XML of a record: a suite for each model, a case for each of its cases, red where the record is.

As Jenkins, GitLab and others read it (https://github.com/jenkinsci/xunit-plugin, junit-10.xsd).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from pytest_modelopt.reporting.failure_text import explain
from pytest_modelopt.reporting.item import Item
from pytest_modelopt.reporting.junit import properties
from pytest_modelopt.reporting.names import case_name, on_machine
from pytest_modelopt.reporting.notes import run_notes
from pytest_modelopt.reporting.plain_text import plain_line, plain_lines
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.outcome import case_outcome
from pytest_modelopt.results.record import Record
from pytest_modelopt.results.run_outcome import run_outcome

_RUN = "the run"
_COUNTED = {"failures": "failure", "errors": "error", "skipped": "skipped"}


def render(record: Record) -> str:
    """The document, in ASCII: other characters are references."""
    suites = Element("testsuites", name="pytest-modelopt")
    models: dict[str, list[Case]] = {}
    for case in record.cases:
        models.setdefault(plain_line(case.model), []).append(case)
    for model, cases in models.items():
        _suite(suites, model, record, [_test(record, case) for case in cases])
    of_run = list(_of_run(record))
    if of_run:
        _suite(suites, _RUN, record, of_run)
    indent(suites)
    text: str = tostring(suites, encoding="us-ascii").decode()
    return f"{text}\n"


def _suite(suites: Element, name: str, record: Record, tests: list[Element]) -> None:
    started = plain_line(record.started).removesuffix("Z")
    suite = SubElement(suites, "testsuite", name=name, tests=str(len(tests)), timestamp=started)
    for what, tag in _COUNTED.items():
        suite.set(what, str(sum(test.find(tag) is not None for test in tests)))
    suite.extend(tests)


def _test(record: Record, case: Case) -> Element:
    test = Element("testcase", classname=plain_line(case.model), name=f"{case_name(case)}{on_machine(record, case)}")
    seconds = [*case.variant.seconds.values()] if case.variant is not None else []
    test.set("time", f"{sum(seconds) + (case.timing.seconds if case.timing else 0.0):.3f}")
    listed = SubElement(test, "properties")
    for name, figure in properties(case):
        SubElement(listed, "property", name=name, value=str(figure))
    outcome = case_outcome(case, record.strict)
    if outcome in ("fail", "error"):
        text = explain(case, strict=record.strict)
        red = SubElement(test, "failure" if outcome == "fail" else "error", message=text.partition("\n")[0])
        red.text = "\n".join(plain_lines(text))
    elif outcome in ("xfailed", "new"):
        SubElement(test, "skipped", message="expected to fail" if outcome == "xfailed" else "new since the base")
    return test


def _of_run(record: Record) -> Iterator[Element]:
    """Tests that left no case, and one more where the run is red for another reason than its cases."""
    run = run_outcome(record)
    for name in (*run.skipped, *run.deselected):
        SubElement(test := _named(name), "skipped", message="it did not run")
        yield test
    causes = [cause for cause in run.causes if cause != "red case"]
    if causes:
        test = _named(", ".join(causes))
        told = [item.text for item in _red(run_notes(record))] or [run.headline]
        SubElement(test, "error", message=told[0]).text = "\n".join(told)
        yield test


def _named(name: str) -> Element:
    return Element("testcase", classname=_RUN, name=plain_line(name))


def _red(items: Iterable[Item]) -> Iterator[Item]:
    yield from (item for item in items if item.severity == "error")
