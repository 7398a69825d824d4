"""A report, a baseline or a step summary that cannot be written: said before anything is measured, or survived."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest

from benchmarks.hostile_green import green
from benchmarks.hostile_text import is_harmless
from pytest_modelopt.results.json import read
from tests.plugin.small_project import one_case

Project = Callable[..., pytest.Pytester]

STARTED = "from pathlib import Path\nPath('started').write_text('')\nfrom shop import classifier\n"
FOLDER, FILE = "; name a folder that can be written", "; name a file that can be written"
UNSET = "; unset it where there is no such file"


@pytest.mark.parametrize(
    ("arguments", "summary", "told"),
    [
        (["--modelopt-report=file"], "", f"--modelopt-report: {{here}}/file: Not a directory{FOLDER}"),
        (["--modelopt-report=file", "-n2"], "", f"--modelopt-report: {{here}}/file: Not a directory{FOLDER}"),
        (["--modelopt-report=file/in"], "", f"--modelopt-report: {{here}}/file/in: Not a directory{FOLDER}"),
        (["-o", "modelopt_report=file"], "", f"--modelopt-report: {{here}}/file: Not a directory{FOLDER}"),
        (["--modelopt-report=taken"], "", f"--modelopt-report: {{here}}/taken/summary.md: Is a directory{FOLDER}"),
        (["--modelopt-report=/proc/report"], "", f"--modelopt-report: /proc/report: No such file or directory{FOLDER}"),
        (["--modelopt-save=taken"], "", f"--modelopt-save: {{here}}/taken: Is a directory{FILE}"),
        (["--modelopt-save=file/base.json"], "", f"--modelopt-save: {{here}}/file: Not a directory{FILE}"),
        (["--modelopt-save=/dev/full"], "", f"--modelopt-save: /dev/full: this is a device or a pipe, no file{FILE}"),
        (["--modelopt-html=taken"], "", f"--modelopt-html: {{here}}/taken: Is a directory{FILE}"),
        ([], "none/step.md", f"GITHUB_STEP_SUMMARY: none/step.md: No such file or directory{UNSET}"),
        ([], "taken", f"GITHUB_STEP_SUMMARY: taken: Is a directory{UNSET}"),
    ],
)
def test_it_is_a_usage_error_before_anything_is_measured(
    project: Project, monkeypatch: pytest.MonkeyPatch, arguments: list[str], summary: str, told: str
) -> None:
    pytester = project(one_case(factory="slow:classifier"))
    (pytester.path / "slow.py").write_text(STARTED, encoding="utf-8")
    (pytester.path / "file").write_text("mine", encoding="utf-8")
    (pytester.path / "taken" / "summary.md").mkdir(parents=True)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", summary)
    before = sorted(pytester.path.rglob("*"))
    result = pytester.runpytest("--modelopt", "-p", "no:cacheprovider", *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"ERROR: {told.format(here=pytester.path)}" in result.stderr.lines
    assert not (pytester.path / "started").exists()
    assert sorted(pytester.path.rglob("*")) == before
    assert (pytester.path / "file").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("ini", ["", "[pytest]\n"])
@pytest.mark.parametrize("value", ["../out", "../out/old.json"])
def test_a_path_by_which_pytest_would_take_another_root_folder_is_refused(
    project: Project, ini: str, value: str
) -> None:
    """Else budgets.yaml is not found, and the run is green without a case."""
    pytester = project(one_case())
    (pytester.path / "work").mkdir()
    (pytester.path / "out").mkdir()
    (pytester.path / "out" / "old.json").touch()
    for name in ("shop.py", "budgets.yaml"):
        (pytester.path / name).rename(pytester.path / "work" / name)
    (pytester.path / "work" / "pytest.ini").write_text(ini, encoding="utf-8")
    pytester.chdir()
    os.chdir("work")
    option = "--modelopt-html" if value.endswith("json") else "--modelopt-report"
    refused = pytester.runpytest("--modelopt", "--collect-only", option, value)
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines([f"ERROR: {option} {value}: pytest does not know *: write {option}={value}"])
    (pytester.path / "pytest.ini").write_text(ini, encoding="utf-8")
    refused = pytester.runpytest("--modelopt", "--collect-only", option, value)
    refused.stderr.fnmatch_lines([f"ERROR: {option} {value}: pytest does not know *: write {option}={value}"])
    for good in ([f"{option}={value}"], ["-c", "pytest.ini", option, value], [option, "new"]):
        taken = pytester.runpytest("--modelopt", "--collect-only", "-q", *good)
        taken.stdout.fnmatch_lines(["budgets.yaml::*", "1 test collected*"])


@pytest.mark.parametrize("given", [(), ("--rootdir=.",)])
def test_without_an_ini_file_it_is_the_root_folder_that_is_looked_at(project: Project, given: tuple[str, ...]) -> None:
    pytester = project(one_case())
    (pytester.path / "work" / "report").mkdir(parents=True)
    (pytester.path / "out").mkdir()
    for name in ("shop.py", "budgets.yaml"):
        (pytester.path / name).rename(pytester.path / "work" / name)
    for each in (*pytester.path.glob("*.ini"), *pytester.path.glob("*.toml")):
        each.unlink()
    os.chdir("work")
    arguments = ("--modelopt", "--collect-only", "-q", *given, "--modelopt-report")
    assert pytester.runpytest(*arguments, "../out").ret == (0 if given else pytest.ExitCode.USAGE_ERROR)
    assert pytester.runpytest(*arguments, "report").ret == 0


def test_the_home_folder_is_meant_behind_an_equals_sign(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    pytester = project(one_case())
    monkeypatch.setenv("HOME", str(pytester.path / "home"))
    pytester.runpytest("--modelopt", "--modelopt-report=~/out", "-k", "nothing")
    assert (pytester.path / "home" / "out").is_dir()
    assert not (pytester.path / "~").exists()


def test_what_is_wrong_with_a_baseline_is_told_as_text(project: Project) -> None:
    """It may come from an artifact that anybody has written."""
    pytester = project(one_case())
    hostile = "\x1b[2J\n::error::x\u2028##[error]y\u202e"
    (pytester.path / "base").write_text(json.dumps(green()[0] | {hostile: 1}), encoding="utf-8")
    result = pytester.runpytest("--modelopt", "-p", "no:cacheprovider", "--modelopt-baseline=base")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    said = result.stderr.str()
    assert "::error::x ## [error]y: is not a field of a record" in said
    assert is_harmless(said)


def test_who_only_lists_tests_writes_nothing(project: Project) -> None:
    pytester = project(one_case())
    (pytester.path / "file").write_text("mine", encoding="utf-8")
    result = pytester.runpytest("--modelopt", "--collect-only", "--modelopt-report=file")
    assert result.ret == pytest.ExitCode.OK


LATER = """
import pytest, resource, shutil
from pathlib import Path

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session):
    {before}
    try:
        return (yield)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""
