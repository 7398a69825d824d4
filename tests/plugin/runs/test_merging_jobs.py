"""The records of several jobs of one suite: what ended without a measurement, and what none of them ran."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_modelopt.cli.main import main
from pytest_modelopt.results.json import read

SUITE = """
import pytest

def test_left_out(modelopt):
    pytest.skip("not on this machine")

def test_broken(modelopt):
    assert False
"""


def _job(pytester: pytest.Pytester, name: str, *arguments: str) -> Path:
    pytester.makepyfile(SUITE)
    pytester.runpytest("--modelopt", f"--modelopt-report={name}", "-p", "no:cacheprovider", *arguments)
    return pytester.path / name / "record.json"


def test_a_skipped_test_is_told_and_one_that_failed_before_it_measured_is_in_error(
    pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # of a narrow terminal, the line that is looked for would be two
    skipped, broken = _job(pytester, "a", "-k", "left_out"), _job(pytester, "b", "-k", "broken")
    file = read(skipped).collected[0].partition("::")[0]
    ids = [f"{file}::test_left_out", f"{file}::test_broken"]
    assert [read(path).collected for path in (skipped, broken)] == [tuple(ids), tuple(ids)]
    assert [read(path).skipped for path in (skipped, broken)] == [(ids[0],), ()]
    capsys.readouterr()
    assert main(["merge", str(skipped)]) == 1
    assert main(["merge", str(skipped), str(broken)]) == 1
    assert "ERROR test_broken: error while running its test: " in capsys.readouterr().out
