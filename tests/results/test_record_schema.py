"""The published shape of a record: every record has it, and what no command reads does not."""

from __future__ import annotations

import importlib
import json
import pkgutil
from dataclasses import is_dataclass

import jsonschema
import pytest

from pytest_modelopt import results
from pytest_modelopt.cli.main import main
from pytest_modelopt.results.json import dumps
from pytest_modelopt.results.record import SCHEMA_VERSION, Record
from pytest_modelopt.results.record_schema import record_schema
from tests.reporting.against_by_hand import GREW, pull_request, waived
from tests.reporting.records_by_hand import realistic

CHECK = jsonschema.Draft202012Validator(record_schema())


def test_it_is_a_schema_with_the_version_of_the_record(capsys: pytest.CaptureFixture[str]) -> None:
    jsonschema.Draft202012Validator.check_schema(record_schema())
    assert main(["schema", "--record"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == record_schema()
    assert printed["properties"]["schema_version"]["const"] == SCHEMA_VERSION


@pytest.mark.parametrize("record", [realistic(), pull_request(GREW, waived())], ids=["a run", "against a base"])
def test_a_record_has_it(record: Record) -> None:
    CHECK.validate(json.loads(dumps(record)))


@pytest.mark.parametrize("field", ["schema_version", "cases", "planned"])
def test_a_record_without_a_field_lacks_it(field: str) -> None:
    data = json.loads(dumps(realistic()))
    del data[field]
    assert not CHECK.is_valid(data)


def test_an_unknown_field_and_a_wrong_type_are_refused() -> None:
    data = json.loads(dumps(realistic()))
    assert not CHECK.is_valid({**data, "new": 1})
    data["cases"][0]["variant"]["size_bytes"] = "1"
    assert not CHECK.is_valid(data)
    data = json.loads(dumps(realistic()))
    del data["cases"][0]["timing"]["pairs"]["reference_ns"]
    assert not CHECK.is_valid(data)


def test_no_object_of_a_record_has_a_dict_of_its_own() -> None:
    """A run keeps hundreds of them for each case, to its end."""
    modules = [
        importlib.import_module(f"{results.__name__}.{each.name}") for each in pkgutil.iter_modules(results.__path__)
    ]
    found = {
        kind for module in modules for kind in vars(module).values() if isinstance(kind, type) and is_dataclass(kind)
    }
    assert Record in found
    assert [kind for kind in found if kind.__dictoffset__] == []
