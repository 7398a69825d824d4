"""What is seen of models that are made by hand: masks, packed and tied weights, graphs, layers, formats."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from pytest_modelopt.measuring.worker import observe, settings
from pytest_modelopt.measuring.worker.files.content_digest import content_digest
from pytest_modelopt.results.observations import Observations


def seen(model: nn.Module, example: torch.Tensor, ties: observe.Ties = ()) -> Observations:
    found = observe.observe(model, lambda: model(example), {}, ties, {})
    assert found.unobserved == {}
    return found


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8)).eval()


X = torch.ones(2, 16)


def test_masks_until_they_are_made_permanent() -> None:
    model = mlp()
    prune.l1_unstructured(model[0], "weight", amount=0.5)  # type: ignore[no-untyped-call]
    found = seen(model, X)
    assert (found.masked_weights, found.mask_bytes) == (1, 16 * 32 * 4)
    assert found.zero_weights == 256
    prune.remove(model[0], "weight")  # type: ignore[no-untyped-call]
    found = seen(model, X)
    assert (found.masked_weights, found.mask_bytes, found.zero_weights) == (0, 0, 256)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
def test_sparse_weights_are_no_dense_zeros() -> None:
    model: Any = mlp()
    with torch.no_grad():
        model[0].weight[:16] = 0
    model[0].weight = nn.Parameter(model[0].weight.detach().to_sparse_csr(), requires_grad=False)
    found = observe.observe(model, lambda: model(X), {}, (), {})
    assert (found.matrix_weights, found.zero_weights) == (32 * 8, 0)


def test_modules_that_imitate_quantization() -> None:
    from torch.ao.quantization import FakeQuantize, MinMaxObserver

    model = nn.Sequential(nn.Linear(16, 8), FakeQuantize(), MinMaxObserver()).eval()  # type: ignore[no-untyped-call]
    # FakeQuantize holds an observer of its own.
    assert seen(model, X).fake_quantizers == 3


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated", "ignore:`isinstance")
def test_a_graph_of_pt2e_and_whether_it_is_compiled() -> None:
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
        X86InductorQuantizer,
        get_default_x86_inductor_quantization_config,
    )

    quantizer = X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(torch.export.export(mlp(), (X,)).module(), quantizer)
    prepared(X)
    model = convert_pt2e(prepared)
    found = observe.observe(model, lambda: model(X), {}, (), {})
    # Each of two Linear layers: its input is quantized and dequantized, its weight dequantized.
    assert found.quantize_nodes == 6
    assert found.compiled is False
    assert seen(mlp(), X).quantize_nodes == 0


def test_weights_of_torchao() -> None:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    model, again = mlp(), mlp()
    for each in (model, again):
        quantize_(each, Int8WeightOnlyConfig(version=2))
    found = observe.observe(model, lambda: model(X), {}, (), {})
    assert (found.torchao_tensors, found.compiled) == (2, False)
    assert found.float_bytes == {"float32": 4 * (32 + 8)}
    digest = content_digest(model)
    assert digest == content_digest(again) is not None
    again[0].weight.qdata[0, 0] += 1  # type: ignore[union-attr, index, operator]
    assert content_digest(again) != digest


def test_packed_layers_are_counted_once_each() -> None:
    from torch.ao.quantization import quantize_dynamic

    from pytest_modelopt.optimizing.quantization import torch_ao

    with torch_ao.quiet():
        model = quantize_dynamic(nn.Sequential(mlp(), nn.LSTM(8, 4)).eval(), {nn.Linear, nn.LSTM})  # type: ignore[no-untyped-call]
    assert observe.observe(model, lambda: None, {}, (), {}).packed_modules == 3


class Own(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.inner(x))


class CompilesLater(nn.Module):
    """A wrapper of its own, in which no module is compiled that anybody could find."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.run: Any = None

    def forward(self, x: torch.Tensor) -> Any:
        if self.run is None:

            def run(x: torch.Tensor) -> Any:
                return self.inner(x)

            self.run = torch.compile(run, backend="eager")
        return self.run(x)


@pytest.mark.parametrize("how", ["torch.compile", "module.compile", "forward", "wrapper"])
def test_compiled_models_in_each_of_their_forms(how: str) -> None:
    torch.compiler.reset()  # else a function compiled eight times by earlier tests is never compiled again
    model: Any = mlp()
    assert seen(model, X).compiled is False
    if how == "torch.compile":
        model = torch.compile(model, backend="eager")
    elif how == "module.compile":  # which torch passes over for a class of its own, as Sequential is
        model = Own(model)
        model.compile(backend="eager")
    elif how == "wrapper":
        model = CompilesLater(model)
    else:
        model.forward = torch.compile(model.forward, backend="eager")
    assert observe.observe(model, lambda: model(X), {}, (), {}).compiled is True
    assert seen(mlp(), X).compiled is False, "the compiler is imported, and this model does not use it"


