"""What other programs read: JUnit properties, and the files of the report."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_modelopt.reporting.files import metrics, write_report
from pytest_modelopt.reporting.junit import properties
from pytest_modelopt.reporting.markdown import render
from pytest_modelopt.results.answers import Agreement
from pytest_modelopt.results.case import CaseError
from pytest_modelopt.results.files.atomic_files import write_text
from pytest_modelopt.results.json import read
from pytest_modelopt.results.measurement import Coverage, LayerCoverage
from tests.reporting.records_by_hand import MIB, case, measurement, realistic, timing


def test_properties_are_the_figures() -> None:
    measured = case(
        reference=measurement(None, weights=4 * MIB, peak=4 * MIB, size=4 * MIB, score=0.75),
        variant=measurement("int8-dynamic", weights=MIB, peak=MIB, size=3 * MIB, score=0.5),
        timing=timing(),
        agreement=Agreement(360, 2, 1, 3),
        coverage=Coverage((LayerCoverage("a", "Linear", 4, 3),), ()),
    )
    assert dict(properties(measured)) == {
        "modelopt.model": "digits-vit",
        "modelopt.recipe": "int8-dynamic",
        "modelopt.memory_bytes": 2 * MIB,
        "modelopt.memory_reduction": 0.75,
        "modelopt.size_bytes": 3 * MIB,
        "modelopt.size_reduction": 0.25,
        "modelopt.latency_s": pytest.approx(0.005),
        "modelopt.speedup": pytest.approx(0.8),
        "modelopt.score": 0.5,
        "modelopt.drop": 0.25,
        "modelopt.flips": 3,
        "modelopt.right_to_wrong": 2,
        "modelopt.wrong_to_right": 1,
        "modelopt.coverage": 0.75,
    }


def test_what_was_not_measured_has_no_property() -> None:
    failed = case(reference=None, error=CaseError("load", "no"))
    assert properties(failed) == [("modelopt.model", "digits-vit"), ("modelopt.recipe", "int8-dynamic")]


def test_the_report_is_three_files(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "report"
    assert write_report(realistic(), folder) == (
        folder / "record.json",
        folder / "metrics.txt",
        folder / "summary.md",
    )
    assert read(folder / "record.json") == realistic()
    assert (folder / "summary.md").read_text(encoding="utf-8") == render(realistic())
    assert (folder / "metrics.txt").read_text(encoding="utf-8") == metrics.render(realistic())
    assert sorted(path.name for path in folder.iterdir()) == ["metrics.txt", "record.json", "summary.md"]


def test_what_cannot_be_written_is_called_by_its_name_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError) as refused:
        write_text("text", tmp_path)
    assert refused.value.filename == str(tmp_path)
    name = tmp_path / ("x" * 250)  # with the dots of a file that is not whole yet it is too long
    with pytest.raises(OSError, match="too long") as refused_name:
        write_text("text", name)
    assert refused_name.value.filename == str(name)
    assert list(tmp_path.iterdir()) == []
