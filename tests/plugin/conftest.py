"""Fixtures of whole runs: a project under git, one with trained models, and a check of each record that is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import jsonschema
import pytest
import torch

from pytest_modelopt.cli.shared.judged_records import read_judged
from pytest_modelopt.results.json import dumps
from pytest_modelopt.results.record_schema import record_schema
from tests.plugin import imported_modules, metric_tasks  # noqa: F401
from tests.plugin.repositories import Repository
from tests.plugin.small_project import project  # noqa: F401

RECORD_SCHEMA = jsonschema.Draft202012Validator(record_schema())


@pytest.fixture(autouse=True)
def _commands_believe_what_runs_write(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever the test's runs have measured: no command refuses the record, each comes to the run's verdicts and
    findings, and it has the published shape."""
    folder: Path | None = request.getfixturevalue("pytester").path if "pytester" in request.fixturenames else None
    yield
    for file in folder.rglob("*.json") if folder is not None else ():
        text = file.read_text(encoding="utf-8", errors="replace")
        if '"schema_version"' in text:
            assert json.loads(dumps(read_judged(file))) == json.loads(text)
            RECORD_SCHEMA.validate(json.loads(text))


@pytest.fixture
def repository(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A project under git, without any commit yet."""
    monkeypatch.delenv("COLUMNS", raising=False)
    return Repository(pytester)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the weights of the models of `metric_tasks`."""
    folder = tmp_path_factory.mktemp("weights")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name in metric_tasks.MODELS:
        metric_tasks.train(name, folder)
    torch.set_num_threads(threads)
    return folder


@pytest.fixture
def tasks_project(
    project: Callable[..., pytest.Pytester],  # noqa: F811
    weights: Path,
) -> pytest.Pytester:
    """A project whose `tasks.py` is our `metric_tasks`, with the trained weights beside it, and no budgets yet."""
    pytester = project(None)
    source = Path(metric_tasks.__file__).read_text(encoding="utf-8")
    (pytester.path / "tasks.py").write_text(source, encoding="utf-8")
    for file in weights.iterdir():
        shutil.copy(file, pytester.path)
    return pytester
