"""Parts of the data: disjoint, together all of it, and the same whatever its order; the call's inputs are of all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pytest_modelopt.measuring.variant import DataPart, Variant
from pytest_modelopt.measuring.worker.bench import Bench
from pytest_modelopt.measuring.worker.data.batches import NoExamples
from pytest_modelopt.measuring.worker.data.parts import of_part
from pytest_modelopt.measuring.worker.metrics.scorer import Batch
from pytest_modelopt.results.metric import MetricSpec

INPUTS = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
BOTH = [DataPart(0, 2, 1), DataPart(1, 2, 1)]


def batches(order: torch.Tensor, size: int = 32) -> Iterator[Batch]:
    for first in range(0, len(order), size):
        rows = order[first : first + size]
        yield Batch({"x": INPUTS[rows], "names": [f"n{row}" for row in rows.tolist()]}, rows, first)


def taken(part: DataPart, order: torch.Tensor) -> list[int]:
    found: list[int] = []
    for batch in of_part(batches(order), part):
        assert isinstance(batch.targets, torch.Tensor)
        assert batch.first == len(found)
        assert torch.equal(batch.inputs["x"], INPUTS[batch.targets])
        assert batch.inputs["names"] == [f"n{row}" for row in batch.targets.tolist()]
        found += batch.targets.tolist()
    return found


def test_parts_are_disjoint_and_together_all_whatever_the_order() -> None:
    straight, back = torch.arange(300), torch.arange(300).flip(0)
    one, other = (taken(part, straight) for part in BOTH)
    assert sorted(one + other) == list(range(300))
    assert one == sorted(one)
    assert 100 < len(one) < 200
    assert sorted(taken(BOTH[0], back)) == one
    assert taken(DataPart(0, 2, 2), straight) != one  # another seed draws others


def test_examples_with_the_same_inputs_stay_in_one_part() -> None:
    """Else an example that chose would confirm the choice, too."""
    twice = torch.cat([torch.arange(300), torch.arange(300)])
    for part in BOTH:
        found = taken(part, twice)
        assert sorted(found) == sorted(2 * sorted(set(found)))


def test_a_batch_that_cannot_be_cut_stays_whole() -> None:
    whole = [Batch(INPUTS[:5], None, stated=5), Batch(INPUTS[5:8], None, 5, stated=3)]
    counts = [sum(batch.examples for batch in _any(whole, part)) for part in BOTH]
    assert sum(counts) == 8
    assert set(counts) <= {0, 3, 5, 8}


def _any(whole: list[Batch], part: DataPart) -> list[Batch]:
    try:
        return list(of_part(whole, part))
    except NoExamples:
        return []


def test_an_empty_part_is_told() -> None:
    with pytest.raises(NoExamples, match="part 1 of 2 of the data is empty: there are too few examples"):
        list(of_part([], BOTH[0]))


SOURCE = """
import torch
from torch import nn

def model():
    torch.manual_seed(0)
    return nn.Linear(4, 2).eval()

def data():
    return torch.randn(300, 4, generator=torch.Generator().manual_seed(0)), torch.arange(300) % 2
"""


def test_a_variant_is_scored_on_its_part_and_called_with_the_first_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "parts_user.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    found, fingerprints = [], set()
    for part in BOTH:
        bench = Bench(
            Variant(
                model="parts_user:model",
                recipe=None,
                data="parts_user:data",
                calibration=None,
                example_inputs=None,
                metric=MetricSpec("accuracy"),
                import_paths=(str(tmp_path),),
                working_directory=str(tmp_path),
                batch_size=3,
                part=part,
            )
        )
        examples = bench.read(str(tmp_path / f"examples-{part.index}"))
        bench.read_again(examples)
        bench.load(examples=examples)
        bench.save_inputs(str(tmp_path / "inputs.pt"))
        assert torch.equal(torch.load(tmp_path / "inputs.pt", weights_only=False), INPUTS[:3])
        answers = bench.score()
        assert answers.examples == examples.count == len(taken_of_inputs(part))
        found.append(answers.examples)
        fingerprints.add(answers.data_fingerprint)
    assert sum(found) == 300
    assert len(fingerprints) == 2


def taken_of_inputs(part: DataPart) -> list[Batch]:
    """The part of the inputs alone, one batch for each example."""
    return list(of_part([Batch(INPUTS[row : row + 1], None, row) for row in range(300)], part))
