"""`pytest-modelopt validate`: what the file demands, without importing anything that it names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_modelopt.budgets import file
from pytest_modelopt.budgets.file import BudgetsFile, load_budgets
from tests.commands.update_by_hand import Project, one
from tests.report.records_by_hand import limit


def test_cases_with_their_limits(project: Project) -> None:
    project.budgets.write_text(one("{max_size: 4 MiB, max_memory: 3 MiB}") + "      bf16:\n")
    assert project.command("validate") == [
        "budgets.yaml: 1 models, 2 cases",
        "  m/int8-dynamic: max_memory 3 MiB, max_size 4 MiB",
        "  m/bf16: no limits",
    ]


def test_limits_against_a_base(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the file gives them once it takes them."""
    growth, loss = limit("max_memory_growth", 0.02, "2%"), limit("max_accuracy_loss", 0.005, "0.5 pp")

    def with_regression(path: Path, *, relative_to: Path) -> BudgetsFile:
        found = load_budgets(path, relative_to=relative_to)
        model = replace(found.models[0], regression=(growth, loss))
        return replace(found, models=(model,), cases=(replace(found.cases[0], model=model, regression=(loss,)),))

    project.budgets.write_text(one("{max_memory: 3 MiB}"))
    monkeypatch.setattr(file, "load_budgets", with_regression)
    assert project.command("validate") == [
        "budgets.yaml: 1 models, 1 cases",
        "  m/int8-dynamic: max_memory 3 MiB; against a base: max_accuracy_loss 0.5 pp",
        "  m/original: no limits; against a base: max_memory_growth 2%, max_accuracy_loss 0.5 pp",
    ]
