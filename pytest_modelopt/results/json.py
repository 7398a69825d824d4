"""The record as JSON, in and out: strict on the way in, finite on the way out, and the same record after both.

Only what the doctor found is not read: it is written for people, and found again in the figures where it is needed.

Timed pairs, thousands in one comparison, are stored as columns:
`"pairs": {"variant_first": [...], "reference_ns": [...], "variant_ns": [...], ...}`, each column on one line.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pydantic import ConfigDict, TypeAdapter, ValidationError

from pytest_modelopt.results.case import Case
from pytest_modelopt.results.consistency.contradictions import disagreement
from pytest_modelopt.results.consistency.invariants import contradiction, contradiction_of_record
from pytest_modelopt.results.files.atomic_files import write_text
from pytest_modelopt.results.record import SCHEMA_VERSION, Environment, Record
from pytest_modelopt.results.timed_pairs import TimedPair, Timing

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

MAX_BYTES = 64 * 1024 * 1024
"""A larger text is refused before it is read: a record may come from a run that nobody trusts."""
_MAX_INTEGER = 2**63 - 1
_ERRORS_SHOWN = 5
_ERRORS_LISTED = 10_000
_COLUMNS = tuple(field.name for field in fields(TimedPair))
_TIMINGS = ("timing", "loading")
"""Of a case."""
_FLAGS = ("variant_first",)
_COUNTS = tuple(name for name in _COLUMNS if name.endswith(("at_ms", "_warming_ns", "canary_ns", "_delayed_ns")))
_IN_ORDER = ("launch", "at_ms")
_SURROGATES = re.compile("[\ud800-\udfff]")


class RecordError(ValueError):
    """What is wrong with a record, and in which field, in words."""


def dumps(record: Record) -> str:
    """The record as JSON text, keys in the order of the dataclasses' fields, with a newline at its end.

    Cases become text one by one: as data, all of them at once take five times as much memory as their text.

    Raises:
        RecordError: for a figure that JSON cannot hold (NaN, infinity), with the path of its field.
    """
    whole = "".join(_lines(_to_data(replace(record, cases=()), ""), indent=0)) + "\n"
    if not record.cases:
        return whole
    before, start, after = whole.partition('\n "cases": [')  # no text of JSON holds a line's end
    cases = ("".join(_lines(_to_data(case, f"cases[{index}]"), indent=2)) for index, case in enumerate(record.cases))
    return "".join((before, start, "\n  ", ",\n  ".join(cases), "\n ", after))


def loads(text: str) -> Record:
    """The record that `dumps` wrote, without its findings. Nothing else is converted, defaulted into shape or ignored.

    Raises:
        RecordError: for text that is not JSON, that is too large, that another version wrote, or with a field that is
            unknown, missing, or of the wrong type; the message gives the path of the field and what is wrong.
    """
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        _refuse(f"the record is larger than {MAX_BYTES // 1024**2} MiB")
    data = _parse(text)
    if not isinstance(data, dict):
        _refuse("the record must be a JSON object")
    version = data.get("schema_version")
    if type(version) is not int or version != SCHEMA_VERSION:
        _refuse(
            f"schema_version: the record was written by another version: it says {_shown(version)}, "
            f"this pytest-modelopt reads {SCHEMA_VERSION}: measure again with it"
        )
    cases = data.get("cases")
    pairs = [_take_timings(case, f"cases[{index}]") for index, case in enumerate(cases)] if type(cases) is list else []
    record: Record = _validated(_record_adapter(), data)
    restored = (_with_pairs(case, own) for case, own in zip(record.cases, pairs, strict=True))
    return replace(record, cases=tuple(replace(case, findings=()) for case in restored))


def case_to_data(case: Case) -> dict[str, Any]:
    """The case as dict, list, str, int, float, bool and None only, for a transport that knows no other types."""
    data: dict[str, Any] = _to_data(case, "")
    return data


def case_from_data(data: object) -> Case:
    """The case that `case_to_data` took apart, checked as strictly as `loads` checks. `data` is not changed.

    Raises:
        RecordError: as in `loads`.
    """
    copy = _copied(data)
    pairs = _take_timings(copy, "")
    return _with_pairs(_validated(_case_adapter(), copy), pairs)


def environment_to_data(environment: Environment) -> dict[str, Any]:
    """The environment in the same plain types as a case in `case_to_data`."""
    data: dict[str, Any] = _to_data(environment, "")
    return data


def environment_from_data(data: object) -> Environment:
    """The environment that `environment_to_data` took apart.

    Raises:
        RecordError: as in `loads`.
    """
    environment: Environment = _validated(_environment_adapter(), _copied(data))
    return environment


def write(record: Record, path: Path) -> None:
    """Write the record to `path`, whole or not at all; missing parent folders are made."""
    write_text(dumps(record), path)


def read(path: Path) -> Record:
    """The record in the file `path`, whose figures agree with each other.

    Raises:
        RecordError: as in `loads`, with the file's name, and where figures of one case contradict each other.
        OSError: if the file cannot be read.
    """
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    try:
        if len(content) > MAX_BYTES:
            _refuse(f"the record is larger than {MAX_BYTES // 1024**2} MiB")
        record = loads(content.decode("utf-8"))
        if told := disagreement(record):
            _refuse(told)
        return record
    except ValueError as error:
        raise RecordError(f"{path}: {error}") from error


def _refuse(message: str) -> NoReturn:
    raise RecordError(message)


# --- out -------------------------------------------------------------------------------------------------------------


def _to_data(value: object, path: str) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _SURROGATES.sub(
            "\N{REPLACEMENT CHARACTER}", value
        )  # half a character is not text, UTF-8 has no form for it
    if isinstance(value, int):
        _check_integer(value, path)
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            _refuse(f"{path}: {value} is not a figure; leave it None and give the reason")
        return float(value)
    if isinstance(value, (tuple, list)):
        return [_to_data(item, f"{path}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, dict):
        return {str(key): _to_data(value[key], _join(path, str(key))) for key in sorted(value)}
    if is_dataclass(value):
        data = {
            field.name: _to_data(getattr(value, field.name), _join(path, field.name))
            for field in fields(value)
            if not (isinstance(value, Timing) and field.name == "pairs")
        }
        if isinstance(value, Timing):
            return {"pairs": _columns(value.pairs, path), **data}
        return data
    _refuse(f"{path}: a record cannot hold a {type(value).__name__}")


def _columns(pairs: tuple[TimedPair, ...], path: str) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {name: [getattr(pair, name) for pair in pairs] for name in _COLUMNS}
    _check_columns(columns, _join(path, "pairs"))
    return columns


def _lines(value: Any, indent: int) -> Iterator[str]:
    """JSON text indented by one, but a list of plain values stays on its line."""
    inner, outer = "\n" + " " * (indent + 1), "\n" + " " * indent
    if isinstance(value, dict) and value:
        for index, (key, item) in enumerate(value.items()):
            yield f"{',' if index else '{'}{inner}{json.dumps(key, ensure_ascii=False)}: "
            yield from _lines(item, indent + 1)
        yield outer + "}"
    elif isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        for index, item in enumerate(value):
            yield f"{',' if index else '['}{inner}"
            yield from _lines(item, indent + 1)
        yield outer + "]"
    else:
        yield json.dumps(value, ensure_ascii=False, allow_nan=False)


# --- in --------------------------------------------------------------------------------------------------------------


def _parse(text: str) -> Any:
    try:
        data = json.loads(text, object_pairs_hook=_no_repetition)  # NaN is refused later, with its path
        _check_integers(data, "")
        return data
    except RecordError:
        raise
    except (ValueError, RecursionError) as error:
        raise RecordError(f"this is not a JSON record: {error}") from error


def _copied(data: object) -> Any:
    try:
        text = json.dumps(data)
    except (TypeError, ValueError, RecursionError) as error:
        raise RecordError(f"this is not made of JSON values: {error}") from error
    return _parse(text)


def _no_repetition(items: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(items)
    if len(data) != len(items):
        counts = Counter(key for key, _ in items)
        _refuse(f"{_shown(next(key for key, count in counts.items() if count > 1))} is given twice in one object")
    return data


def _check_integers(value: Any, path: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _check_integers(item, _join(path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_integers(item, f"{path}[{index}]")
    elif isinstance(value, int):
        _check_integer(value, path)


def _check_integer(value: int, path: str) -> None:
    if not -_MAX_INTEGER <= value <= _MAX_INTEGER:
        _refuse(f"{path}: the number does not fit into 64 bits")


_Pairs = dict[str, tuple[TimedPair, ...]]
"""By the field that holds their timing."""


def _take_timings(case: Any, path: str) -> _Pairs:
    """The pairs of a case's columns; in the data an empty list takes their place, for the check of all the rest."""
    if not isinstance(case, dict):
        return {}
    phases = case.get("phases")
    parts = {f"phases.{name}": timing for name, timing in phases.items()} if isinstance(phases, dict) else {}
    timings = {**{name: case.get(name) for name in _TIMINGS}, **parts}
    return {where: _take_pairs(timing, _join(path, where)) for where, timing in timings.items()}


