"""Candidates and originals beside recipes: against a base, in waivers, `update`, `validate` and on the command line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_modelopt.cli.main import main
from pytest_modelopt.results.json import read
from tests.plugin.repositories import Repository

Project = Callable[..., pytest.Pytester]

SHOP = """
import torch
from torch import nn

def net(width=256):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10)).eval()

def small():
    return net({width})

def data():
    inputs = torch.randn(64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return inputs, net()(inputs).argmax(1)
"""
MODEL = """  m:
    factory: shop:net
    data: shop:data
    original: {{max_size: 1 MB}}
    regression: {{max_size_growth: 5%}}
    candidates:
      {candidates}
  n: {{file: net.pt, data: shop:data, original: {{max_size: 1 MB}}, regression: {{max_size_growth: 5%}}}}
"""


def script(width: int) -> str:
    """Writes the file of a candidate."""
    return f"import torch, shop\ntorch.jit.save(torch.jit.script(shop.net({width})), 'net.pt')\n"


def test_a_candidate_is_compared_with_itself_at_the_base(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:

    def make(width: int, candidates: str) -> None:
        repository.write("shop.py", SHOP.replace("{width}", str(width)))
        subprocess.run([sys.executable, "-c", script(width)], cwd=repository.path, check=True, capture_output=True)
        repository.budgets(MODEL.format(candidates=candidates), time_limit="1 ms")
        repository.commit()

    make(64, "small: {factory: shop:small}\n      file: {file: net.pt}\n      gone: {factory: shop:small}")
    make(96, "small: {factory: shop:small}\n      file: {file: net.pt}\n      new: {factory: shop:small}")
    result = repository.against("HEAD~1")
    cases = {(case.recipe, case.base is not None): case for case in repository.record.cases if case.model == "m"}
    outcomes = {
        recipe: [verdict.outcome for verdict in case.verdicts]
        for (recipe, is_against), case in cases.items()
        if is_against
    }
    assert outcomes == {"original": ["pass"], "small": ["fail"], "file": ["fail"], "new": []}
    new = cases["new", True].base
    assert new is not None
    assert new.status == "new"
    against = repository.record.against
    assert against is not None
    assert against.removed == ("m/gone",)
    assert result.ret == 1
    (grown,) = (case for case in repository.record.cases if case.model == "n" and case.base is not None)
    assert [verdict.outcome for verdict in grown.verdicts] == ["fail"]
    assert [verdict.outcome for verdict in cases["original", False].verdicts] == ["pass"]


STATED = """version: 1
models:
  classifier:
    factory: shop:classifier
    data: shop:data
    original: {max_size: 3 MB, min_accuracy: 90%}
    candidates:
      half: {factory: made:half, max_size: 2 MB, max_accuracy_drop: 0.1 pp}
waivers:
  - {case: classifier/half, limit: max_accuracy_drop, until: 2099-01-31, reason: it is trained again, ceiling: 50 pp}
  - {case: classifier/original, limit: min_accuracy, until: 2099-01-31, reason: it is looked at}
"""
MADE = """
from shop import *

def half():
    model = classifier()
    with torch.no_grad():
        model[0].weight.mul_(1.5)
        model[4].bias[3] += 0.05
    return model
"""


def test_waivers_update_validate_and_names(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytester = project(STATED)
    pytester.makepyfile(made=MADE)
    monkeypatch.chdir(pytester.path)
    assert main(["validate"]) == 0
    assert "classifier/half: max_size 2 MB, max_accuracy_drop 0.1 pp" in capsys.readouterr().out
    result = pytester.runpytest("--modelopt", "--modelopt-report", "report", "budgets.yaml::classifier::half")
    result.assert_outcomes(passed=1)
    pytester.runpytest("--modelopt", "--modelopt-report", "report").assert_outcomes(passed=2)
    outcomes = {
        (case.recipe, verdict.limit.name): verdict.outcome
        for case in read(Path("report/record.json")).cases
        for verdict in case.verdicts
    }
    assert outcomes["half", "max_accuracy_drop"] == "waived"
    assert outcomes["original", "min_accuracy"] == "pass"
    assert main(["update", "report/record.json"]) == 0
    text = Path("budgets.yaml").read_text()
    assert "original: {max_size: 0.2" in text
    assert "half: {factory: made:half, max_size: 0.2" in text
    (pytester.path / "made.py").unlink()
    capsys.readouterr()
    assert main(["validate"]) == 1
    assert "classifier/half cannot run: `factory: made:half`" in capsys.readouterr().out


def test_a_marker_names_a_candidate(project: Project) -> None:
    pytester = project(STATED)
    pytester.makepyfile(
        made=MADE,
        test_it="""
        import pytest
        @pytest.mark.model_budget("classifier/half", max_accuracy_drop="50 pp")
        def test_half(modelopt):
            assert modelopt().variant.recipe == "half"
        """,
    )
    pytester.runpytest("--modelopt", "-p", "no:cacheprovider", "test_it.py").assert_outcomes(passed=1)


PACKED = """version: 1
models:
  packed:
    factory: packs:packed
    data: shop:data
    candidates: {again: {factory: packs:again}, other: {factory: packs:other}}
"""
PACKS = """
import warnings
from shop import *

def packed(seed=0):
    from torch.ao.quantization import quantize_dynamic
    model = classifier()
    with torch.no_grad():
        model[0].weight[0] += seed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return quantize_dynamic(model, {nn.Linear}).eval()

def again():
    return packed()

def other():
    return packed(seed=1)
"""


def test_the_original_once_more_is_noticed_where_its_weights_are_packed(project: Project) -> None:
    pytester = project(PACKED)
    pytester.makepyfile(packs=PACKS)
    pytester.runpytest("--modelopt", "--modelopt-report", "report", "-p", "no:cacheprovider")
    errors = {case.recipe: case.error for case in read(pytester.path / "report" / "record.json").cases}
    assert errors["other"] is None
    assert errors["again"] is not None
    assert "the candidate again is the original once more" in errors["again"].message
