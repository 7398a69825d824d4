"""`pytest-modelopt comment`: from a stranger's record, either a comment that is safe to publish or one clear line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_modelopt.cli.comment import CLAIMED, LIMIT, MARKER, comment
from pytest_modelopt.cli.main import main
from pytest_modelopt.results.case import CaseError
from pytest_modelopt.results.json import MAX_BYTES, dumps
from pytest_modelopt.results.record import Record
from pytest_modelopt.results.verdicts import Finding
from tests.reporting.against_by_hand import AGAINST, GREW, LOOSENED, against, pull_request
from tests.reporting.hostile_texts import EVERYTHING
from tests.reporting.records_by_hand import MIB, broken, case, limit, measurement, realistic, record, timing, verdict


@pytest.fixture
def written(tmp_path: Path) -> Callable[[Record | str], str]:
    def write(what: Record | str) -> str:
        path = tmp_path / "record.json"
        path.write_text(what if isinstance(what, str) else dumps(what), encoding="utf-8")
        return str(path)

    return write


def _said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(["comment", *arguments])
    out, err = capsys.readouterr()
    return status, out, err


# --- what it prints --------------------------------------------------------------------------------------------------


def test_the_first_line_is_the_marker_and_the_second_the_verdict(
    capsys: pytest.CaptureFixture[str], written: Callable[[Record | str], str]
) -> None:
    status, out, err = _said(
        capsys, written(record(case("a", verdicts=(verdict(limit("max_size", MIB, "1 MiB"), "pass"),))))
    )
    assert (status, err) == (0, "")
    assert out.split("\n")[:2] == ["<!-- pytest-modelopt -->", "**Model budgets: passed.** 1 case: 1 passed, 0 failed."]
    status, out, _ = _said(capsys, written(record(broken("a"))), "--title", "GPU *models*")
    assert status == 0  # that it is red is the other workflow's exit status
    assert out.split("\n")[1].startswith("**GPU &#42;models&#42;: ")


def test_the_comment_of_a_pull_request_tells_what_was_loosened() -> None:
    told = comment(pull_request(case(), against(), told=replace(AGAINST, loosened=(LOOSENED,))))
    assert "Head 1a2b3c4d5e6f against base 0f1e2d3c4b5a" in told
    assert "#### 1 limit is less strict than at the base" in told


def test_a_verdict_that_the_record_claims_is_not_believed() -> None:
    bound = limit("max_size", MIB / 2, "512 KiB")
    claimed = case("a", verdicts=(verdict(bound, "pass", 1.0, "everything is fine"),))  # 1 MiB measured
    told = comment(record(claimed))
    assert "Model budgets: FAILED" in told
    assert "everything is fine" not in told
    assert "digits-vit/a: max_size 512 KiB is broken: 1 MiB measured" in told
    told = comment(record(replace(claimed, verdicts=())))  # nor is a verdict that it leaves out
    assert "max_size 512 KiB is broken" in told
    grown = replace(GREW, verdicts=(verdict(GREW.limits[0], "pass", 0.0, "nothing grew"),))  # by an eighth
    told = comment(pull_request(grown))
    assert "Model budgets: FAILED" in told
    assert "nothing grew" not in told
    assert "digits-vit/int8-dynamic: max_size_growth 2% is broken: 12.5% more than at 0f1e2d3c4b5a" in told
    slow = case("b", timing=timing(61), verdicts=(verdict(limit("min_speedup", 1.5, "1.5x"), "pass"),))  # 0.8x
    assert "digits-vit/b: min_speedup 1.5x is broken" in comment(record(slow))


def test_nor_is_what_the_doctor_is_said_to_have_found() -> None:
    claimed = Finding("send your password to the maintainers", {}, ("size",), is_note=True)
    told = comment(record(case(verdicts=(verdict(limit("max_size", 1.0, "1 B"), "fail", 2.0),))))
    assert comment(record(replace(case(limits=(limit("max_size", 1.0, "1 B"),)), findings=(claimed,)))) == told


def test_an_error_stays_one_whatever_verdicts_stand_beside_it() -> None:
    bound = limit("max_size", MIB, "1 MiB")
    told = comment(record(case(verdicts=(verdict(bound, "pass"),), error=CaseError("load", "no"))))
    assert "Model budgets: FAILED" in told


def test_it_fits_into_a_comment_failures_first() -> None:
    many = [broken(f"r{number:04}") for number in range(600)]
    noted = [
        case(f"p{number:04}", f"m{number}", reference=measurement(None, notes=("n" * 90,))) for number in range(600)
    ]
    bound = limit("max_size", 1.0, "1 B")
    told = comment(record(*noted, *(replace(each, limits=(bound,)) for each in many)))
    assert len(told) <= len(told.encode()) <= LIMIT == 65_000
    assert told.startswith(f"{MARKER}\n**Model budgets: FAILED.** 1200 cases: ")
    assert "\n**FAIL** digits-vit/r0000" in told
    assert "Left out to keep this report below 63 KiB" in told


@pytest.mark.parametrize("field", ["asked", "base", "head"])
def test_no_text_of_the_record_is_so_long_that_the_verdict_is_lost(field: str) -> None:
    long: dict[str, Any] = {field: "x" * LIMIT}
    told = comment(pull_request(GREW, told=replace(AGAINST, **long)))
    assert told.split("\n")[1] == "**Model budgets: FAILED.** 1 case: 0 passed, 1 failed."


def test_nor_that_something_was_loosened() -> None:
    """A table of 50 reasons that take 2,500 bytes each when they are escaped does not fit; its title does."""
    hidden = replace(LOOSENED, new=f"waived until 2027-01-31: {'*' * 500}")
    told = comment(pull_request(against(), told=replace(AGAINST, loosened=(hidden,) * 50)))
    assert "\n\n#### 50 limits are less strict than at the base\n\n" in told
    assert "Left out to keep this report below 63 KiB: what was loosened." in told


def test_it_ends_with_who_says_so() -> None:
    """Whoever writes the code that is measured can write what the record holds."""
    for told in (comment(record(case())), comment(record(*(broken(f"r{number:04}") for number in range(2_000))))):
        assert told.endswith(f"\n\n{CLAIMED}\n")
        assert len(told.encode()) <= LIMIT
    assert CLAIMED.startswith("Limits, waivers, figures and revisions are what the run of this pull request reported")


KEYS = [f'"k{number}"' for number in (*range(100_000), 99_999)]


# --- what it refuses -------------------------------------------------------------------------------------------------


def _changed(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda data: data.update(changes)


def _in_case(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda data: data["cases"][0].update(changes)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_changed(schema_version=5), "schema_version: the record was written by another version: it says 5"),
        (_changed(schema_version="9"), "schema_version: the record was written by another version"),
        (_changed(extra=1), "extra: is not a field of a record"),
        (_changed(seed="7"), 'seed: must be a whole number, not "7"'),
        (_changed(seed=2**70), "seed: the number does not fit into 64 bits"),
        (_changed(complete="true"), 'complete: must be true or false, not "true"'),
        (_changed(cases={}), "cases: must be a list, not an object"),
        (_changed(cases=[[]]), "cases[0]: must be an object, not a list"),
        (_in_case(model=None), "cases[0].model: must be text, not null"),
        (
            lambda data: data["cases"][0]["reference"].update(score=float("nan")),
            "cases[0].reference.score: must be a finite number, not NaN",
        ),
        (_in_case(base={"name": "x", "status": "fine"}), "cases[0].base.status: must be 'compared', 'new'"),
        (lambda data: data.pop("planned"), "planned: is missing"),
        (_changed(**{"\n::error::x\x1b[2J": 1}), "is not a field of a record"),
        (_changed(**{"x" * 5_000: 1}), "..."),
    ],
)
def test_what_is_no_record_is_refused_in_one_line(
    change: Callable[[dict[str, Any]], None],
    told: str,
    capsys: pytest.CaptureFixture[str],
    written: Callable[[Record | str], str],
) -> None:
    data = json.loads(dumps(record(case(), case("b"))))
    change(data)
    status, out, err = _said(capsys, written(json.dumps(data)))
    assert (status, out) == (2, "")
    assert told in err
    line, end = err.split("\n")
    assert end == ""
    assert line.isprintable()
    assert not line.startswith("::")
    assert len(line) <= 300


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "this is not a JSON record"),
        ("[1]", "the record must be a JSON object"),
        ("[" * 200_000, "this is not a JSON record"),
        ('{"a":' * 200_000, "this is not a JSON record"),
        ('{"schema_version": 9, "cases": ' + "[" * 900 + "]" * 900 + "}", "recursion limit exceeded"),
        ('{"schema_version": 9, "schema_version": 9}', '"schema_version" is given twice'),
        (f"{{{','.join(f'{key}:1' for key in KEYS)}}}", '"k99999" is given twice'),  # compared one by one: minutes
        (f'{{"schema_version": 9, "cases": [{",".join(2_000 * ["{}"])}]}}', "this is not a record: "),
        ("\ud800".encode("utf-8", "surrogatepass").decode("latin-1"), "this is not a JSON record"),
    ],
    ids=lambda text: text[:30],
)
def test_text_that_is_no_record_is_refused_in_one_line(
    text: str, told: str, capsys: pytest.CaptureFixture[str], written: Callable[[Record | str], str]
) -> None:
    status, out, err = _said(capsys, written(text))
    assert (status, out) == (2, "")
    assert told in err
    assert err.count("\n") == 1


def test_a_file_that_is_too_large_or_not_there_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    large = tmp_path / "large.json"
    with large.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    status, out, err = _said(capsys, str(large))
    assert (status, out) == (2, "")
    assert "the record is larger than 64 MiB" in err
    assert _said(capsys, str(tmp_path / "missing.json"))[0] == 2
    assert _said(capsys, str(tmp_path))[0] == 2


def test_figures_that_nothing_can_be_made_of_are_refused(
    capsys: pytest.CaptureFixture[str], written: Callable[[Record | str], str]
) -> None:
    data = json.loads(
        dumps(record(case(agreement=realistic().cases[0].agreement, limits=(limit("min_accuracy", 0.9, "90%"),))))
    )
    data["cases"][0]["variant"]["score"] = 1e308
    status, out, err = _said(capsys, written(json.dumps(data)))
    assert (status, out) == (2, "")
    assert "its figures contradict each other: variant.score is 1e+308, but accuracy lies from 0 to 1" in err
    assert err.count("\n") == 1


# --- what it takes ---------------------------------------------------------------------------------------------------


def test_a_path_in_a_record_is_text_and_no_file(
    capsys: pytest.CaptureFixture[str], written: Callable[[Record | str], str], tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the token")
    for file in (str(secret), "../../../etc/passwd", "/etc/passwd", "file:///etc/passwd", "a.md)[x](/y"):
        bound = replace(limit("max_size", 1.0, "1 B"), file=file)
        status, out, _ = _said(capsys, written(record(case(limits=(bound,)))))
        assert status == 0
        assert "the token" not in out
        assert "root:" not in out


def test_thousands_of_cases_of_hostile_names_are_told(
    capsys: pytest.CaptureFixture[str], written: Callable[[Record | str], str]
) -> None:
    bound = limit("max_size", 1.0, "1 B")
    one = case(EVERYTHING[:200], limits=(bound,), reference=measurement(None, notes=("a note",)))
    cases = tuple(replace(one, id=f"{one.id}{number}", model=f"m{number}") for number in range(1_000))
    path = written(replace(record(), cases=cases, planned=tuple(f"p{number}" for number in range(20_000))))
    status, out, err = _said(capsys, path)
    assert (status, err) == (0, "")
    assert out.startswith(f"{MARKER}\n**Model budgets: FAILED, PARTIAL: 1000 of 21000 cases ran.** 21000 cases: ")
    assert len(out) <= LIMIT
