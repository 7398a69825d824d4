"""Limits on answers in real runs: of the population, by classes, and by slices of the project's own."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_modelopt.cli.main import main
from pytest_modelopt.results.json import read
from tests.plugin.small_project import one_case, run

Project = Callable[..., pytest.Pytester]

POPULATION = "version: 1\ndefaults: {inference: population}\n"


def in_population(*arguments: str, **words: str) -> str:
    return one_case(*arguments, **words).replace("version: 1\n", POPULATION)


def test_the_bound_decides_and_the_record_alone_says_so_again(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    """Folding changes no answer to 50 examples. z2 = 2.706: at most z2 / (50 + z2) = 5.13 points, and it takes 99 z2
    examples to bring that to one point."""
    budgets = in_population(
        "{max_accuracy_drop: 1 pp, max_flips: 5.2%}",
        recipe="fold-batchnorm",
        factory="shop:convolutions",
        data="shop:images",
    )
    pytester = project(budgets)
    result = pytester.runpytest("--modelopt", "--modelopt-report", "told", "-v")
    result.assert_outcomes(passed=1)
    told = (
        "m/fold-batchnorm: max_accuracy_drop 1 pp is inconclusive: 0 pp measured on 50 examples, -5.13 pp to 5.13 pp "
        "in the population (95% on each side), and the limit lies between: about 270 examples would be needed"
    )
    result.stdout.fnmatch_lines(["*drop: with its 95% bound, which limits are judged by*"])
    assert f"INCONCLUSIVE {told}" in " ".join(str(result.stdout).split())
    (case,) = read(pytester.path / "told" / "record.json").cases
    assert (case.inference, [verdict.outcome for verdict in case.verdicts]) == ("population", ["inconclusive", "pass"])
    capsys.readouterr()
    assert main(["report", str(pytester.path / "told" / "record.json")]) == 0
    assert told in " ".join(capsys.readouterr().out.split())
    Path("budgets.yaml").write_text(budgets.replace("inference: population", "inference: set"), encoding="utf-8")
    assert main(["report", str(pytester.path / "told" / "record.json"), "--budgets", "budgets.yaml", "--strict"]) == 0
    pytester.runpytest("--modelopt", "--modelopt-strict").assert_outcomes(passed=1)


def test_a_drop_that_the_population_has_for_sure_is_red(project: Project) -> None:
    result = project(in_population("{max_accuracy_drop: 1 pp}", recipe="prune-unstructured(ratio=0.9)")).runpytest(
        "--modelopt"
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*max_accuracy_drop 1 pp is broken: * pp measured on 200 examples, at least * pp in the population (95%)*"]
    )


def test_a_test_may_say_what_its_limits_are_about(project: Project) -> None:
    result = run(
        project,
        """
@pytest.mark.model_budget(max_accuracy_drop="90 pp", min_accuracy="1%")
def test_population(modelopt):
    model = net()
    assert modelopt(model, "int8-dynamic", data=labelled(model), inference="population").case.inference == "population"

def test_set_by_default(modelopt):
    model = net()
    assert modelopt(model, "int8-dynamic", data=labelled(model)).case.inference == "set"

def test_neither(modelopt):
    model = net()
    modelopt(model, "int8-dynamic", data=labelled(model), inference="popluation")
""",
    )
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*inference: 'popluation' does not say * did you mean 'population'?"])


def test_a_metric_without_an_interval_says_the_way_out(project: Project) -> None:
    budgets = in_population("{max_accuracy_drop: 0.5}").replace("    recipes:", "    metric: scores:peak\n    recipes:")
    pytester = project(budgets)
    pytester.makepyfile(scores="def peak(outputs, targets):\n    return outputs.max()\npeak.higher_is_better = True\n")
    result = pytester.runpytest("--modelopt")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*was not measured, which counts as broken (the drop has no interval: *`inference: set` judges*"]
    )


def test_the_worst_class_turns_the_run_red_with_its_name(project: Project) -> None:
    budgets = one_case("{max_slice_drop: 20 pp, max_accuracy_drop: 100 pp}", recipe="prune-unstructured(ratio=0.9)")
    result = project(budgets).runpytest("--modelopt", "--modelopt-report", "told")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "m/prune-unstructured(ratio=0.9): max_slice_drop 20 pp is broken: class * lost * of * examples and won *pp "
            "beyond the limit*",
            "  changed (* right to wrong, * wrong to right): example *(target *): * -> *and * more in the record",
        ]
    )
    summary = (Path("told") / "summary.md").read_text(encoding="utf-8")
    assert re.search(r"\| +[0-9]+ \| +9 \| +9 \| +[0-8] \| right to wrong", summary)
    assert re.search(r"\| class 9 +\| +30 \|", summary)


SLICED = """
def slice_of(inputs, target):
    return "bright" if inputs[0] > 0 else "dark"

@pytest.mark.model_budget(max_slice_drop="20 pp")
def test_broken(modelopt):
    model = net()
    inputs, targets = labelled(model)
    result = modelopt(model, "prune-unstructured(ratio=0.95)", data=(inputs, targets), slices=slice_of)
    assert set(result.slices.names) == {"bright", "dark"}
    assert sum(result.slices.examples) == 100
    assert sum(result.slices.right_to_wrong) == result.agreement.right_to_wrong
    bright = dict(zip(result.slices.names, result.slices.examples))["bright"]
    assert bright == int((inputs[:, 0] > 0).sum())

def test_no_function(modelopt):
    model = net()
    modelopt(model, "int8-dynamic", data=labelled(model), slices=["bright", "dark"])
"""


def test_slices_of_the_projects_own_from_a_test(project: Project) -> None:
    result = run(project, SLICED)
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            "*max_slice_drop 20 pp is broken: slice * lost * of * examples and won *",
            "slices=[[]'bright', 'dark'] is no function (inputs, target) -> name*",
        ]
    )


def test_slices_of_the_projects_own_from_the_file(project: Project) -> None:
    budgets = one_case("{max_slice_drop: 20 pp}", recipe="prune-unstructured(ratio=0.9)")
    pytester = project(budgets.replace("    recipes:", "    slices: cameras:camera\n    recipes:"))
    pytester.makepyfile(cameras="def camera(inputs, target):\n    return 'left' if target < 5 else 'right'\n")
    result = pytester.runpytest("--modelopt")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*max_slice_drop 20 pp is broken: slice *t lost * of * examples and won *"])
