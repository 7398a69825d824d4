"""A model that knows its inputs again does its work in every timed call, whatever it knows them by."""

from __future__ import annotations

import functools
import json
import weakref
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pytest_modelopt.measuring.worker.calls.given_inputs import Given, TimedCall
from pytest_modelopt.measuring.worker.calls.latency import Stopwatch, host_clock
from pytest_modelopt.measuring.worker.calls.remembered_inputs import knows_content, remembers
from pytest_modelopt.optimizing.calling import Inputs, call_on, places_of_calls


@pytest.fixture(autouse=True)
def no_calls_of_other_tests() -> None:
    places_of_calls.clear()


class Working(nn.Module):
    """Counts the calls that do the work."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
        self.calls = self.worked = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.answer(x)

    def answer(self, x: Tensor) -> Tensor:
        return self.work(x)

    def work(self, x: Tensor) -> Tensor:
        self.worked += 1
        return cast("Tensor", self.layers(x))


class ByKey(Working):
    """Answers from a table. `entries`: how many it has room for."""

    def __init__(self, key: Callable[[Tensor], Hashable], entries: int) -> None:
        super().__init__()
        self.key, self.entries = key, entries
        self.table: dict[Hashable, Tensor] = {}

    def answer(self, x: Tensor) -> Tensor:
        key = self.key(x)
        if key not in self.table:
            while len(self.table) >= self.entries:
                self.table.pop(next(iter(self.table)))
            self.table[key] = self.work(x)
        return self.table[key]


class ByWeakref(Working):
    last: Callable[[], Tensor | None] = staticmethod(lambda: None)
    output: Tensor

    def answer(self, x: Tensor) -> Tensor:
        if self.last() is not x:
            self.last, self.output = weakref.ref(x), self.work(x)
        return self.output


class ByAlias(Working):
    def __init__(self, alias: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.alias = alias
        self.state: dict[str, Tensor] = {}

    def answer(self, x: Tensor) -> Tensor:
        if "last" not in self.state or self.state["last"].data_ptr() != x.data_ptr():
            self.state = {"last": self.alias(x), "output": self.work(x)}
        return self.state["output"]


class ByLruCache(Working):
    def __init__(self) -> None:
        super().__init__()
        self.cached = functools.lru_cache(maxsize=8)(self.work)

    def answer(self, x: Tensor) -> Tensor:
        return self.cached(x)


KEYS: dict[str, Callable[[Tensor], Hashable]] = {
    "id": id,
    "hash of the tensor": hash,
    "address": lambda x: x.data_ptr(),
    "hash of the address": lambda x: hash((x.data_ptr(), x.shape)),
    "address as text": lambda x: f"{x.data_ptr():x}",
}
NOTICED: dict[str, Callable[[], Working]] = {
    "weakref": ByWeakref,
    "detach": lambda: ByAlias(lambda x: x.detach()),
    "view": lambda: ByAlias(lambda x: x[:1]),
    "data": lambda: ByAlias(lambda x: x.data),
    "from numpy": lambda: ByAlias(lambda x: torch.from_numpy(x.numpy())),
    "lru_cache": ByLruCache,
}
KINDS: dict[str, Callable[[Tensor], Inputs]] = {
    "tensor": lambda x: x,
    "tuple": lambda x: (x,),
    "dict": lambda x: {"x": x},
}
ways = st.one_of(
    st.sampled_from(sorted(NOTICED)).map(lambda name: (name, 0)),
    st.tuples(st.sampled_from(sorted(KEYS)), st.sampled_from([1, 2, 100_000])),
)


def made(way: str, entries: int) -> Working:
    return (ByKey(KEYS[way], entries) if way in KEYS else NOTICED[way]()).eval()


@settings(max_examples=25, deadline=None)
@examples(ways, st.sampled_from(sorted(KINDS)), st.booleans())
def test_a_model_that_knows_its_inputs_again_works_in_every_timed_call(
    way: tuple[str, int], kind: str, is_looked_at_first: bool
) -> None:
    """References are noticed even where the model begins to keep them late; for addresses there is the look before."""
    model, inputs = made(*way), KINDS[kind](torch.randn(1, 8))
    with torch.inference_mode():
        given, traces, remembered = Given(inputs), "", ""
        if is_looked_at_first or way[0] in KEYS:
            call_on(model, given.inputs)
            traces = given.traces()
            remembered = "" if traces else remembers(model, given.inputs)
            assert traces or remembered
        timed = TimedCall(model, inputs, copies=bool(traces or remembered), at_new_addresses=bool(remembered))
        watch = Stopwatch(timed, host_clock, None)
        timed.is_clean()
        model.calls = model.worked = 0
        watch.block()
    assert model.worked == model.calls > 0


GIVEN = "pytest_modelopt.measuring.worker.calls.given_inputs"


@pytest.mark.parametrize("way", ["id", "address"])
def test_no_copy_is_where_inputs_of_any_earlier_call_were(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Of many more calls than places that are taken in any case."""
    monkeypatch.setattr(f"{GIVEN}._PLACES", 5)
    model, inputs = made(way, 100_000), torch.randn(1, 8)
    with torch.inference_mode():
        data = [torch.randn(1, 8) for _ in range(300)]
        for x in data:
            call_on(model, x)
        del x, data
        timed = TimedCall(model, inputs, copies=True, at_new_addresses=True)
        model.calls = model.worked = 0
        for _ in range(100):
            timed.prepared(1)()
        assert model.worked == model.calls == 100
        assert timed.recognized() == ""


