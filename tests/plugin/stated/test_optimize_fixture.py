"""`optimize` in users' own tests: what it makes, and that what is saved is what was measured."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_modelopt.results.json import read
from tests.plugin.small_project import run

Project = Callable[..., pytest.Pytester]


def test_optimize_makes_the_variant_and_says_what_it_changed(project: Project) -> None:
    result = run(
        project,
        """
def test_optimize(optimize):
    import pathlib
    model = net()
    optimized = optimize(model, "int8-dynamic", example_inputs=torch.zeros(1, 64))
    assert optimized.recipe == "int8-dynamic"
    assert {layer.name: layer.changed_bytes for layer in optimized.coverage.layers} == {
        "body": 4 * 64 * 512, "head": 4 * 512 * 4,
    }
    loaded = optimized.load()
    inputs, targets = labelled(model)
    assert (loaded(inputs).argmax(1) == targets).float().mean() > 0.9
    assert "quantized" in type(loaded.body).__module__
    (file,) = optimized.save("kept/net")  # as TorchScript: a class of this test is loaded from no other file
    assert file == pathlib.Path.cwd() / "kept" / "net.pt"
    with pytest.warns(DeprecationWarning):
        assert torch.equal(torch.jit.load(file)(inputs), loaded(inputs))
    with pytest.raises(RuntimeError, match="int8-dynamic is no .onnx file: it was written as other.pt"):
        optimized.save("kept/other.onnx")

def test_nothing_to_change(optimize):
    optimize(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4)).eval(), "int8-dynamic", example_inputs=torch.zeros(2, 4))
""",
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*int8-dynamic changed nothing: the model holds 1 BatchNorm1d*"])
    result.stdout.no_fnmatch_line("*During handling of the above exception*")


def test_what_is_saved_is_what_was_measured_and_the_record_has_its_sum(project: Project) -> None:
    result = run(
        project,
        """
def test_release(modelopt, optimize):
    comparison = modelopt(net(), "int8-dynamic", data=labelled(net()))
    optimize(net(), "int8-dynamic", example_inputs=torch.zeros(1, 64)).save("dist/net", measured=comparison)
    other = net()
    other.head.bias.data[0] += 1
    damaged = optimize(other, "int8-dynamic", example_inputs=torch.zeros(1, 64))
    with pytest.raises(RuntimeError, match="int8-dynamic cannot be saved: made again, the variant is not what was mea"):
        damaged.save("dist/damaged", measured=comparison)
""",
        "--modelopt-report=report",
    )
    result.assert_outcomes(passed=1)
    (case,) = read(Path("report/record.json")).cases
    assert [file.name for file in Path("dist").iterdir()] == ["net.pt"]
    assert case.variant is not None
    assert case.variant.shipped == {".pt": hashlib.sha256(Path("dist/net.pt").read_bytes()).hexdigest()}


def test_two_optimized_variants_are_two_files(project: Project) -> None:
    result = run(
        project,
        """
def test_two(optimize):
    first = optimize("shop:classifier", "int8-dynamic", data="shop:data")
    second = optimize("shop:classifier", "low-rank(ratio=0.5)", data="shop:data")
    assert first.path != second.path
    assert "quantized" in type(first.load()[0]).__module__
""",
    )
    result.assert_outcomes(passed=1)
