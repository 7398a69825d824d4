"""What `report --format` prints, as those read it for whom it is made: by their schema or their own library."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from junitparser import Error, Failure, JUnitXml, Properties, Skipped
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from pytest_modelopt.cli.main import main
from pytest_modelopt.cli.shared.judged_records import judged_again
from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.reporting import formats
from pytest_modelopt.reporting.samples import samples
from pytest_modelopt.results import json as record_json
from pytest_modelopt.results.answers import Agreement
from pytest_modelopt.results.case import CaseError, Expected
from pytest_modelopt.results.record import Record
from pytest_modelopt.results.run_outcome import record_is_red
from tests.reporting.against_by_hand import GREW, pull_request
from tests.reporting.filled_record import filled_record, with_strings
from tests.reporting.hostile_texts import EVERYTHING
from tests.reporting.records_by_hand import MIB, case, limit, measurement, realistic, record, timing

# https://bencher.dev/bmf.json, in short.
_NUMBER, _TEXT = {"type": "number"}, {"type": "string"}
_METRIC = {"type": "object", "properties": {"value": _NUMBER, "lower_value": _NUMBER, "upper_value": _NUMBER}}
_MEASURES = {"type": "object", "patternProperties": {".+": {**_METRIC, "required": ["value"]}}}
BENCHER = {"type": "object", "patternProperties": {".+": _MEASURES}}
# BenchmarkResult of github-action-benchmark: these keys are read, of these types, and values are compared as numbers.
_ENTRY = {
    "type": "object",
    "properties": {"value": _NUMBER, "name": _TEXT, "unit": _TEXT, "range": _TEXT, "extra": _TEXT},
    "required": ["name", "unit", "value"],
    "additionalProperties": False,
}
ACTION = {"type": "array", "items": _ENTRY}

MEASURED = judged_again(
    record(
        case(
            limits=(
                limit("max_memory", 3 * MIB, "3 MiB"),
                limit("min_speedup", 1.5, "1.5x"),
                limit("max_flips", 0.02, "2%"),
            ),
            reference=measurement(None, weights=5 * MIB, peak=3 * MIB, size=6 * MIB, score=0.75),
            variant=measurement("int8-dynamic", weights=2 * MIB, peak=2 * MIB, size=3 * MIB, score=0.5),
            timing=timing(200, 4_000_000, 2_000_000),
            agreement=Agreement(360, 90, 0, 90),
        )
    )
)
HOSTILE: Record = with_strings(filled_record(), lambda text: text if text in LIMITS else f"{text}{EVERYTHING}")
ALL = [MEASURED, realistic(), pull_request(GREW, case()), filled_record(), HOSTILE, record()]
NAME = "digits-vit/int8-dynamic"


def test_every_figure_has_one_name_and_every_limit_that_was_measured_a_figure() -> None:
    found = samples(MEASURED)
    assert len({(each.family.name, each.labels) for each in found}) == len(found)
    judged = {each.verdict.limit.name: each for each in found if each.verdict is not None}
    assert {name: (each.family.name, each.value) for name, each in judged.items()} == {
        "max_memory": ("memory_bytes", 4 * MIB),
        "min_speedup": ("speedup_ratio", pytest.approx(2.0)),
        "max_flips": ("flips_ratio", 0.25),
    }
    assert {each.family.name: each.value for each in found if not each.is_of_variant} == {
        "memory_bytes": 8 * MIB,
        "size_bytes": 6 * MIB,
        "score": 0.75,
    }


@pytest.mark.parametrize("told", ALL)
def test_bencher_takes_it(told: Record) -> None:
    data = json.loads(formats.render("bencher", told))
    jsonschema.validate(data, BENCHER)
    assert all(len(name) <= 1024 for name in data)
    assert all(len(measure) <= 64 for of in data.values() for measure in of)
    figures = [figure for of in data.values() for figure in of.values()]
    assert len(figures) == len(samples(told))
    assert all(figure.get("lower_value", figure["value"]) <= figure["value"] for figure in figures)


def test_bencher_is_given_figures_with_their_intervals() -> None:
    data = json.loads(formats.render("bencher", MEASURED))
    assert data["digits-vit/original"]["size-bytes"] == {"value": 6 * MIB}
    assert data[NAME]["memory-bytes"] == {"value": 4 * MIB}
    speedup = data[NAME]["speedup-ratio"]
    assert speedup["lower_value"] < speedup["value"] < speedup["upper_value"]
    assert speedup["value"] == pytest.approx(2.0)
    assert data[NAME]["drop"] == {"value": 0.25}


@pytest.mark.parametrize("told", ALL)
def test_github_action_benchmark_takes_it(told: Record) -> None:
    both = [json.loads(formats.render(f"github-action-benchmark{of}", told)) for of in ("", "-bigger")]
    for data in both:
        jsonschema.validate(data, ACTION)
    names = [entry["name"] for data in both for entry in data]
    assert len(names) == len(set(names)) == len(samples(told))


def test_github_action_benchmark_is_given_each_direction_by_itself() -> None:
    smaller, bigger = (json.loads(formats.render(f"github-action-benchmark{of}", MEASURED)) for of in ("", "-bigger"))
    assert {entry["name"].rpartition(": ")[2] for entry in bigger} == {"speedup_ratio", "score"}
    assert {entry["name"].rpartition(": ")[2] for entry in smaller} == {
        *("memory_bytes", "size_bytes", "latency_seconds", "drop", "flips", "flips_ratio"),
    }
    memory = {"name": f"{NAME}: memory_bytes", "unit": "bytes", "value": 4 * MIB, "extra": "4 MiB"}
    assert memory in smaller
    worse = replace(MEASURED, cases=(replace(MEASURED.cases[0], metric="perplexity", higher_is_better=False),))
    turned = json.loads(formats.render("github-action-benchmark", worse))
    assert f"{NAME}: score" in {entry["name"] for entry in turned}


@pytest.mark.parametrize("told", ALL)
def test_prometheus_reads_it(told: Record) -> None:
    families = list(text_string_to_metric_families(formats.render("openmetrics", told)))
    assert sum(len(family.samples) for family in families) == len(samples(told))
    assert {family.type for family in families} <= {"gauge"}
    for family in families:
        for sample in family.samples:
            assert sample.labels.keys() >= {"model", "recipe"}


def test_prometheus_is_given_the_figures() -> None:
    text = formats.render("openmetrics", MEASURED)
    of = {sample.name: sample for family in text_string_to_metric_families(text) for sample in family.samples}
    assert of["modelopt_flips_ratio"].value == 0.25
    assert of["modelopt_drop"].labels == {"model": "digits-vit", "recipe": "int8-dynamic"}


def _rows(told: Record) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(formats.render("csv", told)), strict=True))


@pytest.mark.parametrize("told", ALL)
def test_a_spreadsheet_reads_it_and_takes_no_text_for_a_formula(told: Record) -> None:
    rows = _rows(told)
    assert [float(row["value"]) for row in rows] == [each.value for each in samples(told)]
    texts = [row[name] for row in rows for name in ("started", "model", "recipe", "workload", "base", "case", "limit")]
    assert not [text for text in texts if text.startswith(("=", "+", "-", "@", "\t", "\r"))]


def test_a_row_has_its_limit_and_what_became_of_it() -> None:
    rows = {(row["recipe"], row["figure"]): row for row in _rows(MEASURED)}
    memory = rows["int8-dynamic", "memory_bytes"]
    assert (memory["value"], memory["unit"]) == (str(4 * MIB), "bytes")
    assert (memory["limit"], float(memory["limit_value"]), memory["outcome"]) == ("max_memory", 3 * MIB, "fail")
    assert (memory["low"], memory["started"]) == ("", "2026-11-24T03:00:00Z")
    assert float(rows["int8-dynamic", "speedup_ratio"]["low"]) > 1.5
    assert {row["started"] for row in _rows(replace(MEASURED, started="a\0b"))} == {"a\ufffdb"}
    formula = record(case('=HYPERLINK("x")', model="@m"))
    assert {row["recipe"] for row in _rows(formula)} == {'\'=HYPERLINK("x")', "original"}
    assert {row["model"] for row in _rows(formula)} == {"'@m"}


def _junit(told: Record) -> list[Any]:
    return [test for suite in JUnitXml.fromstring(formats.render("junit", told)) for test in suite]


@pytest.mark.parametrize(
    "told", [*ALL, record(case()), record(case(), complete=False), record(case(), no_loosening=True)]
)
def test_junit_is_red_where_the_record_is(told: Record) -> None:
    results = [result for test in _junit(told) for result in test.result]
    assert any(isinstance(result, (Failure, Error)) for result in results) == record_is_red(told)
    document = JUnitXml.fromstring(formats.render("junit", told))
    for suite in document:
        of = [type(result) for test in suite for result in test.result]
        assert (suite.tests, suite.failures) == (len(list(suite)), of.count(Failure))
        assert (suite.errors, suite.skipped) == (of.count(Error), of.count(Skipped))


def test_junit_says_what_is_broken_and_has_the_figures() -> None:
    failed = _junit(MEASURED)[0]
    assert (failed.classname, failed.name) == ("digits-vit", NAME)
    assert failed.result[0].message.startswith(f"{NAME}: max_memory 3 MiB is broken: 4 MiB")
    assert "max_flips" in failed.result[0].text
    properties = {each.name: each.value for each in failed.child(Properties)}
    assert properties["modelopt.memory_bytes"] == str(4 * MIB)
    told = record(
        case("a", reference=None, error=CaseError("load", "no such file")),
        case("b", expected=Expected("xfailed", "it is old"), limits=(limit("max_memory", MIB, "1 MiB"),)),
        planned=("never::ran",),
        skipped=("was::skipped",),
    )
    of = {test.name: test for test in _junit(told)}
    assert "no such file" in of["digits-vit/a"].result[0].message
    assert isinstance(of["digits-vit/b"].result[0], Skipped)
    assert isinstance(of["was::skipped"].result[0], Skipped)
    assert "never::ran" in of["never ran"].result[0].text


def test_the_command_prints_them_and_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, html = tmp_path / "record.json", tmp_path / "deep" / "page.html"
    record_json.write(MEASURED, path)
    for name in formats.names():
        assert main(["report", str(path), "--format", name]) == 1
        assert capsys.readouterr().out == formats.render(name, MEASURED), name
    assert main(["report", str(path), "--markdown", "--html", str(html)]) == 1
    assert capsys.readouterr().out.startswith("**Model budgets: FAILED.**")
    assert "<h1>" in html.read_text(encoding="utf-8")
    assert main(["history", str(path), str(path), "--html", str(html)]) == 0
    assert capsys.readouterr().out == f"wrote {html}: 2 records\n"
    assert "History of 2 records" in html.read_text(encoding="utf-8")