def test_the_fused_path_of_an_encoder() -> None:
    def encoder(**changes: Any) -> nn.Module:
        return nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, **changes).eval()

    sequence = torch.ones(1, 3, 16)
    assert seen(encoder(), sequence).fused_layers == 1
    assert seen(encoder(activation=nn.SiLU()), sequence).fused_layers == 0
    assert seen(encoder().train(), sequence).fused_layers == 0


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.head = nn.Linear(16, 50, bias=False)
        self.head.weight = self.embed.weight
        self.once = self.again = nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.again(self.once(self.embed(x))))


def test_weights_that_were_tied_and_are_not() -> None:
    tokens, model = torch.zeros(1, 3, dtype=torch.long), Tied().eval()
    ties = observe.ties(model)
    assert ties == (("embed.weight", "head.weight"),), "a module under two names is no tie"
    assert seen(model, tokens, ties).untied == ()
    compiled: Any = torch.compile(model, backend="eager")
    assert observe.observe(compiled, lambda: None, {}, ties, {}).untied == ()
    model.head.weight = nn.Parameter(model.head.weight.detach().clone())
    found = seen(model, tokens, ties)
    assert (found.untied, found.untied_bytes) == (("embed.weight = head.weight",), 50 * 16 * 4)


def test_weights_side_by_side_in_one_storage_are_not_tied() -> None:
    """So cuDNN lays the weights of a recurrent layer."""
    model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    whole = torch.randn(2, 8, 8)
    for layer, weight in zip(model, whole, strict=True):
        layer.weight.data = weight
    assert observe.ties(model) == ()


def test_packing_one_of_two_tied_layers_unties_them() -> None:
    from torch.ao.quantization import quantize_dynamic

    from pytest_modelopt.optimizing.quantization import torch_ao

    model = Tied().eval()
    ties = observe.ties(model)
    with torch_ao.quiet():
        packed = quantize_dynamic(model, {nn.Linear})  # type: ignore[no-untyped-call]
    found = seen(packed, torch.zeros(1, 3, dtype=torch.long), ties)
    assert (found.untied, found.untied_bytes) == (("embed.weight = head.weight",), 50 * 16)


def test_layers_of_one_output_and_no_head() -> None:
    class Headless(nn.Linear):
        num_heads = 0

    model = nn.Sequential(nn.Conv2d(2, 1, 1), nn.Flatten(), nn.Linear(16, 1), Headless(1, 4)).eval()
    assert seen(model, torch.ones(1, 2, 4, 4)).narrow_layers == {"0": 1, "2": 1, "3": 0}


def test_layers_that_were_derived_by_name_and_torchs_own_are_none() -> None:
    class Mine(nn.Linear):
        pass

    class Padded(nn.Conv2d):
        pass

    class PaddedTwice(Padded):
        pass

    class Body(nn.Sequential):
        pass

    model = Body(Mine(16, 16), nn.Linear(16, 8), nn.MultiheadAttention(8, 2), PaddedTwice(1, 1, 1)).eval()
    torch.nn.utils.parametrizations.weight_norm(model[1])
    found = observe.observe(model, lambda: None, {}, (), {})
    assert found.derived_layers == {"Mine": "Linear", "PaddedTwice": "Conv2d"}


def test_dtypes() -> None:
    model: Any = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Linear(2, 2).double(), nn.Linear(2, 2).bfloat16())
    found = observe.observe(model, lambda: None, {}, (), {})
    assert found.float_bytes == {"float32": 4 * (4 * 4 * 9 + 4), "float64": 8 * 6, "bfloat16": 2 * 6}


def test_a_look_that_fails_costs_nothing_and_is_said() -> None:
    def fails() -> None:
        raise RuntimeError("no answer\ntoday")

    found = observe.observe(mlp(), fails, {"target_classes": 3}, (), {"ties": "seen before"})
    assert found.unobserved.pop("compiled", why := "RuntimeError: no answer today") == why  # if it was imported
    assert found.unobserved == {"answers": why, "ties": "seen before"}
    assert (found.varies, found.matrix_weights, found.target_classes) == (None, 16 * 32 + 32 * 8, 3)


def test_what_a_recipe_patched_and_put_back_is_no_setting_of_its_own() -> None:
    import torch._inductor.config as inductor

    before = settings.settings()
    with inductor.patch(freezing=True):
        assert settings.settings()["inductor freezing"] == "True"
    assert settings.settings() == before
