"""The JSON Schema of records, for programs that read `record.json`."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from pydantic import ConfigDict, TypeAdapter

from pytest_modelopt.results.record import SCHEMA_VERSION, Record
from pytest_modelopt.results.timed_pairs import TimedPair

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def record_schema() -> dict[str, Any]:
    """A new version for each change of a field: `schema_version` says which one a record has.

    It describes the shape. That the figures of a case agree with each other, `read` checks beside it.
    """
    settings = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True)
    # pydantic takes no settings for a dataclass of the standard library, but hands those of a tuple on to it.
    definitions = TypeAdapter(tuple[Record], config=settings).json_schema()["$defs"]
    column = {"type": "array", "items": {"type": ["integer", "boolean"]}}
    names = [field.name for field in fields(TimedPair)]
    definitions["Timing"]["properties"]["pairs"] = {
        "type": "object",
        "properties": {name: {**column, **_described(definitions["TimedPair"]["properties"][name])} for name in names},
        "required": names,
        "additionalProperties": False,
        "description": "All pairs in columns: one entry for each pair.",
    }
    del definitions["TimedPair"]
    for definition in definitions.values():
        definition["additionalProperties"] = False
        definition.pop("title", None)
        for each in definition["properties"].values():
            each.pop("title", None)
    record = definitions.pop("Record")
    record["required"].append("schema_version")
    return {
        "$schema": DIALECT,
        "title": f"Record of pytest-modelopt, version {SCHEMA_VERSION}",
        **record,
        "$defs": definitions,
    }


def _described(definition: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in definition.items() if key == "description"}
