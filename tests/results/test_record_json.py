"""The record as JSON: the same after writing and reading, and refused where it is not what `dumps` writes."""

from __future__ import annotations

import json
import math
import re
import tracemalloc
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from pytest_modelopt.results import json as record_json
from pytest_modelopt.results.base import Base
from pytest_modelopt.results.case import Case, CaseError
from pytest_modelopt.results.json import (
    RecordError,
    case_from_data,
    case_to_data,
    dumps,
    environment_from_data,
    environment_to_data,
    loads,
    read,
    write,
)
from pytest_modelopt.results.layer_costs import LayerCost, LayerGroup, RecipeSensitivity
from pytest_modelopt.results.measurement import LayerCoverage, Measurement
from pytest_modelopt.results.record import Environment, Record
from pytest_modelopt.results.timed_pairs import Conditions, TimedPair, Timing, WorkerUse
from pytest_modelopt.results.verdicts import Finding, Limit, Reason, Verdict, Waiver
from tests.reporting.records_by_hand import case
from tests.reporting.records_by_hand import record as _record
from tests.results.any_record import any_value

_CONDITIONS = Conditions(2, 0.5, 0.0, None, None, None, 0.0, WorkerUse(1, 0.0), WorkerUse(None, 0.0))


def _timed_case(pairs: int = 2) -> Case:
    each = tuple(
        TimedPair(
            1,
            20 * n,
            n % 2 == 0,
            1000 + n,
            500 + n,
            9,
            8,
            9000 + 9 * n,
            4000 + 8 * n,
            90,
            40 * n,
            0,
            0,
            n % 5,
        )
        for n in range(pairs)
    )
    limit = Limit("min_speedup", 1.5, "1.5x", "error", "budgets.yaml", 3)
    return Case(
        id="budgets.yaml::m/r",
        model="m",
        recipe="r",
        metric="accuracy",
        higher_is_better=True,
        limits=(limit,),
        batch_size=1,
        reference=Measurement(None, 40, 40, 8, 0.5, 4, None),
        variant=Measurement("r", 40, 40, 8, 0.5, 4, None, unmeasured={"b": "why", "a": "why"}),
        timing=Timing(each, 7, 1.0, 0.1, 20.0, 1, _CONDITIONS),
        verdicts=(Verdict(limit, "pass", 2.0, Reason("measured")),),
    )


def _changed(change: Any, record: Record | None = None) -> str:
    data = json.loads(dumps(_record(_timed_case()) if record is None else record))
    change(data)
    return json.dumps(data)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(any_value(Record))
def test_every_record_is_the_same_after_writing_and_reading(record: Record) -> None:
    """Save for what the doctor found, which is examined again and not believed."""
    assert loads(dumps(record)) == replace(record, cases=tuple(replace(case, findings=()) for case in record.cases))


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(any_value(Case))
def test_every_case_is_the_same_after_transport_as_plain_data(case: Case) -> None:
    data = case_to_data(case)
    assert case_from_data(data) == case
    assert case_from_data(json.loads(json.dumps(data))) == case


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(any_value(Environment))
def test_every_environment_is_the_same_after_transport_as_plain_data(environment: Environment) -> None:
    data = environment_to_data(environment)
    assert environment_from_data(json.loads(json.dumps(data))) == environment
    with pytest.raises(RecordError, match="surprise: is not a field"):
        environment_from_data({**data, "surprise": 1})


def test_transport_data_is_made_of_plain_types_only() -> None:
    class Text(str):
        pass

    class Figure(float):
        pass

    def plain(value: object) -> bool:
        if type(value) is dict:
            return all(type(key) is str and plain(item) for key, item in value.items())
        if type(value) is list:
            return all(plain(item) for item in value)
        return type(value) in (str, int, float, bool, type(None))

    case = replace(_timed_case(), model=Text("m"), error=CaseError("load", "no"))
    assert case.variant is not None
    assert plain(case_to_data(replace(case, variant=replace(case.variant, score=Figure(0.5)))))


def test_findings_are_written_as_rules_with_parameters() -> None:
    finding = Finding("untied", {"weights": ["a = b"], "bytes": 512}, ("memory", "size"), is_note=True)
    text = dumps(_record(replace(_timed_case(), findings=(finding,))))
    (written,) = json.loads(text)["cases"][0]["findings"]
    assert written == {
        "rule": "untied",
        "parameters": {"weights": ["a = b"], "bytes": 512},
        "explains": ["memory", "size"],
        "is_note": True,
    }
    assert loads(text).cases[0].findings == (), "not believed"
    others: tuple[Any, ...] = ({"weights": [3]}, {"weights": [[]]}, {"weights": {}}, 3)
    for wrong in others:
        with pytest.raises(RecordError, match=r"^cases\[0\]\.findings\[0\]\.parameters"):
            loads(_changed(lambda d: d["cases"][0].update(findings=[{**written, "parameters": wrong}])))  # noqa: B023


