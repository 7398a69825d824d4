"""Real git repositories, small ones, and a temporary folder of each test's own for the trees of bases."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from tests.baseline.repositories import Repository


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder: this test's alone, so that it sees all that is left in it. And git without the user's
    settings."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))  # of processes that the test starts
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    return folder


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = Repository(tmp_path_factory.mktemp("template") / "r")
    made.commit({"model.py": "width = 1\n", "weights/best.pt": "1", "gone.py": "", "README.md": "x"})
    made.git("tag", "first")
    made.git("rm", "--quiet", "gone.py")
    made.commit({"model.py": "width = 2\n", "pkg/new.py": "", ".gitignore": "*.log\n"})
    made.git("tag", "second")
    return made.folder


@pytest.fixture
def repository(template: Path, tmp_path: Path) -> Repository:
    """Two commits, 'first' and 'second' (tags), and nothing uncommitted. The folder's name is no mere word."""
    shutil.copytree(template, tmp_path / "pro jekt ü")
    return Repository(tmp_path / "pro jekt ü", new=False)
