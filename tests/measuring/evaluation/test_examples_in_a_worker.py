"""Evaluation data as a worker reads it: all variants take what was read once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from pytest_modelopt.measuring.protocol import CallShape, Examples, VariantError
from pytest_modelopt.measuring.worker.data import examples
from pytest_modelopt.measuring.worker.data.examples import (
    read_batches,
)
from pytest_modelopt.results.workload import Workload

# --- through the worker's operations ---------------------------------------------------------------------------------

SOURCE = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

INPUTS = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(300) % 2
made = 0

def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 2), nn.Dropout()).eval()

def shuffled():
    global made
    made += 1
    torch.rand(made)  # another state of the generator each time
    return DataLoader(TensorDataset(INPUTS, TARGETS), batch_size=32, shuffle=True)

def seven():
    return torch.ones(7, 4)

def by_target(inputs, target):
    assert inputs.shape == (4,)
    return "even" if target == 0 else "odd"
"""


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """A Bench in this process, nothing done yet."""
    from pytest_modelopt.measuring.variant import Variant
    from pytest_modelopt.measuring.worker.bench import Bench
    from pytest_modelopt.results.metric import MetricSpec

    (tmp_path / "read_user.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    before = torch.get_num_threads()

    def make(**fields: Any) -> Bench:
        folder = str(tmp_path)
        variant = Variant(
            "read_user:model", None, "read_user:shuffled", None, None, MetricSpec(), (folder,), folder, **fields
        )
        return Bench(variant)

    yield make
    sys.modules.pop("read_user", None)
    torch.set_num_threads(before)


def test_variants_take_the_order_that_was_read_and_do_not_make_the_data(
    bench: Callable[..., Any], tmp_path: Path
) -> None:
    found = bench(slices="read_user:by_target").read(str(tmp_path / "file"))
    assert sorted(found.slice_names) == ["even", "odd"]
    bench().read_again(found)
    user: Any = sys.modules["read_user"]
    assert user.made == 2
    made = bench(batch_size=40)
    made.load(examples=found)
    answers = made.score()
    assert user.made == 2
    assert (answers.examples, answers.data_fingerprint) == (300, found.fingerprint)
    # The same shuffled order as the loader has it, with the seed of every run.
    torch.manual_seed(made._variant.seed)
    expected = [batch for batch, _ in DataLoader(TensorDataset(user.INPUTS, user.TARGETS), 32, shuffle=True)]
    read: list[Any] = [batch.inputs for batch in read_batches(found)]
    assert torch.equal(torch.cat(read), torch.cat(expected))
    assert torch.equal(made._first_inputs(), torch.cat(expected)[:40]), "the measured call has the first of them"
    assert answers.targets is not None
    assert [found.slice_names[number] == "odd" for number in found.slice_of] == [bool(t) for t in answers.targets]


def test_data_that_was_too_large_to_keep_is_read_by_each_variant(
    bench: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examples, "MOST_BYTES", 100)
    found: Examples = bench().read(str(tmp_path / "file"))
    assert found.path is None
    made = bench()
    made.load(examples=found)
    answers = made.score()
    assert (answers.examples, answers.data_fingerprint) == (300, found.fingerprint)
    assert sys.modules["read_user"].made == 3


def test_the_call_at_each_workload_has_the_inputs_and_threads_that_it_states(bench: Callable[..., Any]) -> None:
    """`example_inputs` are cut only where `batch_size` is stated closer, and that is told."""
    whole = Workload("whole", 9, 2, "cpu", None, "read_user:seven", "all")
    made = bench(
        points=(
            Workload("first", 2),
            whole,
            replace(whole, name="cut", batch_size=3, takes="first"),
            replace(whole, name="wrong", takes="exactly"),
        ),
        workload="whole",
    )
    loaded = made.load()
    assert loaded.called == CallShape(2, ((2, 4),))
    for name, count, note in (("whole", 7, "has the 7 examples"), ("cut", 3, "has the first 3 of the 7 examples")):
        point = next(each for each in made._variant.points if each.name == name)
        called, _ = made.move(point)
        assert (called.batch_size, called.shapes) == (count, ((count, 4),))
        assert note in called.notes[0]
        assert torch.get_num_threads() == 2
    made.score()
    assert torch.get_num_threads() == 1, "answers are those of the first workload"
    with pytest.raises(VariantError, match="holds 7 examples, and `batch_size`, which is stated beside it, is 9"):
        made.move(made._variant.points[3])
