"""A metric is given what the model returned, one entry for each example, whatever the batches were."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence
from transformers.utils import ModelOutput

from pytest_modelopt.measuring.protocol import VariantError
from pytest_modelopt.measuring.worker.calls.structure import own, tensors_in, texts_in
from pytest_modelopt.measuring.worker.metrics.entries import joined, pick
from pytest_modelopt.measuring.worker.metrics.functions import PerExample, WholeSet
from pytest_modelopt.measuring.worker.metrics.scored_outputs import Prepared
from tests.measuring.answering import answer

NAMES = ["cat", "dog", "cow", "hen"]
LOSS = "has not one entry for each example"


@dataclass
class Found(ModelOutput):
    logits: Any = None
    states: Any = None
    loss: Any = None


@dataclass(frozen=True)
class Boxes:
    boxes: Any
    names: Any
    version: int = 3


class Pair(NamedTuple):
    first: Any
    second: Any


# --- generated structures --------------------------------------------------------------------------------------------
#
# A maker gives the outputs of some examples, as a model gives them for a batch. The oracle takes an entry out of what a
# metric is given, by the same path, and compares it with what the maker says of that single example.

Make = Callable[[list[int]], Any]
Entry = Callable[[Any, int], Any]
"""(outputs, position) -> what they hold of one example, in a form that can be compared."""


def value(index: int, salt: int) -> float:
    return float((index * 7919 + salt * 104729) % 1009)


def leaf(dice: random.Random) -> tuple[Make, Entry]:
    salt = dice.randrange(1000)
    kind = dice.choice(["vector", "number", "ragged", "texts", "tensors", "dicts", "array", "nested"])
    if kind == "vector":
        return (
            lambda batch: torch.tensor([[value(i, salt), value(i, salt + 1)] for i in batch]),
            lambda given, at: given[at].tolist(),
        )
    if kind == "number":
        return lambda batch: torch.tensor([value(i, salt) for i in batch]), lambda given, at: float(given[at])
    if kind == "array":
        return lambda batch: numpy.array([value(i, salt) for i in batch]), lambda given, at: float(given[at])
    if kind == "texts":
        return lambda batch: [NAMES[(i * 3 + salt) % 4] for i in batch], lambda given, at: given[at]
    if kind == "ragged":  # padded to the longest of the batch, so a metric may see another padding in other batches
        return (
            lambda batch: torch.stack([padded(i, salt, max(length(i) for i in batch)) for i in batch]),
            lambda given, at: [number for number in given[at].tolist() if number],
        )
    rows: Make = lambda batch: [torch.full((length(i),), value(i, salt)) for i in batch]  # noqa: E731
    if kind == "tensors":
        return rows, lambda given, at: given[at].tolist()
    if kind == "nested":
        return lambda batch: torch.nested.nested_tensor(rows(batch), layout=torch.jagged), lambda given, at: given[
            at
        ].tolist()
    return (
        lambda batch: [{"boxes": box, "name": NAMES[i % 4]} for i, box in zip(batch, rows(batch), strict=True)],
        lambda given, at: (given[at]["boxes"].tolist(), given[at]["name"]),
    )


def length(index: int) -> int:
    return 1 + index * 5 % 7


def padded(index: int, salt: int, size: int) -> torch.Tensor:
    row = torch.zeros(size)
    row[: length(index)] = 1 + value(index, salt)
    return row


def structure(dice: random.Random, depth: int) -> tuple[Make, Entry]:
    if not depth or dice.random() < 0.2:
        return leaf(dice)
    names = ["logits", "states"]
    made = {name: structure(dice, depth - 1) for name in names}
    forms: list[tuple[Callable[..., Any], Callable[[Any, str], Any]]] = [
        (dict, lambda given, name: given[name]),
        (lambda parts: tuple(parts.values()), lambda given, name: given[names.index(name)]),
        (lambda parts: Found(**parts), getattr),
        (lambda parts: Boxes(*parts.values()), lambda given, name: (given.boxes, given.names)[names.index(name)]),
        (lambda parts: Pair(*parts.values()), lambda given, name: given[names.index(name)]),
        (lambda parts: SimpleNamespace(**parts), getattr),
    ]
    build, read = dice.choice(forms)
    return (
        lambda batch: build({name: make(batch) for name, (make, _) in made.items()}),
        lambda given, at: [entry(read(given, name), at) for name, (_, entry) in made.items()],
    )


@pytest.mark.parametrize("seed", range(150))
def test_entries_are_the_examples_in_order_whatever_the_batches_are(seed: int) -> None:
    dice = random.Random(seed)
    make, entry = structure(dice, dice.randrange(4))
    count = dice.randrange(5, 30)
    expected = [entry(make([index]), 0) for index in range(count)]
    for size in (1, 2, 3, 7, count):
        batches = [list(range(first, min(first + size, count))) for first in range(0, count, size)]
        given = joined([make(batch) for batch in batches], [len(batch) for batch in batches])
        assert [entry(given, at) for at in range(count)] == expected
        some = [count - 1, 0, 3]
        assert [entry(pick(given, some), at) for at in range(3)] == [expected[index] for index in some]
        seen: list[Any] = []
        model = Answering(lambda index: make(index.tolist()))

        def metric(outputs: Any, targets: Any, seen: list[Any] = seen) -> float:
            seen[:] = [[entry(outputs, at) for at in range(count)], targets]
            return 0.5

        answer(model, list("ab" * 20)[:count], WholeSet(metric, "m:f", is_prepared=False), size=size, examples=count)
        assert seen == [expected, list("ab" * 20)[:count]]


class Answering(nn.Module):
    """A model that answers with a function of the indices of the batch."""

    def __init__(self, function: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, index: torch.Tensor) -> Any:
        return self.function(index)


def scored(function: Callable[[torch.Tensor], Any], metric: Any, *, size: int = 4, targets: Any = None) -> float:
    targets = torch.arange(10) if targets is None else targets
    found = answer(Answering(function), targets, WholeSet(metric, "m:f", is_prepared=False), size=size, examples=10)
    assert found.score is not None
    return found.score


def exact(outputs: Any, targets: Any) -> Any:
    return sum(one == other for one, other in zip(outputs, targets, strict=True)) / len(targets)


@pytest.mark.parametrize("size", [1, 3, 10])
def test_texts_stand_beside_texts(size: int) -> None:
    texts = [NAMES[index % 4] for index in range(10)]
    assert scored(lambda index: [texts[i] for i in index], exact, size=size, targets=texts) == 1.0
    assert scored(lambda index: tuple(texts[i] for i in index), exact, size=size, targets=texts) == 1.0


def test_a_packed_sequence_is_a_list_of_sequences() -> None:
    def packed(index: torch.Tensor) -> Any:
        return pack_sequence([torch.full((length(int(i)),), float(i)) for i in index], enforce_sorted=False)

    assert scored(packed, lambda o, t: exact([float(each[0]) for each in o], t.tolist())) == 1.0


# --- counts that do not fit ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (lambda x: ["cat"] * (len(x) - 1), "the model returned 3 entries (list of str) for 4 examples: a metric is"),
        (lambda x: tuple("cat" for _ in x[1:]), "the model returned 3 entries (tuple of str) for 4 examples"),
        (lambda x: x.float()[:3], "the model returned a tensor of shape (3,) for 4 examples"),
        (lambda x: torch.zeros(7, len(x), 2), "the model returned a tensor of shape (7, 4, 2) for 4 examples"),
        (lambda x: x.float().mean(), "the model returned a tensor of shape () for 4 examples"),
        (lambda x: "cat", "the model returned a str for 4 examples"),
        (lambda x: {"scores": torch.zeros(3, 2)}, "a dict with scores: a tensor of shape (3, 2) for 4 examples"),
        (lambda x: {f"{i}": torch.zeros(1) for i in x.tolist()}, "the model returned a dict with 0: a tensor of"),
    ],
)
def test_a_count_that_does_not_fit_is_told_with_both_counts(function: Any, told: str) -> None:
    with pytest.raises(VariantError, match=re.escape(told)):
        scored(function, lambda outputs, targets: 1.0)


def test_a_batch_that_does_not_fit_is_told_at_once() -> None:
    calls = []

    def short(index: torch.Tensor) -> Any:
        calls.append(len(index))
        return ["cat"] * 3

    with pytest.raises(VariantError, match="3 entries"):
        scored(short, exact)
    assert calls == [4]


def test_of_batches_of_several_forms_the_one_that_differs_is_told() -> None:
    def words(index: torch.Tensor) -> Any:
        texts = [NAMES[i % 4] for i in index]
        return texts[0] if len(texts) == 1 else texts

    told = (
        "3 entries (list of str) for the 3 examples of batch 1 and a str for the 1 example of batch 4, which cannot be "
        "joined"
    )
    with pytest.raises(VariantError, match=re.escape(f"the model returned {told}: a metric is given")):
        scored(words, exact, size=3)
    with pytest.raises(VariantError, match=re.escape(f"for each example: {told}")):
        scored(lambda x: {"scores": x, "texts": words(x)}, lambda o, t: exact(o["texts"], t), size=3)


# --- parts of some batches only --------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [dict, SimpleNamespace, lambda **parts: Found(**parts)])
def test_parts_that_all_batches_have_are_joined(build: Any) -> None:
    def model(index: torch.Tensor) -> Any:
        return build(logits=index.float(), **({"states": index} if 4 in index else {}))

    def of(outputs: Any, name: str) -> Any:
        return outputs[name] if isinstance(outputs, dict) else getattr(outputs, name)

    assert scored(model, lambda o, t: exact(of(o, "logits").tolist(), t.tolist())) == 1.0
    if build in (dict, SimpleNamespace):
        told = "a metric uses the part 'states' of what the model returned, and batches 1, 3 lack it"
        with pytest.raises(VariantError, match=re.escape(told)):
            scored(model, lambda o, t: exact(of(o, "states"), t))
        with pytest.raises(VariantError, match="batches 1, 2, 4 and 1 more lack it"):
            scored(model, lambda o, t: exact(of(o, "states"), t), size=2)


# --- lists of tensors with a row for each example --------------------------------------------------------------------


def heads(index: torch.Tensor) -> list[torch.Tensor]:
    return [index[:, None].float(), index[:, None] * 2.0]


@pytest.mark.parametrize("size", [3, 4, 10])
def test_a_list_of_heads_holds_all_examples_in_each(size: int) -> None:
    assert scored(heads, lambda o, t: float(len(o) == 2 and exact(o[0][:, 0].tolist(), t.tolist())), size=size) == 1.0


@pytest.mark.parametrize("size", [4, 9])
def test_one_batch_that_may_be_read_in_two_ways_is_read_as_the_others(size: int) -> None:
    def model(index: torch.Tensor) -> Any:  # the last batch has two examples, or one, and as many heads
        return heads(index)[: 2 if size == 4 else 1]

    assert scored(model, lambda o, t: exact(o[0][:, 0].tolist(), t.tolist()), size=size) == 1.0


@pytest.mark.parametrize("form", [lambda found: found, lambda found: {"scores": torch.zeros(2), "heads": found}])
def test_what_may_be_read_in_two_ways_in_all_batches_is_not_guessed(form: Any) -> None:
    told = (
        "2 entries (list of Tensor) for 2 examples, and each of them is a tensor with 2 rows, and so on in all "
        "batches: that may be one entry for each example, or parts with one row for each; return a tuple of parts"
    )
    with pytest.raises(VariantError, match=re.escape(told)):
        scored(lambda x: form(heads(x)), lambda o, t: float(len(o if isinstance(o, list) else o["heads"])), size=2)
    assert scored(lambda x: tuple(heads(x)), lambda o, t: exact(o[0][:, 0].tolist(), t.tolist()), size=2) == 1.0


def test_what_prepare_makes_has_as_many_predictions_as_targets() -> None:
    def kept(outputs: torch.Tensor, targets: torch.Tensor) -> Any:
        return outputs[targets > 2].tolist(), targets[targets > 2].tolist()

    def short(outputs: torch.Tensor, targets: torch.Tensor) -> Any:
        return outputs[1:], targets

    table = torch.arange(10)
    assert answer(table, table, Prepared(WholeSet(exact, "m:f", is_prepared=True), kept, "m:p"), size=4).score == 1.0
    with pytest.raises(VariantError, match=re.escape("`prepare` returned a tensor of shape (3,) for 4 examples")):
        answer(table, table, Prepared(WholeSet(exact, "m:f", is_prepared=True), short, "m:p"), size=4)


# --- parts that are of no example ------------------------------------------------------------------------------------


def with_loss(index: torch.Tensor) -> Found:
    return Found(logits=index.float(), loss=index.float().mean(), states=torch.zeros(5, 5))


def test_a_loss_or_a_mask_beside_the_scores_is_in_nobodys_way() -> None:
    assert scored(with_loss, lambda o, t: exact(o.logits.tolist(), t.tolist())) == 1.0
    assert scored(with_loss, lambda o, t: exact(o["logits"].tolist(), t.tolist())) == 1.0
    assert scored(lambda x: (x, "v1", None), lambda o, t: float(o[1:] == ("v1", None))) == 1.0


@pytest.mark.parametrize(
    "use",
    [
        lambda loss, targets: float(loss),
        lambda loss, targets: len(loss),
        lambda loss, targets: exact(loss, targets),
        lambda loss, targets: loss == targets,
        lambda loss, targets: loss.mean(),
        lambda loss, targets: 1 - loss,
        lambda loss, targets: torch.stack([loss]),
        lambda loss, targets: torch.exp(loss),
        lambda loss, targets: numpy.asarray(loss, dtype=float).mean(),
        lambda loss, targets: torch.zeros(10) + loss,
        lambda loss, targets: loss[0],
    ],
)
def test_who_uses_such_a_part_is_told(use: Any) -> None:
    with pytest.raises(VariantError, match=LOSS):
        scored(with_loss, lambda outputs, targets: use(outputs.loss, targets))


# --- numbers that are no answers -------------------------------------------------------------------------------------


def wrong_in(part: str, number: float, index: torch.Tensor) -> dict[str, torch.Tensor]:
    parts = {"scores": index.float(), "other": index.float() + 1}
    parts[part] = parts[part].masked_fill(index == 6, number)
    return parts


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", ["whole", "single", "prepared"])
def test_only_what_a_function_uses_must_hold_answers(number: float, kind: str) -> None:
    def use(outputs: Any, targets: Any) -> Any:
        right = (outputs["scores"] == targets).double()
        return (outputs["scores"], targets) if kind == "prepared" else right if kind == "single" else right.mean()

    def scorer() -> Any:
        if kind == "prepared":
            return Prepared(WholeSet(lambda o, t: (o == t).double().mean(), "m:f", is_prepared=True), use, "m:p")
        return PerExample(use, "m:f") if kind == "single" else WholeSet(use, "m:f", is_prepared=False)

    fine = Answering(lambda index: wrong_in("other", number, index))
    assert answer(fine, torch.arange(10), scorer(), size=4, examples=10).score == 1.0
    with pytest.raises(VariantError, match="outputs are not finite: 1 values are NaN or infinite, first in example 6"):
        answer(
            Answering(lambda index: wrong_in("scores", number, index)), torch.arange(10), scorer(), size=4, examples=10
        )


def test_entries_of_a_list_must_hold_answers_and_may_be_minus_infinite() -> None:
    def lists(number: float) -> Any:
        return lambda index: [torch.tensor([number if i == 6 else 1.0]) for i in index.tolist()]

    assert scored(lists(-float("inf")), lambda o, t: float(len(o) == 10)) == 1.0
    with pytest.raises(VariantError, match="first in example 6"):
        scored(lists(float("nan")), lambda o, t: 1.0)


@pytest.mark.parametrize("build", [dict, list, tuple, "found", "boxes", "pair", "space"])
def test_a_copy_to_keep_shares_nothing_with_a_model_that_writes_into_it_again(build: Any) -> None:
    buffer, texts = torch.zeros(3), ["cat"]
    held: Any = {
        dict: {"a": buffer, "b": [texts]},
        list: [buffer, [texts]],
        tuple: (buffer, [texts]),
        "found": Found(logits=buffer, states=[texts]),
        "boxes": Boxes(buffer, [texts]),
        "pair": Pair(buffer, [texts]),
        "space": SimpleNamespace(a=buffer, b=[texts]),
    }[build]
    kept = own(held)
    assert type(kept) is type(held)
    buffer.fill_(1.0)
    texts.append("dog")
    assert [tensor.tolist() for tensor in tensors_in(kept)] == [[0.0] * 3]
    assert list(texts_in(kept)) == ["cat"]
    assert list(texts_in(held)) == ["cat", "dog"]
