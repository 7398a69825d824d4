"""Every form of data that users have, and one clear message for each mistake in model and data."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from pytest_modelopt.measure import loading, quality
from pytest_modelopt.measure.replies import VariantError
from pytest_modelopt.measure.variant import Variant
from pytest_modelopt.metrics import MetricSpec

INPUTS = torch.arange(300.0).reshape(100, 3)
TARGETS = torch.arange(100) % 3


class Stream(IterableDataset[tuple[torch.Tensor, torch.Tensor]]):
    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return iter(zip(INPUTS, TARGETS, strict=True))


FORMS: dict[str, Callable[[], Any]] = {
    "a tuple of tensors": lambda: (INPUTS, TARGETS),
    "a list of tensors": lambda: [INPUTS, TARGETS],
    "numpy arrays": lambda: (INPUTS.numpy(), TARGETS.numpy()),
    "a Dataset": lambda: TensorDataset(INPUTS, TARGETS),
    "an IterableDataset": lambda: Stream(),
    "a DataLoader": lambda: DataLoader(TensorDataset(INPUTS, TARGETS), batch_size=7),
    "a list of batches": lambda: [(INPUTS[:40], TARGETS[:40]), (INPUTS[40:], TARGETS[40:])],
    "a list of two batches of lists": lambda: [[INPUTS[:1], TARGETS[:1]], [INPUTS[1:], TARGETS[1:]]],
    "a generator": lambda: ((INPUTS[i : i + 9], TARGETS[i : i + 9]) for i in range(0, 100, 9)),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_data_gives_the_same_examples_in_the_same_order(form: str) -> None:
    fingerprint = quality.Fingerprint()
    seen: list[torch.Tensor] = []
    for inputs, targets in loading.batches(FORMS[form]()):
        fingerprint.add(inputs, targets)
        assert isinstance(inputs, torch.Tensor)
        seen.append(inputs)
    assert torch.equal(torch.cat(seen), INPUTS)
    expected = quality.Fingerprint()
    expected.add(INPUTS, TARGETS)
    assert fingerprint.hexdigest() == expected.hexdigest()


def test_the_fingerprint_tells_other_order_values_and_types_apart() -> None:
    def of(inputs: Any, targets: torch.Tensor) -> str:
        fingerprint = quality.Fingerprint()
        fingerprint.add(inputs, targets)
        return fingerprint.hexdigest()

    other_value = INPUTS.clone()
    other_value[99, 2] += 1
    variants = [
        of(INPUTS, TARGETS),
        of(INPUTS.flip(0), TARGETS),
        of(other_value, TARGETS),
        of(INPUTS.double(), TARGETS),
        of(INPUTS, TARGETS.flip(0)),
        of({"x": INPUTS}, TARGETS),
        of(INPUTS.to(torch.bfloat16), TARGETS),
    ]
    assert len(set(variants)) == len(variants)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "the data is empty: no example to measure on"),
        ((INPUTS[:0], TARGETS[:0]), "the data is empty"),
        (TensorDataset(INPUTS[:0], TARGETS[:0]), "the data is empty"),
        ((INPUTS, TARGETS[:99]), "the data has 100 inputs but 99 targets"),
        (INPUTS, "the data is one tensor; give (inputs, targets)"),
        ({"x": INPUTS}, "the data is a dict; give (inputs, targets) tensors, a Dataset"),
        ("digits", "the data is a str; give (inputs, targets)"),
        (None, "the data is a NoneType"),
        ([INPUTS[:5], INPUTS[:5], INPUTS[:5]], "batch 0 of the data is a Tensor; each batch must be (inputs, targets)"),
        ([(INPUTS, TARGETS, TARGETS)], "batch 0 of the data is a tuple of 3; each batch must be (inputs, targets)"),
        ([("a", TARGETS)], "the inputs of the data are a str; give a tensor"),
        ([(INPUTS, "b")], "the targets of the data are a str, not a tensor"),
        ([(INPUTS, torch.tensor(1))], "the targets of the data are a single number"),
        ([((INPUTS, INPUTS[:5]), TARGETS)], "different first dimensions: [5, 100]"),
    ],
)
def test_data_in_no_known_form_is_refused_in_words(data: Any, message: str) -> None:
    with pytest.raises(VariantError, match=re.escape(message)):
        for _ in loading.batches(data):
            pass


def test_the_first_examples_span_batches_and_keep_their_form() -> None:
    batches = [{"a": INPUTS[:3], "b": INPUTS[:3] + 1}, {"a": INPUTS[3:9], "b": INPUTS[3:9] + 1}]
    first = loading.first_examples(batches, 5, "data")
    assert isinstance(first, dict)
    assert torch.equal(first["a"], INPUTS[:5])
    assert torch.equal(first["b"], INPUTS[:5] + 1)
    pair = loading.first_examples([(INPUTS[:3], INPUTS[:3])], 2, "data")
    assert isinstance(pair, tuple)
    assert [len(t) for t in pair] == [2, 2]


def test_a_batch_size_larger_than_the_data_is_refused() -> None:
    with pytest.raises(VariantError, match="`batch_size` is 101 but the data holds only 100 examples"):
        loading.first_examples([INPUTS], 101, "data")


def test_inputs_of_different_shapes_cannot_be_one_call() -> None:
    with pytest.raises(VariantError, match="cannot be put into one batch of 2"):
        loading.first_examples([torch.zeros(1, 5), torch.zeros(1, 7)], 2, "data")


# --- the model -------------------------------------------------------------------------------------------------------


def loader(folder: Any) -> loading.Loader:
    variant = Variant("m:f", None, None, None, None, MetricSpec(), (str(folder),), str(folder))
    return loading.Loader(variant)


@pytest.fixture
def users_module(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    source = """
import torch
from torch import nn
def good(): return nn.Linear(2, 2).eval()
def training(): return nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
def state(): return nn.Linear(2, 2).state_dict()
def nothing(): pass
def a_class(): return nn.Linear
def needs(argument): return nn.Linear(2, 2)
def raises(): raise KeyError("epoch")
load_model = good
value = 3
"""
    (tmp_path / "users_models.py").write_text(source, encoding="utf-8")
    (tmp_path / "users_broken.py").write_text("import no_such_package\n", encoding="utf-8")
    (tmp_path / "users_syntax.py").write_text("def :\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("users_models:state", "returned a OrderedDict, not a torch.nn.Module (a state_dict? load it into the module"),
        ("users_models:nothing", "the model factory returned a NoneType, not a torch.nn.Module"),
        ("users_models:a_class", "returned a type, not a torch.nn.Module (a class: return an instance)"),
        ("users_models:needs", "raised TypeError"),
        ("users_models:needs", "a model factory is called without arguments"),
        ("users_models:raises", "model `users_models:raises` raised KeyError: 'epoch'"),
        ("users_models:load_modle", "`users_models` has no `load_modle`; did you mean `load_model`?"),
        ("users_models:value", "model `users_models:value` is a int, not a function that can be called"),
        ("no_such_module:f", "module `no_such_module` cannot be imported: ModuleNotFoundError"),
        ("users_broken:f", "No module named 'no_such_package'"),
        ("users_syntax:f", "importing `users_syntax` raised SyntaxError"),
    ],
)
def test_a_factory_that_gives_no_model_says_why(users_module: Any, factory: str, message: str) -> None:
    with pytest.raises(VariantError, match=re.escape(message)):
        loading.load_model(loader(users_module), factory)


def test_a_module_that_cannot_be_imported_says_where_it_was_looked_for(users_module: Any) -> None:
    with pytest.raises(VariantError, match=re.escape(f"(looked first in {users_module})")):
        loading.load_model(loader(users_module), "no_such_module:f")


def test_a_model_in_training_mode_is_put_into_eval_mode_and_it_is_said(users_module: Any) -> None:
    model, notes = loading.load_model(loader(users_module), "users_models:training")
    assert not any(module.training for module in model.modules())
    assert len(notes) == 1
    assert "was in training mode (3 modules) and put into eval mode" in notes[0]
    assert loading.load_model(loader(users_module), "users_models:good")[1] == ()


def test_sizes_vary_by_the_argument_and_not_by_its_place() -> None:
    first = {"tokens": torch.zeros(2, 9), "mask": torch.zeros(2, 9, 4)}
    again = {"mask": torch.zeros(3, 9, 4), "tokens": torch.zeros(3, 7)}
    assert loading.varying_dimensions([first, again]) == (frozenset({1}), frozenset())
    assert loading.varying_dimensions([]) == ()
    assert loading.varying_dimensions([torch.zeros(2, 3, 4), torch.zeros(5, 6, 4)]) == (frozenset({1}),)


@pytest.mark.parametrize(
    ("batches", "told"),
    [
        (
            [{"a": torch.zeros(2, 3)}, {"a": torch.zeros(2, 3), "b": torch.zeros(2)}],
            "the batches hold different inputs",
        ),
        ([{"a": torch.zeros(2, 3)}, {"b": torch.zeros(2, 3)}], "the batches hold different inputs"),
        ([torch.zeros(2, 3), torch.zeros(2, 3, 1)], "an input has more dimensions in some batches"),
    ],
)
def test_batches_that_no_converted_model_takes_are_told(batches: list[Any], told: str) -> None:
    with pytest.raises(VariantError, match=told):
        loading.varying_dimensions(batches)
