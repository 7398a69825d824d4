"""Fixtures for the commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.update_by_hand import Project
from tests.plugin import imported_modules  # noqa: F401


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Project:
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path, capsys)