def test_copies_that_find_no_new_place_end_and_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{GIVEN}._KEPT_BYTES", 20_000)
    monkeypatch.setattr(f"{GIVEN}.places", lambda inputs: {("id", 1)})
    places_of_calls.add(("id", 1))
    timed = TimedCall(made("id", 1), torch.randn(1, 8), copies=True, at_new_addresses=True)
    timed.prepared(1)()
    assert timed.recognized().endswith("and too many addresses were used for a check of that")


@pytest.mark.parametrize("way", NOTICED)
def test_what_refers_to_the_inputs_after_a_call_is_noticed(way: str) -> None:
    model, given = made(way, 0), Given({"x": torch.randn(1, 8)})
    with torch.inference_mode():
        call_on(model, given.inputs)
    assert given.traces() == "keeps its inputs"


CONTENTS: dict[str, Callable[[Tensor], Hashable]] = {
    "bytes": lambda x: x.numpy().tobytes(),
    "hash of the numbers": lambda x: hash(tuple(x.flatten().tolist())),
}


@pytest.mark.parametrize("entries", [1, 100])
@pytest.mark.parametrize("inputs", [torch.randn(1, 8), torch.randint(0, 9, (1, 8)), torch.ones(1, 8)])
@pytest.mark.parametrize("way", CONTENTS)
def test_a_model_that_knows_contents_cannot_be_timed_by_calls_that_are_repeated(
    way: str, inputs: Tensor, entries: int
) -> None:
    model = ByKey(CONTENTS[way], entries).eval()
    if not inputs.is_floating_point():
        model.layers = nn.Sequential(nn.Embedding(9, 8), nn.Linear(8, 2))
    with torch.inference_mode():
        call_on(model, inputs)
        worked = model.worked
        for copy in (inputs.clone(), inputs.clone()):
            call_on(model, copy)
        assert model.worked == worked
        told = knows_content(model, inputs)
    assert told.startswith("recognizes inputs by their content, and answers from a cache (it runs ")


class Drawing(Working):
    """Runs as many operators as chance tells it."""

    def work(self, x: Tensor) -> Tensor:
        for _ in range(int(torch.randint(0, 50, ()))):
            x = x + 1
        return super().work(x)


class Counting(Working):
    """Does less from call to call."""

    def work(self, x: Tensor) -> Tensor:
        for _ in range(max(0, 10 - self.calls)):
            x = x + 1
        return super().work(x)


class Looking(Working):
    """Uses the memory and the identity of its inputs, and keeps neither."""

    def work(self, x: Tensor) -> Tensor:
        found = (id(x), x.data_ptr(), x.untyped_storage(), x.numpy(), x.detach(), weakref.ref(x))
        return super().work(x) + len(found)


class Branching(Working):
    """Does more for large numbers."""

    def work(self, x: Tensor) -> Tensor:
        for _ in range(int(x.abs().sum() * 1000) % 50):
            x = x + 1
        return super().work(x)


class Failing(Working):
    def work(self, x: Tensor) -> Tensor:
        if self.calls > 1:
            raise ValueError("once is enough")
        return super().work(x)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model_class", [Working, Drawing, Counting, Looking, Branching, Failing])
