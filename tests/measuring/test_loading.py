"""One clear message for each mistake in a model, and in data that does not fit it."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from pytest_modelopt.measuring.protocol import VariantError
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.measuring.worker import source_loading
from pytest_modelopt.results.metric import MetricSpec
from pytest_modelopt.results.source import Called

INPUTS = torch.arange(300.0).reshape(100, 3)
TARGETS = torch.arange(100) % 3

# --- the model -------------------------------------------------------------------------------------------------------


def loader(folder: Any) -> source_loading.Loader:
    variant = Variant("m:f", None, None, None, None, MetricSpec(), (str(folder),), str(folder))
    return source_loading.Loader(variant)


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
def wide(width=2, bias=True): return nn.Linear(2, width, bias=bool(bias)).eval()
def fails_inside(): return nn.Linear(2)
def offline(): raise OSError("no network")
def fetched(): return torch.hub.load_state_dict_from_url("http://127.0.0.1:1/weights.pt", "weights")
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
        source_loading.load_model(loader(users_module), factory)


def test_a_factory_gets_the_arguments_that_are_stated_for_it(users_module: Any) -> None:
    """Called at the same seed; what it does not take is its caller's mistake."""
    model, _ = source_loading.load_model(
        loader(users_module), Called.of("users_models:wide", {"width": 5, "bias": None})
    )
    assert next(model.parameters()).shape == (5, 2)
    message = "model `users_models:wide(depth=2)` raised TypeError: wide() got an unexpected keyword argument 'depth'"
    with pytest.raises(VariantError, match=re.escape(message)) as caught:
        source_loading.load_model(loader(users_module), Called.of("users_models:wide", {"depth": 2}))
    assert "a model factory is called with those of `arguments:` only" in str(caught.value)


@pytest.mark.parametrize("factory", ["raises", "fails_inside", "offline"])
def test_what_goes_wrong_inside_a_factory_is_not_blamed_on_its_arguments(users_module: Any, factory: str) -> None:
    with pytest.raises(VariantError) as caught:
        source_loading.load_model(loader(users_module), f"users_models:{factory}")
    assert "raised" in str(caught.value)
    assert "without arguments" not in str(caught.value)


def test_weights_that_need_the_network_are_told(users_module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(users_module)
    with pytest.raises(
        VariantError, match=r"raised URLError: .*; it needs the network, .* let the factory read the file"
    ):
        source_loading.load_model(loader(users_module), "users_models:fetched", "candidate")


def test_a_module_that_cannot_be_imported_says_where_it_was_looked_for(users_module: Any) -> None:
    with pytest.raises(VariantError, match=re.escape(f"(looked first in {users_module})")):
        source_loading.load_model(loader(users_module), "no_such_module:f")


def test_a_model_in_training_mode_is_put_into_eval_mode_and_it_is_said(users_module: Any) -> None:
    model, notes = source_loading.load_model(loader(users_module), "users_models:training")
    assert not any(module.training for module in model.modules())
    assert len(notes) == 1
    assert "was in training mode (3 modules) and put into eval mode" in notes[0]
    assert source_loading.load_model(loader(users_module), "users_models:good")[1] == ()