def test_reading_a_case_leaves_the_data_as_it_was() -> None:
    data = case_to_data(_timed_case())
    before = json.dumps(data)
    case_from_data(data)
    assert json.dumps(data) == before


def test_the_text_is_stable_and_ends_with_a_newline() -> None:
    text = dumps(_record(_timed_case()))
    assert text.endswith("}\n")
    assert dumps(loads(text)) == text
    assert list(json.loads(text)) == [field.name for field in fields(Record)]
    assert list(json.loads(text)["cases"][0]["variant"]["unmeasured"]) == ["a", "b"]


def test_a_thousand_pairs_take_a_line_for_each_figure_and_less_than_eighty_bytes_each() -> None:
    few, many = dumps(_record(_timed_case(10))), dumps(_record(_timed_case(1010)))
    assert few.count("\n") == many.count("\n")
    assert len(many) - len(few) < 80 * 1000
    assert json.loads(few)["cases"][0]["timing"]["pairs"]["reference_ns"][:2] == [1000, 1001]


def test_derived_figures_are_not_stored() -> None:
    assert "memory_bytes" not in dumps(_record(_timed_case()))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_figure_that_is_not_finite_is_refused_with_its_path(value: float) -> None:
    case = _timed_case()
    assert case.variant is not None
    record = _record(replace(case, variant=replace(case.variant, score=value)))
    with pytest.raises(RecordError, match=r"^cases\[0\]\.variant\.score: .* is not a figure"):
        dumps(record)


