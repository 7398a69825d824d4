"""Each mistake gives one clear message, and the run's other cases are unaffected."""

from __future__ import annotations

from collections.abc import Callable
from xml.etree import ElementTree

import pytest

from tests.plugin.small_project import one_case

Project = Callable[..., pytest.Pytester]

GOOD_CASE = """
  good:
    factory: shop:classifier
    data: shop:data
    recipes:
      low-rank(ratio=0.5): {max_size: 1 GB}
"""


@pytest.mark.parametrize(
    ("budgets", "messages"),
    [
        ("", ["*budgets.yaml*empty*"]),
        ("a: [", ["*budgets.yaml:1*"]),
        (one_case().replace("version: 1\n", "version: 1\ncolour: red\n"), ["*budgets.yaml:2*colour*"]),
        (one_case("{max_memroy: 1 MB}"), ["*budgets.yaml:7*max_memroy*max_memory*"]),
        (one_case(recipe="int8-dynamc"), ["*budgets.yaml:7*int8-dynamc*int8-dynamic*"]),
        (one_case("{max_memory: 3 s}"), ["*budgets.yaml:7*3 s*"]),
        (one_case("{max_accuracy_drop: 1%}"), ["*budgets.yaml:7*1%*ambiguous*1 pp*"]),
        (one_case("{max_flips: .nan}"), ["*budgets.yaml:7*max_flips*"]),
        (one_case("{max_size: 1 MB, max_size: 2 MB}"), ["*budgets.yaml:7*max_size*twice*"]),
        (one_case() + "    recipes: {}\n", ["*budgets.yaml:8*recipes*twice*"]),
        (one_case() + "regression: {}\n", ["*budgets.yaml:8*regression*"]),
    ],
)
def test_a_wrong_budgets_file_is_a_usage_error_with_its_line(
    project: Project, budgets: str, messages: list[str]
) -> None:
    result = project(budgets).runpytest("--modelopt")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([*messages, "see https://*/troubleshooting/#usage-budgets"])


# name -> (what differs from the good case, message); in this order
BAD = {
    "import": ({"factory": "no_such_shop:classifier"}, "module `no_such_shop` cannot be imported: ModuleNotFound"),
    "name": ({"factory": "shop:clasifier"}, "`shop` has no `clasifier`; did you mean `classifier`?"),
    "raises": ({"factory": "shop:raises"}, "model `shop:raises` raised FileNotFoundError: weights/best.pt"),
    "no-module": ({"factory": "shop:no_module"}, "returned a OrderedDict, not a torch.nn.Module"),
    "killed": ({"factory": "shop:kills_itself"}, "the worker process died during `load`: ended by SIGKILL"),
    "nan": ({"factory": "shop:not_a_number"}, "outputs are not finite"),
    "empty": ({"data": "shop:empty"}, "the data is empty, so there is no example to measure on: give at least one"),
    "too-few": ({"data": "shop:too_few_targets"}, "the data has 200 inputs but 199 targets"),
    "misfit": ({"data": "shop:misfit"}, "the model does not accept the data: RuntimeError*(input (1, 7) float32)"),
    "middle": ({"data": "shop:raises_in_the_middle"}, "reading its data: the data raised OSError: gone when batch 1"),
    "form": ({"data": "shop:changes_form"}, "batch 1 of the data holds inputs in a tuple of 2 "),
    "differs": ({"data": "shop:other_each_time"}, "the data differs from one load to the next: example 0 "),
    "calibration": ({"recipe": "int8-static"}, "int8-static needs calibration data"),
    "nothing": (
        {"factory": "shop:only_convolutions", "data": "shop:images"},
        "int8-dynamic changed nothing: the model holds 1 Conv2d*int8-static",
    ),
}


def bad_case(name: str, factory: str = "shop:classifier", data: str = "shop:data", recipe: str = "int8-dynamic") -> str:
    return f"  {name}:\n    factory: {factory}\n    data: {data}\n    recipes:\n      {recipe}:\n"


def test_a_case_that_cannot_be_measured_is_its_own_error(project: Project) -> None:
    """Good ones stand first, in the middle, and last: to each of them it makes no difference."""
    models = [bad_case(name, **parts) for name, (parts, _) in BAD.items()]
    for number, position in enumerate((len(models), list(BAD).index("killed") + 1, 0)):
        models.insert(position, GOOD_CASE.replace("good", f"good-{number}"))
    result = project("version: 1\nmodels:\n" + "".join(models)).runpytest("--modelopt")
    result.assert_outcomes(passed=3, failed=len(BAD))
    for name, (_, message) in BAD.items():
        result.stdout.fnmatch_lines([f"{name}/*: *{message}*"])
    result.stdout.fnmatch_lines(["killed/*: error *", "*the worker's last output:*", "*loading the checkpoint*"])


