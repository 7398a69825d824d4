"""Looks: random examples in growing parts, and answers to them that are those of the whole pass."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.measuring.worker.answers.looks import NotDrawn, drawn
from pytest_modelopt.measuring.worker.bench import Bench
from pytest_modelopt.measuring.worker.metrics.scorer import Batch
from pytest_modelopt.results.metric import MetricSpec

INPUTS = torch.randn(3000, 4, generator=torch.Generator().manual_seed(0))


def numbers(size: int, first: float, last: float) -> list[int]:
    found: list[int] = []
    for start in range(0, len(INPUTS), size):
        rows = torch.arange(start, min(start + size, len(INPUTS)))
        for batch, numbered in drawn([Batch(INPUTS[rows], rows, start)], first, last):
            assert isinstance(batch.targets, torch.Tensor)
            assert batch.targets.tolist() == numbered
            assert torch.equal(batch.inputs, INPUTS[batch.targets])
            found += numbered
    return found


def test_looks_are_disjoint_random_and_the_same_in_all_batches() -> None:
    parts = [numbers(64, *ends) for ends in ((0, 1 / 32), (1 / 32, 1 / 16), (1 / 16, 1 / 8), (1 / 8, 1))]
    assert sorted(number for part in parts for number in part) == list(range(3000))
    assert parts[0] == numbers(7, 0, 1 / 32)
    first = [number for part in parts[:3] for number in part]
    assert 300 < len(first) < 450  # 375 are expected, with a deviation of 18
    assert 150 < sum(number < 1500 for number in first) < 240


def test_of_batches_that_cannot_be_cut_none_is_drawn() -> None:
    with pytest.raises(NotDrawn):
        list(drawn([Batch(INPUTS[:5], None, stated=5)], 0, 1))


SOURCE = """
import torch
from torch import nn

def model():
    torch.manual_seed(0)
    return nn.Linear(4, 2).eval()

def data():
    return torch.randn(500, 4, generator=torch.Generator().manual_seed(0)), torch.arange(500) % 2

def inputs():
    return data()[0]
"""


@pytest.mark.parametrize(("metric", "data"), [("accuracy", "data"), ("agreement", "inputs"), ("sqnr", "inputs")])
def test_the_answers_are_those_of_the_whole_pass(
    metric: str, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "looks_user.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    bench = Bench(
        Variant(
            model="looks_user:model",
            recipe=None,
            data=f"looks_user:{data}",
            calibration=None,
            example_inputs=None,
            metric=MetricSpec(metric),
            import_paths=(str(tmp_path),),
            working_directory=str(tmp_path),
        )
    )
    bench.load(examples=bench.read(str(tmp_path / "examples")))
    looks = [bench.look(first, last) for first, last in ((0.0, 0.1), (0.1, 0.3), (0.3, 0.3))]
    whole = bench.score()
    if metric == "sqnr":
        assert looks == [None, None, looks[2]]
        return
    assert whole.predictions is not None
    assert whole.correct is not None
    for look in looks:
        assert look is not None
        assert list(look.predictions) == [whole.predictions[number] for number in look.numbers]
        assert list(look.correct) == [whole.correct[number] for number in look.numbers]
    counts = [len(look.numbers) for look in looks if look is not None]
    assert 25 < counts[0] < 75
    assert 65 < counts[1] < 140
    assert counts[2] == 0
