"""sparse-csr: the answers of the pruned dense model, the bytes of CSR, and honest notes on what stays dense."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch
from torch import nn

from pytest_modelopt.measuring.worker.memory.tensor_meter import weights_bytes
from pytest_modelopt.optimizing.apply import RecipeDidNothing
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.optimizing.recipe import RecipeError
from tests.optimizing.recipe_models import MyLinear, apply, relative_error, run, saved_and_loaded

EXPRESSION = "prune-unstructured(ratio=0.9) + sparse-csr"
FLOAT32 = INT32 = 4


class Wide(nn.Module):
    """Large, small, tied, shared and subclassed layers, a convolution and an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(300, 256)
        self.lstm = nn.LSTM(256, 256, batch_first=True)
        self.shared = nn.Linear(256, 256)
        self.again = self.shared
        self.convolution = nn.Conv1d(256, 256, 1)
        self.plain = nn.Linear(256, 512, bias=False)
        self.mine = MyLinear(512, 256)
        self.small = nn.Linear(256, 255)
        self.back = nn.Linear(255, 256)
        self.tied = nn.Linear(256, 300, bias=False)
        self.tied.weight = self.embed.weight

    def forward(self, x: torch.Tensor) -> Any:
        x = self.lstm(self.embed(x))[0]
        x = torch.relu(self.again(torch.relu(self.shared(x))))
        x = self.convolution(x.transpose(1, 2)).transpose(1, 2)
        return self.tied(self.back(self.small(self.mine(torch.relu(self.plain(x))))))


def made() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    return Wide().eval(), torch.randint(0, 300, (2, 5))


def test_the_answers_are_those_of_the_pruned_dense_model_and_the_rest_is_named() -> None:
    model, x = made()
    dense = apply("prune-unstructured(ratio=0.9)", *made()).model
    optimization = apply(EXPRESSION, model, x)
    variant = optimization.model
    assert relative_error(run(variant, x), run(dense, x)) < 1e-5
    assert variant.shared is variant.again
    assert type(variant.shared).__name__ == type(variant.plain).__name__ == "CSRLinear"
    assert [type(layer) for layer in (variant.small, variant.mine, variant.tied)] == [nn.Linear, MyLinear, nn.Linear]
    notes = optimization.coverage.steps[1].notes
    assert notes[0].startswith("2 Linear with 90.0% zeros are stored as sparse matrices, 768 KiB of weights as 15")
    left = " ".join(notes[1:])
    assert "1 MyLinear (513 KiB) left dense: not exactly nn.Linear" in left
    assert "2 Linear (512 KiB) left dense: fewer than 65,536 weights each" in left
    assert "1 Linear (300 KiB) left dense: another module shares their weight" in left
    assert "1 LSTM (" in left
    assert "1 Conv1d (" in left
    assert torch.equal(run(saved_and_loaded(variant), x), run(variant, x))


def test_bytes_are_those_of_csr_and_coverage_is_that_of_the_stored_weights() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10))
    optimization = apply(EXPRESSION, model, torch.randn(2, 512))
    numbers = 512 * 256 - round(0.9 * 512 * 256)
    csr = numbers * (FLOAT32 + INT32) + (256 + 1) * INT32
    assert weights_bytes(optimization.model) == csr + (256 + 256 * 10 + 10) * FLOAT32
    assert optimization.coverage.steps[1].changed_bytes == 512 * 256 * FLOAT32
    assert optimization.coverage.changed_bytes == (512 * 256 + 256 * 10) * FLOAT32


def test_a_single_example_without_batch_and_an_empty_row() -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(256, 256))
    with torch.no_grad():
        model[0].weight[torch.rand(256, 256) < 0.9] = 0
        model[0].weight[7] = 0
    x = torch.randn(256)
    expected = run(model, x)
    variant = apply("sparse-csr", model, x).model
    assert run(variant, x).shape == (256,)
    assert relative_error(run(variant, x), expected) < 1e-5
    with torch.inference_mode():
        assert relative_error(variant(x), expected) < 1e-5


def test_zero_share_decides() -> None:
    torch.manual_seed(0)
    for zeros, stored in ((51_000, False), (53_000, True)):  # 80% of 65,536 are 52,428.8
        model: Any = nn.Sequential(nn.Linear(256, 256))
        with torch.no_grad():
            model[0].weight.view(-1)[:zeros] = 0
        if stored:
            apply("sparse-csr", model, torch.randn(2, 256))
        else:
            with pytest.raises(RecipeDidNothing, match="less than 80% of their weights are zero"):
                apply("sparse-csr", model, torch.randn(2, 256))


def test_a_model_that_was_not_pruned_is_told_what_to_write() -> None:
    with pytest.raises(RecipeDidNothing, match=r"write `prune-unstructured\(ratio=0.9\) \+ sparse-csr`"):
        apply("sparse-csr", nn.Sequential(nn.Linear(256, 256)), torch.randn(2, 256))


def test_other_precisions_and_sizes_without_gain_are_told() -> None:
    with pytest.raises(RecipeDidNothing, match="the kernel takes float32 and float64, and they are bfloat16"):
        apply(EXPRESSION, nn.Sequential(nn.Linear(256, 256)).bfloat16(), torch.randn(2, 256).bfloat16())
    half = "prune-unstructured(ratio=0.4) + sparse-csr(min_zeros=0.3)"
    with pytest.raises(RecipeDidNothing, match="with its indices, the sparse form would be no smaller"):
        apply(half, nn.Sequential(nn.Linear(256, 256)), torch.randn(2, 256))


def test_it_is_for_the_end() -> None:
    assert parse(EXPRESSION).text == "prune-unstructured(ratio=0.9)+sparse-csr"
    assert parse("sparse-csr(min_zeros=0.95)").text == "sparse-csr(min_zeros=0.95)"
    with pytest.raises(RecipeError, match=r"stores the weights as sparse matrices.*write low-rank \+ sparse-csr"):
        parse("sparse-csr + low-rank")


def test_a_variant_answers_the_same_in_a_process_that_knows_nothing_of_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 256)
    variant = apply(EXPRESSION, nn.Sequential(nn.Linear(256, 256)), x).model
    torch.save(variant, tmp_path / "variant.pt", pickle_module=cloudpickle)
    torch.save(x, tmp_path / "x.pt")
    code = (
        "import torch; torch.set_num_threads(1); x = torch.load('x.pt')\n"
        "with torch.inference_mode(): y = torch.load('variant.pt', weights_only=False)(x)\n"
        "torch.save(y.clone(), 'y.pt')"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, check=True)
    assert torch.equal(torch.load(tmp_path / "y.pt"), run(variant, x))