def _take_pairs(timing: Any, path: str) -> tuple[TimedPair, ...]:
    if not isinstance(timing, dict) or "pairs" not in timing:
        return ()
    columns, timing["pairs"] = timing["pairs"], []
    _check_columns(columns, _join(path, "pairs"))
    return tuple(map(TimedPair, *(columns[name] for name in _COLUMNS)))


def _check_columns(columns: Any, path: str) -> None:
    if not isinstance(columns, dict) or set(columns) != set(_COLUMNS):
        _refuse(f"{path}: must be an object with the columns {', '.join(_COLUMNS)} and nothing else")
    for name, column in columns.items():
        if type(column) is not list:
            _refuse(f"{path}.{name}: must be a list")
        if name in _FLAGS and any(type(item) is not bool for item in column):
            _refuse(f"{path}.{name}: must hold true and false only")
        least = 0 if name in _COUNTS else 1
        if name not in _FLAGS and any(type(item) is not int or not least <= item <= _MAX_INTEGER for item in column):
            _refuse(f"{path}.{name}: must hold whole numbers of at least {least}")
    if len({len(column) for column in columns.values()}) > 1:
        _refuse(f"{path}: the columns must be equally long")
    for name in _IN_ORDER:
        if columns[name] != sorted(columns[name]):
            _refuse(f"{path}.{name}: must not fall from one pair to the next")