IN_ITS_PLACE = "shutil.rmtree('out'); Path('out').write_text('a file')"
FULL_DISK = "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))"


@pytest.mark.parametrize("quiet", [[], ["-q"], ["-qq"]])
@pytest.mark.parametrize(
    ("arguments", "summary", "before", "told"),
    [
        (["--modelopt-report=out"], "", IN_ITS_PLACE, "the report could not be written: {here}/out"),
        (
            ["--modelopt-report=out"],
            "",
            FULL_DISK,
            "the report could not be written: {here}/out/record.json: File too large",
        ),
        (
            ["--modelopt-save=out/base.json"],
            "",
            f"Path('out').mkdir(); {IN_ITS_PLACE}",
            "the baseline (--modelopt-save) could not be written: {here}/out: Not a directory",
        ),
        (
            [],
            "/dev/full",
            "pass",
            "the step summary (GITHUB_STEP_SUMMARY) could not be written: /dev/full: No space left on device",
        ),
    ],
    ids=["report", "full", "baseline", "summary"],
)
def test_later_it_is_one_line_beside_the_table(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    summary: str,
    before: str,
    told: str,
    quiet: list[str],
) -> None:
    is_baseline = "--modelopt-save" in str(arguments)  # of errors none is saved; elsewhere nothing need be measured
    pytester = project(one_case("{max_size: 1 MB}") if is_baseline else None)
    pytester.makeconftest(LATER.format(before=before))
    if not is_baseline:
        pytester.makepyfile("def test_it(modelopt):\n    assert modelopt is None")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", summary)
    result = pytester.runpytest("--modelopt", "-p", "no:cacheprovider", *arguments, *quiet)
    assert result.ret == (pytest.ExitCode.OK if is_baseline else pytest.ExitCode.TESTS_FAILED)
    result.stdout.no_fnmatch_line("*INTERNALERROR*")
    lines = [line for line in result.stdout.lines if "could not be written" in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"modelopt: {told.format(here=pytester.path)}")
    assert ("model budgets" in result.stdout.str()) == (quiet != ["-qq"])
    if before == FULL_DISK:
        assert not read(pytester.path / "out" / "record.json").complete
    assert [file for file in pytester.path.rglob("*") if file.name.endswith(".tmp")] == []