def test_an_original_that_fails_is_told_once_in_every_report(project: Project) -> None:
    budgets = one_case(factory="shop:kills_itself").replace(
        "int8-dynamic:", "int8-dynamic: {}\n      bf16: {}\n      fp16:"
    )
    pytester = project(budgets)
    result = pytester.runpytest("--modelopt", "--modelopt-report=report", "--junitxml=junit.xml")
    result.assert_outcomes(failed=3)
    shown = result.stdout.str().partition("short test summary")[0]
    assert shown.count("loading the checkpoint") == 1, "in FAILURES only"
    assert (pytester.path / "report" / "summary.md").read_text(encoding="utf-8").count("loading the checkpoint") == 1
    junit = (pytester.path / "junit.xml").read_text(encoding="utf-8")
    assert junit.count("loading the checkpoint") == 1
    messages = [element.get("message") or "" for element in ElementTree.fromstring(junit).iter("failure")]
    assert len(messages) == 3
    for message in messages:
        assert message.startswith("error while loading the model or its data: the original cannot be")
    assert junit.count(" (as in m/int8-dynamic)") == 2


def test_a_case_that_hangs_ends_at_the_step_limit(project: Project) -> None:
    pytester = project(one_case(factory="slow:model") + GOOD_CASE)
    pytester.makepyfile(slow="import time\ndef model():\n    time.sleep(300)\n")
    result = pytester.runpytest("--modelopt", "--modelopt-step-limit", "5 s")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*did not finish `load` within 5 s (`step_limit`)*"])


def test_a_model_in_training_mode_is_measured_in_eval_mode_and_it_is_said(project: Project) -> None:
    result = project(one_case("{max_flips: 5%}", factory="shop:in_training_mode")).runpytest("--modelopt", "-v")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*NOTE m (original, int8-dynamic): the model was in training mode*"])


@pytest.mark.parametrize(
    ("marker", "messages"),
    [
        ('max_memroy="1 MB"', ["*test_it.py:2*max_memroy*max_memory*"]),
        ("6", ["*test_it.py:2*"]),
        ('max_memory="1 MBit"', ["*test_it.py:2*1 MBit*"]),
        ('max_accuracy_drop="1%"', ["*test_it.py:2*ambiguous*"]),
        ('"m/int8-dynamc"', ["*test_it.py:2*m/int8-dynamc*unknown recipe*int8-dynamic*"]),
        ('max_memroy="1 MB", min_sped=2', ["*max_memroy*", "*min_sped*"]),
    ],
)
def test_a_wrong_marker_is_a_usage_error_before_anything_runs(
    project: Project, marker: str, messages: list[str]
) -> None:
    pytester = project(one_case())
    pytester.makepyfile(
        test_it=f"""
            import pytest
            @pytest.mark.model_budget({marker})
            def test_it(modelopt):
                raise AssertionError("must not run")
        """
    )
    result = pytester.runpytest("--modelopt", "test_it.py")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(messages)


@pytest.mark.parametrize("option", ["--modelopt-time-limit", "--modelopt-step-limit"])
def test_a_time_without_its_unit_is_a_usage_error(project: Project, option: str) -> None:
    result = project().runpytest("--modelopt", option, "20")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{option}*20*unit*"])


def test_an_original_that_fails_is_told_once_and_without_our_own_traceback(
    project: Callable[..., pytest.Pytester],
) -> None:
    budgets = one_case("{max_size: 1 MB}", factory="shop:raises") + "      fp16: {max_size: 1 MB}\n"
    result = project(budgets).runpytest("--modelopt", "-p", "no:cacheprovider", "--no-summary", "--tb=no")
    result.assert_outcomes(failed=2)
    told = [line for line in result.outlines if line.startswith("ERROR ")]
    assert len(told) == 1
    assert told[0].startswith("ERROR m/int8-dynamic and fp16: error while loading the model")
    whole = result.stdout.str()
    assert 'raise FileNotFoundError("weights/best.pt")' in whole
    assert "Traceback" not in whole
    assert "pytest_modelopt/" not in whole
