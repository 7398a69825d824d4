"""Shared by all rooms' tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_modelopt.measure import machine

pytest_plugins = ["pytester"]


@pytest.fixture(autouse=True)
def _own_lock(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests do not wait for what others on this machine are timing. (Runs in processes of their own still do.)

    And inner runs do not take themselves for a worker of the outer one's pytest-xdist.
    """
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID"):
        monkeypatch.delenv(name, raising=False)
    lock = tmp_path_factory.getbasetemp() / "timing.lock"
    monkeypatch.setattr(machine, "lock_file", lambda: Path(lock))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Figures of memory, and the bits of answers, repeat with one thread."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
