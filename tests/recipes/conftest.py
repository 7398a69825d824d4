"""One thread, and torch's own remark on nested tensors (of its fused transformer path with a mask) kept quiet."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """For every test of recipes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "recipes" in item.path.parts:
            item.add_marker(pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning"))
