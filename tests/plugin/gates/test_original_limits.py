"""`original:`: absolute limits on the model as it is, with or without anything to compare it with."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_modelopt.results.json import read
from tests.plugin.small_project import run

Project = Callable[..., pytest.Pytester]

ALONE = """version: 1
models:
  reader:
    factory: shop:classifier
    data: shop:data
    original: {%s}
"""
WEIGHTS = 4 * (64 * 512 + 512 + 512 * 64 + 64 + 64 * 10 + 10)
CALL = 4 * (64 + 512 + 512)


def test_the_model_as_it_is_has_a_case_of_its_own(project: Project) -> None:
    pytester = project(ALONE % "max_memory: 1 MiB, max_size: 0.1 MiB, min_accuracy: 97%")
    result = pytester.runpytest("--modelopt", "--modelopt-report", "report", "budgets.yaml::reader::original")
    result.assert_outcomes(failed=1)
    case = read(pytester.path / "report" / "record.json").cases[0]
    assert {verdict.limit.name: verdict.outcome for verdict in case.verdicts} == {
        "max_memory": "pass",
        "max_size": "fail",
        "min_accuracy": "pass",
    }
    assert case.variant is not None
    assert case.variant.weights_bytes == WEIGHTS
    assert case.variant.score == 1
    assert case.timing is None
    assert "reader/original: max_size 0.1 MiB is broken" in result.stdout.str()
    rows = [line for line in result.outlines if line.startswith("  ✗ FAIL   original ")]
    assert len(rows) == 1


def test_time_is_that_of_the_model_beside_a_copy_of_itself(project: Project) -> None:
    text = ALONE % "max_latency: 1 s"
    pytester = project(text)
    pytester.runpytest("--modelopt", "--modelopt-report", "report").assert_outcomes(passed=1)
    case = read(pytester.path / "report" / "record.json").cases[0]
    assert [verdict.outcome for verdict in case.verdicts] == ["pass"]
    assert case.timing is not None
    assert case.timing.pairs


def test_budget_does_not_bind_it_and_regression_does(project: Project) -> None:
    text = ALONE % "max_memory: 1 MiB" + "    budget: {max_memory: 1 B}\n    recipes: {int8-dynamic: {}}\n"
    pytester = project(text)
    pytester.runpytest("--modelopt", "-p", "no:cacheprovider").assert_outcomes(passed=1, failed=1)


WITHOUT_DATA = "version: 1\nmodels:\n  m:\n    factory: shop:classifier\n    example_inputs: shop:one\n"


def test_no_data_is_needed_where_nothing_asks_for_answers(project: Project) -> None:
    pytester = project(f"{WITHOUT_DATA}    original: {{max_memory: 1 MiB}}\n    recipes: {{int8-dynamic: {{}}}}\n")
    with (pytester.path / "shop.py").open("a") as file:
        file.write("\ndef one():\n    return torch.ones(1, 64)\n")
    pytester.runpytest("--modelopt", "-p", "no:cacheprovider").assert_outcomes(passed=2)


MISTAKES = {
    f"{WITHOUT_DATA}    original: {{min_accuracy: 97%}}\n": "min_accuracy of m is about answers",
    f"{WITHOUT_DATA}    budget: {{max_flips: 1%}}\n    recipes: {{bf16: {{}}}}\n": "max_flips of m is about answers",
    "version: 1\nmodels:\n  m:\n    factory: shop:classifier\n    original: {max_size: 1 MB}\n": (
        "m has no `data`; add `data: package.module:function`"
    ),
    "version: 1\nmodels:\n  m:\n    factory: shop:classifier\n    data: shop:data\n": "m has no `recipes`; add",
    ALONE % "min_speedup: 2x": "`min_speedup` compares with the original",
    ALONE % "max_memoy: 2 MB": "did you mean 'max_memory'?",
}


@pytest.mark.parametrize("budgets", MISTAKES)
def test_what_the_model_alone_cannot_keep_is_refused(project: Project, budgets: str) -> None:
    result = project(budgets).runpytest("--modelopt")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert MISTAKES[budgets] in " ".join(result.stderr.str().split())


TESTS = """
@pytest.mark.model_budget(max_memory="1 MB", min_accuracy="50%")
def test_original(modelopt):
    found = modelopt(net, data=labelled(net()))
    assert found.variant.score == 1

def shrunk():
    model = net()
    model.body = nn.Sequential(nn.Linear(64, 512), nn.Identity())
    model.body[0].load_state_dict(net().body.state_dict())
    return model.to(torch.bfloat16).float().eval()

@pytest.mark.model_budget(max_accuracy_drop="20 pp")
def test_candidate(modelopt):
    assert modelopt(net, candidate=shrunk, data=labelled(net())).variant.recipe == "shrunk"

def test_live_candidate(modelopt):
    assert modelopt(net(), candidate=shrunk(), data=labelled(net())).variant.score > 0.8

@pytest.mark.model_budget(min_speedup="2x")
def test_nothing_to_compare(modelopt):
    modelopt(net, data=labelled(net()))

def test_both(modelopt):
    modelopt(net, "bf16", candidate=shrunk, data=labelled(net()))

def test_file(modelopt):
    modelopt(net, candidate="gone.onnx", data=labelled(net()))
"""


def test_tests_gate_the_model_itself_and_candidates(project: Project) -> None:
    result = run(project, TESTS)
    result.assert_outcomes(passed=3, failed=3)
    told = " ".join(result.stdout.str().split())
    assert "min_speedup compares with the original; give a recipe or a candidate" in told
    assert "give a recipe or a candidate, not both" in told
    assert "gone.onnx cannot be read: No such file or directory" in told


MADE_AGAIN = """
from shop import classifier, nn

class Made(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = classifier()
    def forward(self, x):
        return self.body(x)
    def __reduce__(self):
        return model, ()

def model():
    return Made().eval()
"""


def test_a_model_that_is_saved_without_its_weights_is_told_and_no_error(project: Project) -> None:
    pytester = project((ALONE % "max_size: 0.1 MiB").replace("shop:classifier", "made:model"))
    pytester.makepyfile(made=MADE_AGAIN)
    result = pytester.runpytest("--modelopt", "--modelopt-report", "report")
    result.assert_outcomes(passed=1)
    (case,) = read(pytester.path / "report" / "record.json").cases
    assert case.variant is not None
    assert case.variant.size_bytes is not None
    assert case.variant.size_bytes < WEIGHTS
    told = f"which is less than the {WEIGHTS:,} bytes of its weights: gradients that a training has left"
    assert told in case.variant.notes[-1]