def test_half_a_character_does_not_make_a_record_unreadable() -> None:
    record = _record(replace(_timed_case(), error=CaseError("load", "bad \udc80 byte")))
    error = loads(dumps(record)).cases[0].error
    assert error is not None
    assert error.message == "bad \N{REPLACEMENT CHARACTER} byte"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(surprise=1), r"^surprise: is not a field of a record$"),
        (lambda d: d["cases"][0].update(surprise=1), r"^cases\[0\]\.surprise: is not a field"),
        (lambda d: d.pop("seed"), r"^seed: is missing$"),
        (lambda d: d.update(seed="7"), r'^seed: must be a whole number, not "7"$'),
        (lambda d: d.update(seed=7.0), r"^seed: must be a whole number, not 7.0$"),
        (lambda d: d.update(seed=True), r"^seed: must be a whole number, not true$"),
        (lambda d: d.update(seed=2**63), r"^seed: the number does not fit into 64 bits$"),
        (lambda d: d.update(strict=1), r"^strict: must be true or false, not 1$"),
        (lambda d: d.update(started=None), r"^started: must be text, not null$"),
        (lambda d: d.update(planned="a"), r'^planned: must be a list, not "a"$'),
        (lambda d: d.update(cases={}), r"^cases: must be a list, not an object$"),
        (lambda d: d.update(cases=[3]), r"^cases\[0\]: must be an object, not 3$"),
        (lambda d: d["cases"][0]["variant"].update(score="x"), r"^cases\[0\]\.variant\.score: must be a number"),
        (
            lambda d: d["cases"][0]["limits"][0].update(level="fatal"),
            r"^cases\[0\]\.limits\[0\]\.level: must be 'error' or 'warn', not \"fatal\"$",
        ),
        (lambda d: d.update(schema_version=1), "written by another version"),
        (lambda d: d.update(schema_version=8), r"it says 8, this pytest-modelopt reads 9: measure again with it$"),
        (lambda d: d.update(schema_version=True), "written by another version"),
        (lambda d: d.pop("schema_version"), "written by another version"),
        (lambda d: d["cases"][0]["timing"].update(pairs=[]), r"^cases\[0\]\.timing\.pairs: must be an object"),
        (lambda d: d["cases"][0]["timing"]["pairs"].pop("variant_ns"), r"timing\.pairs: must be an object"),
        (lambda d: d["cases"][0]["timing"]["pairs"]["variant_ns"].pop(), r"timing\.pairs: .* equally long"),
        (lambda d: d["cases"][0]["timing"]["pairs"].update(variant_ns=[0, 1]), r"pairs\.variant_ns: .* least 1"),
        (lambda d: d["cases"][0]["timing"]["pairs"].update(variant_ns=[True, 1]), r"pairs\.variant_ns: .* whole"),
        (lambda d: d["cases"][0]["timing"]["pairs"].update(variant_first=[0, 1]), r"pairs\.variant_first: .* true"),
        (lambda d: d["cases"][0]["timing"]["pairs"].update(launch=[0, 1]), r"pairs\.launch: .* least 1"),
        (lambda d: d["cases"][0]["timing"]["pairs"].update(variant_delayed_ns=[-1, 0]), r"_delayed_ns: .* least 0"),
        (lambda d: d["cases"][0]["timing"]["pairs"].update(variant_ns="ab"), r"pairs\.variant_ns: must be a list"),
        (lambda d: d["cases"][0]["timing"]["pairs"].update(variant_calls=[0, 1]), r"pairs\.variant_calls: .* least 1"),
        (lambda d: d["cases"][0]["timing"]["pairs"].update(variant_block_ns=[1, 0]), r"_block_ns: .* least 1"),
        (lambda d: d["cases"][0]["timing"]["pairs"].update(reference_warming_ns=[-1, 0]), r"_warming_ns: .* least 0"),
        (lambda d: d["cases"][0]["timing"]["pairs"].update(at_ms=[-1, 0]), r"pairs\.at_ms: .* least 0"),
        (
            lambda d: d["cases"][0]["timing"]["pairs"].update(at_ms=[1, 0]),
            r"\.timing\.pairs\.at_ms: must not fall",
        ),
        (lambda d: d["cases"][0]["timing"]["pairs"].update(launch=[2, 1]), r"pairs\.launch: must not fall"),
    ],
)
def test_what_is_not_a_record_is_refused_with_its_path(change: Any, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        loads(_changed(change))


_WAIVER = Waiver("2027-01-31", "slow", "budgets.yaml", 9, "@ada", 1.2, "1.2x")


def _waived_case() -> Case:
    case = _timed_case()
    limit = replace(case.limits[0], waiver=_WAIVER)
    return replace(case, limits=(limit,), verdicts=(Verdict(limit, "waived", 1.3, Reason("measured")),))


@pytest.mark.parametrize("until", ["tomorrow", "20270131", "2027-02-30", "2027-1-31", "2027-01-31T00:00", ""])
@pytest.mark.parametrize("where", ["limits[0]", "verdicts[0].limit"])
def test_a_waiver_that_does_not_end_on_a_day_is_refused(until: str, where: str) -> None:
    def change(data: Any) -> None:
        case = data["cases"][0]
        (case["limits"][0] if where == "limits[0]" else case["verdicts"][0]["limit"])["waiver"]["until"] = until

    record = _record(_waived_case())
    assert loads(dumps(record)) == record
    with pytest.raises(RecordError, match=rf"^cases\[0\]\.{re.escape(where)}\.waiver\.until: must be a date"):
        loads(_changed(change, record))


@pytest.mark.parametrize(("machine", "others", "is_there"), [(0, 0, True), (1, 1, True), (1, 0, False), (2, 1, False)])
def test_a_case_belongs_to_a_machine_of_its_record(machine: int, others: int, is_there: bool) -> None:
    environment = Environment("3", "Linux", "CPU", 2, "AVX2", (), "2", "x86")
    second = replace(_timed_case(), machine=machine)
    record = _record(_timed_case(), second, environment=environment, other_machines=(environment,) * others)
    if is_there:
        assert loads(dumps(record)).machine_of(second) == environment
        return
    with pytest.raises(
        RecordError, match=rf"^cases\[1\]\.machine: must be from 0 to {others}, since .*, not {machine}"
    ):
        loads(dumps(record))


def test_a_machine_below_the_first_is_refused_also_in_transport() -> None:
    with pytest.raises(RecordError, match=r"^machine: must be at least 0, not -1"):
        case_from_data({**case_to_data(_timed_case()), "machine": -1})
    assert case_from_data(case_to_data(replace(_timed_case(), machine=7))).machine == 7


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"flips": 9}, "flips: must be from 0 to 8, not 9"),
        ({"flips": -1}, "flips: must be from 0 to 8, not -1"),
        ({"examples": -1}, "examples: must be at least 0, not -1"),
        ({"saved_bytes": 1e3}, r"saved_bytes: must be a whole number, not 1000\.0"),
        ({"group": {"names": []}}, r"group\.names: must not be empty"),
        ({"group": {"multiply_adds": -1}}, r"group\.multiply_adds: must be at least 0, not -1"),
        ({"group": {"weight_bytes": -1}}, r"group\.weight_bytes: must be at least 0, not -1"),
    ],
)
def test_what_layers_cannot_cost_is_refused(wrong: dict[str, Any], told: str) -> None:
    cost = LayerCost(LayerGroup(("a",), "Linear", 4, 4), 3, 8, 2)
    record = replace(_record(_timed_case()), sensitivity=(RecipeSensitivity("m", "r", True, (cost,)),))

    def change(data: Any) -> None:
        of = data["sensitivity"][0]["costs"][0]
        of.update({**wrong, "group": {**of["group"], **wrong.get("group", {})}})

    with pytest.raises(RecordError, match=rf"^sensitivity\[0\]\.costs\[0\]\.{told}"):
        loads(_changed(change, record))


