"""Every form of data that users have, and one clear message for each mistake in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from pytest_modelopt.measuring.protocol import VariantError
from pytest_modelopt.measuring.worker.data import batches
from pytest_modelopt.measuring.worker.metrics.scorer import Batch
from pytest_modelopt.optimizing.modules.nested_values import tensors

INPUTS = torch.arange(300.0).reshape(100, 3)
TARGETS = torch.arange(100) % 3
WORDS = [f"word {index}" for index in range(100)]


class Stream(IterableDataset[tuple[torch.Tensor, torch.Tensor]]):
    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return iter(zip(INPUTS, TARGETS, strict=True))


class Rows(Dataset[Any]):
    """The examples that are given, whatever they are."""

    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.rows[index]


def read(data: Any, *, needs_targets: bool = True) -> list[Batch]:
    found = list(batches.batches(data, needs_targets=needs_targets))
    starts = [batch.first for batch in found]
    assert starts == [sum(batch.examples for batch in found[:n]) for n in range(len(found))]
    return found


def refused(data: Any, message: str, *, needs_targets: bool = True) -> None:
    with pytest.raises(VariantError, match=re.escape(message)):
        read(data, needs_targets=needs_targets)


FORMS: dict[str, Callable[[], Any]] = {
    "a tuple of tensors": lambda: (INPUTS, TARGETS),
    "a list of tensors": lambda: [INPUTS, TARGETS],
    "numpy arrays": lambda: (INPUTS.numpy(), TARGETS.numpy()),
    "targets in a list of numbers": lambda: (INPUTS, TARGETS.tolist()),
    "targets in a list of numbers of numpy": lambda: (INPUTS, list(TARGETS.numpy())),
    "targets in a list of tensors of one number": lambda: (INPUTS, list(TARGETS)),
    "a Dataset": lambda: TensorDataset(INPUTS, TARGETS),
    "a Dataset of numbers": lambda: Rows(list(zip(INPUTS, TARGETS.tolist(), strict=True))),
    "an IterableDataset": lambda: Stream(),
    "a DataLoader": lambda: DataLoader(TensorDataset(INPUTS, TARGETS), batch_size=7),
    "a list of batches": lambda: [(INPUTS[:40], TARGETS[:40]), (INPUTS[40:], TARGETS[40:])],
    "a list of two batches of lists": lambda: [[INPUTS[:1], TARGETS[:1]], [INPUTS[1:], TARGETS[1:]]],
    "a tuple of two batches": lambda: ((INPUTS[:40], TARGETS[:40]), (INPUTS[40:], TARGETS[40:])),
    "a generator": lambda: ((INPUTS[i : i + 9], TARGETS[i : i + 9]) for i in range(0, 100, 9)),
    "with an empty batch": lambda: [(INPUTS[:0], TARGETS[:0]), (INPUTS, TARGETS)],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_data_gives_the_same_examples_in_the_same_order(form: str) -> None:
    inputs, targets = [], []
    for batch in read(FORMS[form]()):
        assert isinstance(batch.inputs, torch.Tensor)
        assert isinstance(batch.targets, torch.Tensor)
        assert batch.slices is None
        inputs.append(batch.inputs)
        targets.append(batch.targets)
    assert torch.equal(torch.cat(inputs), INPUTS)
    assert torch.equal(torch.cat(targets), TARGETS)


TEXT: dict[str, Callable[[], Any]] = {
    "a tuple": lambda: (INPUTS, WORDS),
    "a list": lambda: [INPUTS, WORDS],
    "a tuple of numpy": lambda: (INPUTS.numpy(), numpy.array(WORDS)),
    "dict inputs": lambda: ({"x": INPUTS}, WORDS),
    "several inputs": lambda: ((INPUTS, INPUTS + 1), WORDS),
    "a dict with labels": lambda: {"x": INPUTS, "labels": WORDS},
    "a Dataset": lambda: Rows(list(zip(INPUTS, WORDS, strict=True))),
    "a Dataset of dicts": lambda: Rows([{"x": x, "labels": w} for x, w in zip(INPUTS, WORDS, strict=True)]),
    "a DataLoader": lambda: DataLoader(Rows(list(zip(INPUTS, WORDS, strict=True))), batch_size=9),
    "batches": lambda: [(INPUTS[:50], WORDS[:50]), (INPUTS[50:], tuple(WORDS[50:]))],
}


@pytest.mark.parametrize("form", TEXT)
def test_targets_may_be_text(form: str) -> None:
    found = read(TEXT[form]())
    words: list[str] = []
    for batch in found:
        assert isinstance(batch.targets, list)
        assert {type(word) for word in batch.targets} == {str}
        words += batch.targets
    assert words == WORDS
    assert torch.equal(torch.cat([tensors(batch.inputs)[0] for batch in found]), INPUTS)


def test_targets_may_have_a_length_of_their_own_each() -> None:
    tokens = [torch.arange(index % 5 + 1) for index in range(100)]
    for data in ((INPUTS, tokens), Rows(list(zip(INPUTS, tokens, strict=True)))):
        seen = [target for batch in read(data) for target in batch.targets or []]
        assert all(torch.equal(a, b) for a, b in zip(seen, tokens, strict=True))


def test_targets_of_one_length_are_one_tensor_as_torch_makes_it() -> None:
    boxes = torch.arange(400.0).reshape(100, 4)
    found = read(Rows(list(zip(INPUTS, boxes, strict=True))))
    assert torch.equal(torch.cat([batch.targets for batch in found if isinstance(batch.targets, torch.Tensor)]), boxes)


def test_targets_may_be_dicts_as_detection_has_them() -> None:
    boxes = [
        {"boxes": torch.ones(index % 3, 4), "labels": torch.zeros(index % 3, dtype=torch.long)} for index in range(100)
    ]
    for data in ((INPUTS, boxes), Rows(list(zip(INPUTS, boxes, strict=True)))):
        found = [target for batch in read(data) for target in batch.targets or []]
        assert [len(target["boxes"]) for target in found] == [index % 3 for index in range(100)]


UNLABELLED: dict[str, Callable[[], Any]] = {
    "a tensor": lambda: INPUTS,
    "a tuple of one": lambda: (INPUTS,),
    "an array": lambda: INPUTS.numpy(),
    "a dict": lambda: {"x": INPUTS},
    "several inputs": lambda: ((INPUTS, INPUTS + 1),),
    "a pair": lambda: (INPUTS, TARGETS),
    "a Dataset of inputs": lambda: Rows(list(INPUTS)),
    "a TensorDataset": lambda: TensorDataset(INPUTS),
    "a Dataset of dicts": lambda: Rows([{"x": x} for x in INPUTS]),
    "a DataLoader": lambda: DataLoader(TensorDataset(INPUTS), batch_size=7),
    "a list of batches": lambda: [INPUTS[:40], INPUTS[40:60], INPUTS[60:]],
    "a list of two batches": lambda: [(INPUTS[:40],), (INPUTS[40:],)],
    "a list of dicts": lambda: [{"x": INPUTS[:40]}, {"x": INPUTS[40:]}],
    "a generator": lambda: (INPUTS[i : i + 9] for i in range(0, 100, 9)),
}


@pytest.mark.parametrize("form", UNLABELLED)
def test_a_metric_without_targets_takes_data_without_them(form: str) -> None:
    found = read(UNLABELLED[form](), needs_targets=False)
    assert torch.equal(torch.cat([tensors(batch.inputs)[0] for batch in found]), INPUTS)
    assert all((batch.targets is None) == (form != "a pair") for batch in found)


@pytest.mark.parametrize("form", sorted(UNLABELLED.keys() - {"a pair", "several inputs"}))
def test_any_other_metric_refuses_data_without_targets(form: str) -> None:
    with pytest.raises(VariantError, match=r"targets|each batch must be \(inputs, targets\)"):
        read(UNLABELLED[form]())


def test_two_tensors_of_one_kind_in_a_list_are_not_guessed_at() -> None:
    message = "the data is a list of two tensors of one kind: (inputs, targets), or two batches of inputs?"
    refused([INPUTS, INPUTS + 1], message, needs_targets=False)
    assert len(read([INPUTS, INPUTS + 1])) == 2, "with a metric that needs targets they can only be (inputs, targets)"


SINGLE = (
    "(inputs, one target), which is a single example and no batch: give all examples at once, (torch.stack(inputs), "
    "torch.tensor(targets)), or a Dataset or DataLoader of them"
)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "the data is empty, so there is no example to measure on: give at least one"),
        ((INPUTS[:0], TARGETS[:0]), "the data is empty"),
        ((INPUTS[:0], []), "the data is empty"),
        (TensorDataset(INPUTS[:0], TARGETS[:0]), "the data is empty"),
        ([(INPUTS[:0], TARGETS[:0])], "the data is empty"),
        ((INPUTS, TARGETS[:99]), "the data has 100 inputs but 99 targets"),
        ((INPUTS, WORDS[:99]), "the data has 100 inputs but 99 targets"),
        ([(INPUTS, TARGETS), (INPUTS, TARGETS[:1])], "the data has 100 inputs but 1 targets (batch 1)"),
        (INPUTS, "the data is one tensor; give (inputs, targets): without targets only `metric: agreement`"),
        ({"x": INPUTS}, "the data is a dict; give (inputs, targets) tensors, a Dataset"),
        (
            {"input_ids": INPUTS, "target": TARGETS},
            "; this dict holds `input_ids`, `target`, and no `labels`: put the targets into it under that name",
        ),
        ([{"x": INPUTS, "y": TARGETS}], "; this dict holds `x`, `y`, and no `labels`: put the targets into it"),
        ("digits", "the data is a str; give (inputs, targets)"),
        (None, "the data is a NoneType"),
        ([INPUTS[:5], INPUTS[:5], INPUTS[:5]], "batch 0 of the data is a Tensor; each batch must be (inputs, targets)"),
        ([(INPUTS, TARGETS, TARGETS)], "batch 0 of the data is a tuple of 3; each batch must be (inputs, targets)"),
        ([("a", TARGETS)], "the inputs of the data are a str; give a tensor"),
        ([(INPUTS[0], 3), (INPUTS[1], 5), (INPUTS[2], 4)], f"entry 0 of the data is {SINGLE}"),
        ([(INPUTS[0], torch.tensor(1)), (INPUTS[1], torch.tensor(1))], f"entry 0 of the data is {SINGLE}"),
        ([(INPUTS, TARGETS), (INPUTS, "b")], f"entry 1 of the data is {SINGLE}"),
        ([(INPUTS, {"boxes": INPUTS})], "the targets of the data are a dict, not a tensor or a list with one entry"),
        ([(torch.tensor(1.0), TARGETS)], "the inputs of the data are a single number, not one per example"),
        ((numpy.array(WORDS), TARGETS), "the inputs of the data are an array of <U7; give numbers"),
        ((INPUTS.to_sparse(), TARGETS), "the inputs of the data are a tensor in layout sparse_coo; give a dense one"),
        ((INPUTS[:2], ["a", object()]), "target 1 of batch 0 of the data is a object; give text, numbers, tensors"),
        ((INPUTS[:2], ["a", None]), "target 1 of batch 0 of the data is a NoneType; give text"),
        (
            [(INPUTS, TARGETS), ({"x": INPUTS}, TARGETS)],
            "batch 1 of the data holds inputs in a dict with targets in one tensor, and those before it inputs in one "
            "tensor with targets in one tensor: give all batches in one form",
        ),
        (
            [((INPUTS, INPUTS), TARGETS), ((INPUTS, INPUTS, INPUTS), TARGETS)],
            "batch 1 of the data holds inputs in a tu",
        ),
        ([(INPUTS, TARGETS), (INPUTS, WORDS)], "batch 1 of the data holds inputs in one tensor with targets in a list"),
        (
            Rows([(torch.zeros(index + 1), 0) for index in range(3)]),
            "3 examples of the data cannot be put into one batch: RuntimeError: stack expects each tensor to be equal",
        ),
    ],
)
def test_data_in_no_known_form_is_refused_in_words(data: Any, message: str) -> None:
    refused(data, message)


def test_a_batch_without_targets_among_others_is_refused() -> None:
    refused(
        [(INPUTS, TARGETS), (INPUTS,)], "batch 1 of the data holds inputs in one tensor without", needs_targets=False
    )


def test_inputs_of_different_lengths_need_somebody_who_says_how_many_examples_there_are() -> None:
    data = [((INPUTS, INPUTS[:5]),)]
    refused(data, "different first dimensions: [5, 100], and there are no targets", needs_targets=False)
    (batch,) = batches.batches(data, needs_targets=False, batch_of=5)
    assert (batch.examples, batch.is_cut) == (5, False)


def test_data_that_raises_in_the_middle_says_where() -> None:
    def broken() -> Iterator[Any]:
        yield INPUTS[:40], TARGETS[:40]
        yield INPUTS[40:70], TARGETS[40:70]
        raise OSError("disk is gone")

    refused(broken(), "the data raised OSError: disk is gone when batch 2 was asked for, after 70 examples")

    class Broken(Rows):
        def __getitem__(self, index: int) -> Any:
            return super().__getitem__(index) if index < 90 else 1 / 0

    rows = list(zip(INPUTS, TARGETS, strict=True))
    refused(Broken(rows), "the data raised ZeroDivisionError: division by zero when batch 1 was asked for, after 64")


def test_tensors_of_a_class_of_their_own_come_as_plain_ones() -> None:
    class Image(torch.Tensor):
        pass

    (batch,) = read([(INPUTS.as_subclass(Image), TARGETS)])
    assert type(batch.inputs) is torch.Tensor
    assert batch.inputs.data_ptr() == INPUTS.data_ptr()


def test_the_first_examples_span_batches_and_keep_their_form() -> None:
    given = [{"a": INPUTS[:3], "b": INPUTS[:3] + 1}, {"a": INPUTS[3:9], "b": INPUTS[3:9] + 1}]
    first, found = batches.first_examples([Batch(inputs, None) for inputs in given], 5, "data")
    assert found == 5
    assert isinstance(first, dict)
    assert torch.equal(first["a"], INPUTS[:5])
    assert torch.equal(first["b"], INPUTS[:5] + 1)
    pair, _ = batches.first_examples([Batch((INPUTS[:3], INPUTS[:3]), None)], 2, "data")
    assert isinstance(pair, tuple)
    assert [len(t) for t in pair] == [2, 2]


def test_a_batch_size_larger_than_the_data_is_refused() -> None:
    with pytest.raises(VariantError, match="`batch_size` is 101 but the data holds only 100 examples"):
        batches.first_examples([Batch(INPUTS, None)], 101, "data")


def test_inputs_of_different_shapes_cannot_be_one_call() -> None:
    with pytest.raises(VariantError, match="cannot be put into one batch of 2"):
        batches.first_examples([Batch(torch.zeros(1, 5), None), Batch(torch.zeros(1, 7), None)], 2, "data")


def test_sizes_vary_by_the_argument_and_not_by_its_place() -> None:
    first = {"tokens": torch.zeros(2, 9), "mask": torch.zeros(2, 9, 4)}
    again = {"mask": torch.zeros(3, 9, 4), "tokens": torch.zeros(3, 7)}
    assert batches.varying_dimensions([first, again]) == (frozenset({1}), frozenset())
    assert batches.varying_dimensions([]) == ()
    assert batches.varying_dimensions([torch.zeros(2, 3, 4), torch.zeros(5, 6, 4)]) == (frozenset({1}),)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            [{"a": torch.zeros(2, 3)}, {"a": torch.zeros(2, 3), "b": torch.zeros(2)}],
            "the batches hold different inputs",
        ),
        ([{"a": torch.zeros(2, 3)}, {"b": torch.zeros(2, 3)}], "the batches hold different inputs"),
        ([torch.zeros(2, 3), torch.zeros(2, 3, 1)], "an input has more dimensions in some batches"),
    ],
)
def test_batches_that_no_converted_model_takes_are_told(given: list[Any], told: str) -> None:
    with pytest.raises(VariantError, match=told):
        batches.varying_dimensions(given)
