"""Nests of tensors, texts, numbers and None: copied, walked, cut and hashed alike, whatever is in what."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import OrderedDict, UserDict, namedtuple
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import pytest
import torch

from pytest_modelopt.measuring.worker.data.batches import inputs_of
from pytest_modelopt.measuring.worker.data.hashing import described, hashes_of_inputs
from pytest_modelopt.measuring.worker.metrics.scorer import Batch
from pytest_modelopt.optimizing.calling import fresh
from pytest_modelopt.optimizing.modules import nested_values

Point = namedtuple("Point", "x y")


@dataclass
class Record:
    name: Any
    value: Any


@dataclass(frozen=True)
class Frozen:
    value: Any


class Plain:
    def __init__(self, value: Any) -> None:
        self.value = value


def nest(drawn: random.Random, depth: int = 3) -> Any:
    """A random nest."""
    if depth == 0 or drawn.random() < 0.3:
        shape = [drawn.randint(0, 3) for _ in range(drawn.randint(0, 2))]
        leaves = (torch.full(shape, drawn.random()), "a text", b"bytes", None, True, drawn.randint(-9, 9), 0.5, "")
        return drawn.choice(leaves)
    parts = [nest(drawn, depth - 1) for _ in range(drawn.randint(0, 3))]
    named = {f"k{number}": part for number, part in enumerate(parts)}
    one, other = nest(drawn, depth - 1), nest(drawn, depth - 1)
    containers = (parts, tuple(parts), named, OrderedDict(named), UserDict(named))
    return drawn.choice((*containers, Point(one, other), Record(one, other), Frozen(one), Plain(one)))


def flat(value: Any) -> list[Any]:
    """The leaves, by a walk of its own: an oracle."""
    if isinstance(value, (UserDict, dict)):
        return [leaf for part in value.values() for leaf in flat(part)]
    if isinstance(value, (list, tuple)):
        return [leaf for part in value for leaf in flat(part)]
    if is_dataclass(value):
        return [leaf for field in fields(value) for leaf in flat(getattr(value, field.name))]
    return flat(value.value) if isinstance(value, Plain) else [value]


def same(one: Any, other: Any) -> bool:
    """The same structure with the same leaves, by another walk."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
    if isinstance(one, (UserDict, dict)):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return same(vars(one), vars(other)) if hasattr(one, "__dict__") else bool(one == other)


@pytest.mark.parametrize("seed", range(40))
def test_a_nest_is_walked_copied_and_hashed_as_by_hand(seed: int) -> None:
    drawn = random.Random(seed)
    value = nest(drawn)
    leaves, expected = list(nested_values.leaves(value)), flat(value)
    assert all(map(same, leaves, expected)), (leaves, expected)
    assert len(leaves) == len(expected)
    copied, checked = fresh(value), inputs_of([value], "inputs")
    assert same(copied, value)
    assert same(checked, [value])
    assert described(copied) == described(value)
    assert all(a is not b for a, b in zip(nested_values.tensors(copied), nested_values.tensors(value), strict=True))
    larger = nested_values.mapped(value, lambda leaf: leaf + 1 if isinstance(leaf, torch.Tensor) else leaf)
    changed = any(tensor.numel() for tensor in nested_values.tensors(value))
    assert [t.shape for t in nested_values.tensors(larger)] == [t.shape for t in nested_values.tensors(value)]
    assert same(larger, value) == (not changed)
    assert (described(larger) == described(value)) == (not changed)
    assert same(copied, value), "what was mapped is another one"


def test_different_nests_have_different_hashes() -> None:
    one = torch.zeros(2)
    different: list[Any] = [
        [],
        (),
        {},
        None,
        "",
        b"",
        0,
        False,
        0.0,
        [[]],
        [None],
        ["a", "b"],
        ["ab"],
        {"a": "b"},
        {"b": "a"},
    ]
    different += [one, [one], (one,), {"x": one}, Record(one, None), Record(None, one), Frozen(one), "0", b"0", [0, 1]]
    assert len({described(value) for value in different}) == len(different)
    assert described({"a": 1, "b": 2}) == described({"b": 2, "a": 1})


def test_hashes_are_the_same_in_another_process() -> None:
    code = (
        "import torch, json, dataclasses\n"
        "from pytest_modelopt.measuring.worker.data.hashing import described\n"
        "value = {'t': torch.arange(3.0), 's': ['a', None, b'x', 1.5], 'n': {'k': (True, 2)}}\n"
        "print(json.dumps(described(value).hex()))"
    )
    paths = ":".join(filter(None, sys.path))
    settings = {"PYTHONHASHSEED": "1", "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, env=settings)
    value = {"t": torch.arange(3.0), "s": ["a", None, b"x", 1.5], "n": {"k": (True, 2)}}
    assert json.loads(done.stdout) == described(value).hex()


@pytest.mark.parametrize(
    ("batch", "sizes"),
    [
        (torch.zeros(4, 2), {4}),
        ([torch.zeros(1), torch.zeros(2)], {2}),
        ({"x": torch.zeros(4), "names": ["a"] * 4, "none": None, "longest": 7, "word": "all"}, {4}),
        ((torch.zeros(9), torch.zeros(4)), {9, 4}),
        (Record(torch.zeros(4), (torch.zeros(4, 1), ["a"] * 4)), {4}),
        ({"x": torch.zeros(4), "temperature": torch.tensor(0.5)}, {4, 0}),
        (("a", None), set()),
    ],
)
def test_what_says_how_many_examples_a_batch_has(batch: Any, sizes: set[int]) -> None:
    assert nested_values.sizes(batch) == sizes


def test_a_batch_is_cut_and_joined_again() -> None:
    batch = {"x": torch.arange(8.0).reshape(4, 2), "r": Record(["a", "b", "c", "d"], (torch.arange(4), None)), "k": 7}
    parts = [nested_values.cut(batch, slice(start, start + 2)) for start in (0, 2)]
    assert parts[1]["r"].name == ["c", "d"]
    assert parts[1]["k"] == 7
    assert same(nested_values.joined(parts), batch)
    assert nested_values.cut(batch, 3)["r"].name == "d"
    assert hashes_of_inputs(Batch(batch, None)) == [
        digest for part in parts for digest in hashes_of_inputs(Batch(part, None))
    ]
    with pytest.raises(ValueError, match="belongs to some of them"):
        nested_values.joined([parts[0], {**parts[1], "k": 8}])