def test_a_case_in_error_may_compare_with_a_base_and_hold_no_measurement() -> None:
    case = replace(
        _timed_case(), base=Base("1a2b", "compared"), variant=None, timing=None, error=CaseError("load", "no")
    )
    assert loads(dumps(_record(case))).cases == (case,)


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_not_finite_is_refused_on_reading(literal: str) -> None:
    before, found, after = dumps(_record(_timed_case())).rpartition('"score": 0.5')
    assert found
    text = f'{before}"score": {literal}{after}'
    with pytest.raises(RecordError, match=r"^cases\[0\]\.variant\.score: must be a finite number"):
        loads(text)
    for name in ("reference_ns", "seed", "line"):
        elsewhere = re.sub(rf'("{name}": \[?)\d+', rf"\g<1>{literal}", dumps(_record(_timed_case())))
        assert literal in elsewhere
        with pytest.raises(RecordError):
            loads(elsewhere)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "[" * 100_000, '{"a": 1, "a": 2}', "9" * 5000])
def test_what_is_not_a_json_object_is_refused(text: str) -> None:
    with pytest.raises(RecordError):
        loads(text)


def test_a_deeply_nested_field_is_refused() -> None:
    deep: Any = []
    for _ in range(900):
        deep = [deep]
    with pytest.raises(RecordError):
        loads(_changed(lambda d: d.update(planned=deep)))


def test_many_faults_are_told_together_but_not_without_end() -> None:
    with pytest.raises(RecordError, match=r"z0: is not a field.*z1: is not a field.*; and 15 more$"):
        loads(_changed(lambda d: d.update({f"z{n}": 1 for n in range(20)})))


def test_a_text_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(record_json, "MAX_BYTES", 1024 * 1024)
    layers = tuple(LayerCoverage("é" * 600, "Linear", 1, 1) for _ in range(1000))
    assert len(layers) * 600 < 1024 * 1024 < len(layers) * 1200
    text = json.dumps([layer.name for layer in layers], ensure_ascii=False)
    with pytest.raises(RecordError, match="larger than 1 MiB"):
        loads(text)
    (tmp_path / "record.json").write_text(text, encoding="utf-8")
    with pytest.raises(RecordError, match=r"record\.json: the record is larger than 1 MiB"):
        read(tmp_path / "record.json")


@pytest.mark.parametrize("data", [None, 3, [], {}, {"id": {1, 2}}, {"id": math.nan}])
def test_what_is_not_a_case_is_refused(data: object) -> None:
    with pytest.raises(RecordError):
        case_from_data(data)


def test_a_file_is_written_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "record.json"
    record = _record(replace(_timed_case(), model="modèle"))
    write(_record(), path)
    with path.open(encoding="utf-8") as reader:
        write(record, path)
        assert loads(reader.read()) == _record()
    assert read(path) == record
    assert [each.name for each in path.parent.iterdir()] == ["record.json"]


def test_a_record_that_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write(_record(), path)
    bad = _record(replace(_timed_case(), variant=Measurement("r", 1, 1, 1, math.nan, 1, None)))
    with pytest.raises(RecordError):
        write(bad, path)
    assert read(path) == _record()


def test_the_text_of_many_cases_takes_little_more_memory_than_itself() -> None:
    """Together with the parts that it is joined from. All cases as data at once would take five times as much."""
    many = _record(*(case(model=f"model-{number}") for number in range(100)))
    tracemalloc.start()
    text = dumps(many)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 2 * len(text) < peak < 3 * len(text)