def _with_pairs(case: Case, pairs: _Pairs) -> Case:
    for name, timing in case.timings.items():
        if timing.variant_calls_ns and len(timing.variant_calls_ns) != len(pairs[name]):
            _refuse(f"{case.id}: {name}.variant_calls_ns: must have an entry for each pair, or none")
    of_pairs = {name: replace(timing, pairs=pairs[name]) for name, timing in case.timings.items()}
    phases = {name: of_pairs[f"phases.{name}"] for name in case.phases}
    return replace(case, timing=of_pairs.get("timing"), loading=of_pairs.get("loading"), phases=phases)


_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@cache
def _record_adapter() -> TypeAdapter[tuple[Record]]:
    # pydantic takes no settings for a dataclass of the standard library, but hands those of a tuple on to it.
    return TypeAdapter(tuple[Record], config=_STRICT)


@cache
def _case_adapter() -> TypeAdapter[tuple[Case]]:
    return TypeAdapter(tuple[Case], config=_STRICT)


@cache
def _environment_adapter() -> TypeAdapter[tuple[Environment]]:
    return TypeAdapter(tuple[Environment], config=_STRICT)


def _validated(adapter: TypeAdapter[tuple[Any]], data: Any) -> Any:
    try:
        (value,) = adapter.validate_json(json.dumps([data]), strict=True)
    except ValidationError as error:
        count = error.error_count()
        if count > _ERRORS_LISTED:  # pydantic lists all or none: of millions that takes minutes and all memory
            raise RecordError(f"this is not a record: {count:,} of its fields are wrong") from None
        details = error.errors(include_url=False, include_context=True)
        told = [f"{_location(each['loc'][1:])}{_error_text(each)}" for each in details[:_ERRORS_SHOWN]]
        more = [f"and {len(details) - _ERRORS_SHOWN} more"] if len(details) > _ERRORS_SHOWN else []
        raise RecordError("; ".join(told + more)) from None
    except RecursionError as error:
        raise RecordError("this is not a record: it is nested too deeply") from error
    cases = value.cases if isinstance(value, Record) else (value,) if isinstance(value, Case) else ()
    for index, case in enumerate(cases):
        path = f"cases[{index}]" if isinstance(value, Record) else ""
        wrong = contradiction(case)
        if wrong:
            _refuse(_join(path, wrong))
    wrong = contradiction_of_record(value) if isinstance(value, Record) else ""
    if wrong:
        _refuse(wrong)
    return value


def _error_text(error: ErrorDetails) -> str:
    given = _shown(error["input"])
    words = {
        "missing": "is missing",
        "unexpected_keyword_argument": "is not a field of a record",
        "int_type": f"must be a whole number, not {given}",
        "int_from_float": f"must be a whole number, not {given}",
        "float_type": f"must be a number, not {given}",
        "finite_number": f"must be a finite number, not {given}",
        "string_type": f"must be text, not {given}",
        "bool_type": f"must be true or false, not {given}",
        "tuple_type": f"must be a list, not {given}",
        "dict_type": f"must be an object, not {given}",
        "dataclass_type": f"must be an object, not {given}",
    }
    if error["type"] == "literal_error":
        return f"must be {error['ctx']['expected']}, not {given}"
    return words.get(error["type"], error["msg"])


def _shown(value: object) -> str:
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _location(parts: tuple[int | str, ...]) -> str:
    path = ""
    for part in parts:
        path = f"{path}[{part}]" if isinstance(part, int) else _join(path, part)
    return f"{path}: " if path else ""


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
