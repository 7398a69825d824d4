"""Files that this process opens below a folder, as the kernel tells them."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_modelopt.measuring.worker.watches import kernel_watches
from pytest_modelopt.measuring.worker.watches.kernel_watches import FoldersOfProject


def open_in_c(*files: Path) -> None:
    libc = ctypes.CDLL(None)
    for file in files:
        libc.close(libc.open(os.fsencode(file), 0))


def test_only_own_opens_are_told_and_not_of_hidden_or_installed_folders(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("w", "a/b/w", ".git/w", "site-packages/w", "by_a_child")]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    watch = FoldersOfProject([str(tmp_path)])
    if not watch.is_watching:
        pytest.skip("the kernel tells of no own opens here")
    assert list(watch.opened()) == []
    open_in_c(*files[:-1])
    subprocess.run([sys.executable, "-S", "-c", "import sys; open(sys.argv[1])", str(files[-1])], check=True)
    assert list(watch.opened()) == [str(file) for file in files[:2]]
    assert list(watch.opened()) == []


def test_a_large_project_is_looked_through_as_far_as_that_is_done_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        (tmp_path / f"folder{number}" / "inner").mkdir(parents=True)
    monkeypatch.setattr(kernel_watches, "_MOST_ENTRIES", 5)
    assert len(kernel_watches._below([str(tmp_path)])) == 1 + 5
    monkeypatch.setattr(kernel_watches, "_MOST_FOLDERS", 3)
    assert len(kernel_watches._below([str(tmp_path), str(tmp_path)])) == 3
