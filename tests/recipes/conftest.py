"""One thread, and torch's own remark on nested tensors (of its fused transformer path with a mask) kept quiet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "recipes" in item.path.parts:
            item.add_marker(pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning"))
