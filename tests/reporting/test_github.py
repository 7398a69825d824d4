"""Annotations: at the right line, never more than GitHub shows, and never a second command in a message."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_modelopt.reporting import github_annotations
from pytest_modelopt.results.case import CaseError
from tests.reporting.records_by_hand import MIB, broken, case, limit, record, verdict


def test_a_broken_limit_is_an_error_at_its_line() -> None:
    assert github_annotations.annotations(
        record(broken("int8-dynamic")), workspace="/w/repo", rootdir="/w/repo/models"
    ) == [
        "::error file=models/budgets.yaml,line=23,title=digits-vit/int8-dynamic%3A max_memory is broken::"
        "max_memory 3 MiB: 3.75 MiB (+25%25)"
    ]


def test_a_file_outside_of_the_workspace_has_no_place() -> None:
    for workspace, rootdir in (("/w/repo", "/elsewhere"), (None, "/w/repo"), ("/w/repo", "/w")):
        (line,) = github_annotations.annotations(record(broken("r")), workspace=workspace, rootdir=rootdir)
        assert line.startswith("::error title=digits-vit/r%3A max_memory is broken::")


def test_a_file_above_the_rootdir_is_still_found() -> None:
    bound = replace(limit("max_size", 1.0, "1 B", line=4), file="../budgets.yaml")
    told = record(case(verdicts=(verdict(bound, "fail", 2.0),)))
    (line,) = github_annotations.annotations(told, workspace="/w/repo", rootdir=Path("/w/repo/models"))
    assert line.startswith("::error file=budgets.yaml,line=4,")


def test_what_is_not_red_is_a_warning_and_notes_are_nothing() -> None:
    told = record(
        case("a", verdicts=(verdict(limit("min_speedup", 1.5, "1.5x"), "inconclusive", 1.5),)),
        case("b", verdicts=(verdict(limit("min_speedup", 1.5, "1.5x", level="warn"), "fail", 1.2),)),
        case("c", verdicts=(verdict(limit("max_size", 1.0, "1 B"), "waived", 2.0),)),
        planned=("missing",),
    )
    lines = github_annotations.annotations(told, workspace=None, rootdir="/w")
    assert [line.split("::")[1].split(" ")[0] for line in lines] == ["error", "warning", "warning"]
    strict = github_annotations.annotations(replace(told, strict=True), workspace=None, rootdir="/w")
    assert [line.split("::")[1].split(" ")[0] for line in strict] == ["error", "error", "warning"]


def test_the_nine_worst_of_each_level_and_one_for_the_rest() -> None:
    errors = [broken(f"r{n:02}", measured=(4 + n) * MIB) for n in range(14)]
    warnings = [broken(f"w{n:02}", level="warn", measured=(4 + n) * MIB) for n in range(9)]
    crashed = case("crash", error=CaseError("timing", "killed"))
    lines = github_annotations.annotations(record(*errors, *warnings, crashed), workspace=None, rootdir="/w")
    red = [line for line in lines if line.startswith("::error ")]
    assert len(red) == 10
    assert len(lines) - len(red) == 9
    titles = [re.findall(r"title=digits-vit/(\w+)%3A", line) for line in red]
    assert titles == [["crash"], *([f"r{n:02}"] for n in range(13, 5, -1)), []]
    assert red[-1].startswith("::error title=and 6 more::digits-vit/r05: max_memory is broken%0Adigits-vit/r04: ")


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\v", "\f", "\x85", "\u2028", "\u2029", "\x1e"])
def test_no_message_can_begin_another_command(end: str) -> None:
    evil = f"x{end}::add-mask::y%0A,file=other:line=1"
    bound = replace(limit("max_size", 1.0, evil), file=f"a{end}::b,c", name=f"n{evil}")
    told = record(
        case(evil, evil, verdicts=(verdict(bound, "fail", 2.0, evil),)),
        case(f"e{evil}", evil, error=CaseError("load", evil, evil)),
        planned=(evil,),
    )
    lines = github_annotations.annotations(told, workspace="/w", rootdir="/w")
    assert len(lines) == 3
    for line in lines:
        assert len(line.splitlines()) == 1
        assert line.isprintable()
        properties = re.match(r"::(?:error|warning) (.*?)::", line)
        assert properties is not None
        for each in properties[1].split(","):
            assert re.match(r"(file|line|title)=[^:]*\Z", each)
        assert "%0A,file" not in line
        assert "%250A" in line


def test_the_step_summary_is_appended_as_utf8(tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    path.write_text("before\n", encoding="utf-8")
    github_annotations.append_step_summary(path, "µ\n")
    github_annotations.append_step_summary(str(path), "after\n")
    assert path.read_bytes() == "before\nµ\nafter\n".encode()


def test_a_step_summary_that_github_would_drop_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    path.write_bytes(b"x" * 1024 * 1000)
    github_annotations.append_step_summary(path, "y" * 1024 * 100)
    assert path.stat().st_size < 1024 * 1024
    assert "left out" in path.read_text(encoding="utf-8")