def test_others_are_not_said_to_remember(model_class: type[Working], kind: str) -> None:
    model, given = model_class().eval(), Given(KINDS[kind](torch.randn(1, 8)))
    with torch.inference_mode():
        call_on(model, given.inputs)
        assert given.traces() == ""
        assert remembers(model, given.inputs) == ""
        assert knows_content(model, given.inputs) == ""


def test_the_look_draws_no_random_numbers_and_tells_what_it_saw() -> None:
    model, x = made("address", 1), torch.randn(1, 8)
    with torch.inference_mode():
        model(x)
        before = torch.get_rng_state()
        found = remembers(lambda x: torch.rand(1) + model(x), x)
        assert torch.equal(torch.get_rng_state(), before)
    operators = [int(word.rstrip(",)")) for word in found.split() if word.rstrip(",)").isdigit()]
    assert found.startswith("remembers its inputs")
    assert operators[0] < operators[1]


def test_copies_that_are_kept_do_not_outgrow_their_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model may be called a million times. What the last calls were given stays, however much that is."""
    monkeypatch.setattr(f"{GIVEN}._KEPT_BYTES", 20_000)
    seen: list[weakref.ref[Tensor]] = []
    timed = TimedCall(lambda x: seen.append(weakref.ref(x)), torch.zeros(8), copies=True, at_new_addresses=True)
    for calls in (1, 50, 1, 3):
        call = timed.prepared(calls)
        for _ in range(calls):
            call()
        alive = sum(ref() is not None for ref in seen)
        assert calls <= alive <= max(20, calls)


@pytest.mark.parametrize("way", KEYS)
@pytest.mark.parametrize(("entries", "is_told"), [(1, False), (2, False), (100_000, True)])
def test_a_model_that_knows_places_for_longer_than_copies_are_kept_is_found_out(
    monkeypatch: pytest.MonkeyPatch, way: str, entries: int, is_told: bool
) -> None:
    """20,000 bytes are 19 copies here: then places come again, and what was forgotten by then does no harm."""
    monkeypatch.setattr(f"{GIVEN}._KEPT_BYTES", 20_000)
    model, inputs = made(way, entries), torch.randn(1, 8)
    with torch.inference_mode():
        timed = TimedCall(model, inputs, copies=True, at_new_addresses=True)
        assert timed.recognized() == ""  # no place has come again
        model.calls = model.worked = 0
        for _ in range(1000):  # which place the allocator gives again is its own affair
            timed.prepared(1)()
        assert (model.worked < model.calls) == is_told
        told = timed.recognized()
    if not is_told:
        assert told == ""
        return
    found, works = (int(word.rstrip(",);")) for word in told.split() if word.rstrip(",);").isdigit())
    assert found < works
    assert told.startswith("recognizes inputs by their address in memory, for longer than copies are kept")


# --- as a user meets it ----------------------------------------------------------------------------------------------

PROJECT = """
import torch
from torch import nn

class Remembering(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(64, 10)
        self.last = self.output = None

    def forward(self, x):
        if self.last != x.data_ptr():
            self.last, self.output = x.data_ptr(), self.body(x).relu() + 1
        return self.output

def model():
    torch.manual_seed(0)
    return Remembering().eval()

def data():
    x = torch.rand(60, 64, generator=torch.Generator().manual_seed(1))
    return x, torch.zeros(60, dtype=torch.long)
"""
BUDGETS = """
version: 1
defaults: {time_limit: 1 s}
models:
  model: {factory: shop:model, data: shop:data, recipes: {int8-dynamic: {max_latency: 1 s}}}
"""


def test_a_note_says_that_a_model_remembers_its_inputs(pytester: pytest.Pytester) -> None:
    Path("shop.py").write_text(PROJECT, encoding="utf-8")
    Path("budgets.yaml").write_text(BUDGETS, encoding="utf-8")
    result = pytester.runpytest_subprocess("--modelopt", "-v", "--modelopt-report", "report")
    record: dict[str, Any] = json.loads(Path("report/record.json").read_text(encoding="utf-8"))
    notes = " ".join(record["cases"][0]["reference"]["notes"])
    assert "the model remembers its inputs" in notes
    assert "so each call is given a copy" in notes
    result.stdout.fnmatch_lines(["*the model remembers its inputs*"])
