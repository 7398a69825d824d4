"""`call:` and `optimize:` in budgets.yaml and in tests: the record and the report say what is called."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_modelopt.results.json import loads
from tests.plugin.small_project import one_case, run

CALLS = '''
def served(model, inputs):
    """Rows come scaled by 2, and scores go out under a name."""
    return {"scores": model[1:](model[0](inputs / 2))}

def served_data():
    inputs, _ = data()
    with torch.no_grad():
        return inputs * 2, classifier()(inputs).argmax(1)
'''


@pytest.fixture
def calls_project(project: Callable[..., pytest.Pytester]) -> Callable[..., pytest.Pytester]:
    def make(budgets: str) -> pytest.Pytester:
        pytester = project(budgets)
        shop = pytester.path / "shop.py"
        shop.write_text(shop.read_text(encoding="utf-8") + CALLS, encoding="utf-8")
        return pytester

    return make


def test_a_gate_calls_the_function_and_says_so(calls_project: Callable[..., pytest.Pytester]) -> None:
    text = one_case("{max_memory: 1 MB, max_accuracy_drop: 10 pp, min_coverage: 98%}", data="shop:served_data")
    pytester = calls_project(text.replace("    data:", "    call: shop:served\n    optimize: '0'\n    data:"))
    result = pytester.runpytest("--modelopt", "-v", "--modelopt-report=out", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        ["*what is called is `shop:served(model, inputs)`, and recipes change its `0`", "*recipes change `0` only*"]
    )
    found = next(file for file in Path(pytester.path).rglob("*.json") if '"schema_version"' in file.read_text())
    (case,) = loads(found.read_text(encoding="utf-8")).cases
    assert (case.call, case.optimize) == ("shop:served", "0")
    assert case.reference is not None
    assert case.reference.score == 1.0
    assert case.coverage is not None
    assert [layer.name for layer in case.coverage.layers] == ["0"]
    assert json.loads(found.read_text(encoding="utf-8"))["cases"][0]["call"] == "shop:served"


def test_a_live_function_is_called_and_a_wrong_one_fails_the_test(
    project: Callable[..., pytest.Pytester],
) -> None:
    result = run(
        project,
        """
def scaled(model, inputs):
    return model.head(torch.relu(model.body(inputs / 2)))

@pytest.mark.model_budget(max_accuracy_drop="5 pp")
def test_called(modelopt):
    model = net()
    inputs, targets = labelled(model)
    found = modelopt(model, "int8-dynamic", data=(inputs * 2, targets), call=scaled, optimize="body")
    assert found.case.reference.score == 1.0
    assert (found.case.call, found.case.optimize) == ("a live function", "body")

@pytest.mark.parametrize("wrong", [{"call": 3}, {"optimize": "a b"}, {"batch_of": 1.5}])
def test_wrong(modelopt, wrong):
    modelopt(net(), "int8-dynamic", data=labelled(net()), **wrong)
""",
    )
    result.assert_outcomes(passed=1, failed=3)
    result.stdout.fnmatch_lines(
        [
            "*call=3 is no function (model, inputs) -> outputs, nor the name of one*",
            "*optimize: 'a b' is not the path of a module below the model*",
            "*batch_of=1.5 is no function (inputs) -> number, nor the name of one*",
        ]
    )
