"""Originals that are files, where nothing but their place in budgets.yaml and in tests is asked."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_modelopt.cli.main import main
from tests.plugin.small_project import run

Project = Callable[..., pytest.Pytester]

MISTAKES = {
    "{file: a.onnx, factory: shop:net, data: shop:data, original: {max_size: 1 MB}}": (
        "m: it has a `factory:` and a `file:`; keep the one"
    ),
    "{data: shop:data, original: {max_size: 1 MB}}": "m: it has neither a `factory:` nor a `file:`",
    "{file: ../a.onnx, data: shop:data, original: {max_size: 1 MB}}": "file of m: '../a.onnx' lies outside",
    "{file: a.pth, data: shop:data, original: {max_size: 1 MB}}": "is of a format that cannot be measured",
    "{file: a.gguf, data: shop:data, original: {max_size: 1 MB}}": "'a.gguf' is a model for llama.cpp",
    "{file: a.pte, data: shop:data, recipes: {bf16: }}": "bf16 takes a model of torch, and no recipe takes .pte files",
    "{file: a.onnx, original: {max_size: 1 MB}}": "m has no `data`",
    "{factory: shop:net, sha256: ab, data: shop:data, original: {max_size: 1 MB}}": "m: `sha256:` belongs to a `file:`",
    "{file: a.onnx, data: shop:data, recipes: {int8-dynamic: }}": (
        "recipe of m: int8-dynamic cannot start from .onnx files; those that do are onnxruntime-int8-dynamic"
    ),
    "{file: a.pt2, data: shop:data, recipes: {bf16: }}": "bf16 takes a model of torch, and no recipe takes .pt2 files",
    "{file: a.pt, inputs: {x: 0}, data: shop:data, original: {max_size: 1 MB}}": "m: `inputs:` would change nothing",
    "{fil: a.pt2, data: shop:data, original: {max_size: 1 MB}}": "did you mean 'file'?",
}


@pytest.mark.parametrize("stated", MISTAKES)
def test_a_wrong_statement_is_refused_before_anything_runs(project: Project, stated: str) -> None:
    result = project(f"version: 1\nmodels:\n  m: {stated}\n").runpytest("--modelopt")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert MISTAKES[stated] in " ".join(result.stderr.str().split())
    assert "budgets.yaml:3: " in result.stderr.str()


def test_validate_tells_a_file_that_is_missing(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytester = project("version: 1\nmodels:\n  m: {file: a.onnx, data: shop:data, original: {max_size: 1 MB}}\n")
    monkeypatch.chdir(pytester.path)
    assert main(["validate"]) == 1
    assert "m cannot run: there is no file a.onnx" in capsys.readouterr().out
    (pytester.path / "a.onnx").touch()
    assert main(["validate"]) == 0


TESTS = """
import pathlib
import warnings

@pytest.fixture
def shipped(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(net()), tmp_path / "net.pt")
    return tmp_path / "net.pt"

@pytest.mark.model_budget(min_accuracy="100%", max_size="1 MB")
def test_path(modelopt, shipped):
    found = modelopt(shipped, data=labelled(net())).variant
    assert found.provenance.files == {str(shipped): shipped.stat().st_size}

def test_beside_a_candidate(modelopt, shipped):
    assert modelopt(str(shipped), candidate=net, data=labelled(net())).agreement.flips == 0

def test_as_a_candidate(modelopt, shipped):
    found = modelopt(net, candidate=shipped, data=labelled(net()))
    assert (found.variant.recipe, found.agreement.flips) == ("net.pt", 0)
    assert found.variant.size_bytes == shipped.stat().st_size

@pytest.mark.model_budget(max_size="1 MB")
def test_by_name(modelopt):
    modelopt("gone.onnx", data=labelled(net()))

def test_recipe(modelopt, shipped):
    modelopt(shipped, "int8-dynamic", data=labelled(net()))
"""


def test_tests_gate_files(project: Project) -> None:
    result = run(project, TESTS)
    result.assert_outcomes(passed=3, failed=2)
    told = " ".join(result.stdout.str().split())
    assert "gone.onnx cannot be read: No such file or directory" in told
    assert "int8-dynamic takes a model of torch, and no recipe takes .pt files" in told
