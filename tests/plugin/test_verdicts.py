"""Each limit holds when it can be kept, and turns the run red with its sentence when it cannot."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.plugin.small_project import one_case

Project = Callable[..., pytest.Pytester]

# limit -> (a value that holds, a value that nothing can reach, what the sentence says)
LIMITS = {
    "max_memory": ("1 MB", "1 kB", "max_memory 1 kB is broken: * measured, * more than the limit"),
    "min_memory_reduction": ("50%", "99%", "min_memory_reduction 99% is broken: *% measured, * below the limit"),
    "max_process_memory": (
        "100 MB",
        "1 kB",
        "max_process_memory 1 kB is broken: * measured by memray in 3 fresh processes, * more than the limit",
    ),
    "max_size": ("1 MB", "1 kB", "max_size 1 kB is broken: * measured, * more than the limit"),
    "min_size_reduction": ("50%", "99%", "min_size_reduction 99% is broken: *% measured, * below the limit"),
    "min_speedup": ("0.01x", "1000x", "min_speedup 1000x is broken: *x [[]*x, *x] over * pairs, * less than the limit"),
    "max_latency": ("10 s", "1 us", "max_latency 1 us is broken: * [[]*, *] over * pairs, * more than the limit"),
    "max_accuracy_drop": ("20 pp", "-50 pp", None),
    "min_accuracy": ("50%", "100%", "min_accuracy 100% is broken: *% measured, * pp beyond the limit"),
    "max_slice_drop": (
        "90 pp",
        "0 pp",
        "max_slice_drop 0 pp is broken: class * lost * of * examples and won * (* pp), * pp beyond the limit*",
    ),
    "max_flips": ("20%", "0%", "max_flips 0% is broken: *% measured, * above the limit"),
    "min_coverage": ("90%", "100%", "min_coverage 100% is broken: *% measured, * below the limit"),
}
UNATTAINABLE = {name: (value, text) for name, (_, value, text) in LIMITS.items() if text is not None}


def test_every_limit_can_be_kept(project: Project) -> None:
    limits = ", ".join(f"{name}: {value}" for name, (value, _, _) in LIMITS.items())
    result = project(one_case(f"{{{limits}}}")).runpytest("--modelopt")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["modelopt: passed. 1 case: 1 passed*", "modelopt: 2 timed limits*"])


def test_every_limit_turns_the_run_red_with_its_sentence(project: Project) -> None:
    """Each alone in its case: eleven cases of five lines each, of one original."""
    models = [
        f"  {name}:\n    factory: shop:classifier\n    data: shop:data\n"
        f"    recipes:\n      int8-dynamic: {{{name}: {value}}}\n"
        for name, (value, _) in UNATTAINABLE.items()
    ]
    result = project(f"version: 1\nmodels:\n{''.join(models)}").runpytest("--modelopt")
    result.assert_outcomes(failed=11)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    for number, (name, (_, text)) in enumerate(UNATTAINABLE.items()):
        result.stdout.fnmatch_lines([f"{name}/int8-dynamic: {text}. (budgets.yaml:{7 + 5 * number})"])


def test_an_accuracy_drop_turns_the_run_red(project: Project) -> None:
    """Half of the weights gone without retraining: far more than a point of accuracy on this untrained model."""
    budgets = one_case("{max_accuracy_drop: 1 pp}", recipe="prune-unstructured(ratio=0.9)")
    result = project(budgets).runpytest("--modelopt")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*max_accuracy_drop 1 pp is broken: * pp measured, * pp beyond the limit. (budgets*:7)"]
    )


def test_a_limit_of_level_warn_is_shown_and_does_not_fail(project: Project) -> None:
    result = project(one_case("{max_size: {limit: 1 kB, level: warn}, max_flips: 50%}")).runpytest("--modelopt")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["WARN m/int8-dynamic: max_size 1 kB is broken*", "  ! warn *int8-dynamic*"])


def test_an_inconclusive_limit_warns_and_fails_only_under_strict(project: Project) -> None:
    """A tenth of a second cannot tell apart what is nearly equal: the limit is taken from a first run's estimate."""
    pytester = project(one_case("{max_size: 1 GB}", recipe="prune-unstructured(ratio=0.5)"))
    pytester.makepyfile(
        test_near="""
import pathlib

def test_near(modelopt):
    result = modelopt("shop:classifier", "prune-unstructured(ratio=0.5)", data="shop:data")
    pathlib.Path("estimate").write_text(repr(result.speedup))
"""
    )
    pytester.runpytest("--modelopt", "test_near.py").assert_outcomes(passed=1)
    estimate = float((pytester.path / "estimate").read_text())
    near = one_case(f"{{min_speedup: {estimate}}}", recipe="prune-unstructured(ratio=0.5)")
    (pytester.path / "budgets.yaml").write_text(near, encoding="utf-8")
    arguments = ["--modelopt", "--modelopt-time-limit", "1 ms", "budgets.yaml"]  # a single pair is no evidence at all
    result = pytester.runpytest(*arguments)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["INCONCLUSIVE m/*: min_speedup * is inconclusive: * over 1 pairs in *"])
    result = pytester.runpytest(*arguments, "--modelopt-strict")
    result.assert_outcomes(failed=1)
    pytester.makeini("[pytest]\nmodelopt_strict = true")
    pytester.runpytest(*arguments).assert_outcomes(failed=1)


def test_a_limit_that_was_not_measured_is_broken(project: Project) -> None:
    """flips need predictions; a regression metric has none."""
    budgets = one_case("{max_flips: 50%}").replace("    recipes:", "    metric: scores:total\n    recipes:")
    pytester = project(budgets)
    pytester.makepyfile(
        scores="def total(outputs, targets):\n    return outputs.sum()\ntotal.higher_is_better = True\n"
    )
    result = pytester.runpytest("--modelopt")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*max_flips 50% was not measured, which counts as broken (*metric scores:total is not right-or-wrong per ex*"]
    )


def test_a_case_without_limits_says_so(project: Project) -> None:
    result = project(one_case()).runpytest("--modelopt")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["  no limits *int8-dynamic*"])


def test_the_exact_figures_repeat_in_another_run(project: Project) -> None:
    import json

    pytester = project(one_case("{max_size: 1 GB}"))
    exact = []
    for folder, run in (("one", pytester.runpytest), ("two", pytester.runpytest_subprocess)):
        run("--modelopt", "--modelopt-report", folder).assert_outcomes(passed=1)
        case = json.loads((pytester.path / folder / "record.json").read_text())["cases"][0]
        for side in ("reference", "variant"):
            case[side].pop("seconds")
            case[side]["observations"].pop("first_call_s")
        exact.append([case["reference"], case["variant"], case["coverage"], case["agreement"]])
    assert exact[0] == exact[1]


def test_points_do_not_fit_a_metric_that_goes_beyond_one(project: Project) -> None:
    """97% is 0.97: a floor that a score of 93 can never break."""
    limits = {"floor": "{min_accuracy: 97%}", "drop": "{max_accuracy_drop: 1 pp}", "slice": "{max_slice_drop: 1 pp}"}
    models = [
        f"  {name}:\n    factory: shop:classifier\n    data: shop:data\n    metric: scores:percent\n"
        f"    recipes:\n      int8-dynamic: {limit}\n"
        for name, limit in limits.items()
    ]
    pytester = project(f"version: 1\nmodels:\n{''.join(models)}")
    pytester.makepyfile(
        scores="def percent(outputs, targets):\n    return 100 * (outputs.argmax(1) == targets).float().mean()\n"
        "percent.higher_is_better = True\n"
    )
    result = pytester.runpytest("--modelopt")
    result.assert_outcomes(failed=3)
    for name in limits:
        told = "gives 100: write a plain number in the metric's unit (budgets.yaml:*)"
        result.stdout.fnmatch_lines([f"{name}/int8-dynamic: *belongs to scores from 0 to 1, but scores:percent {told}"])


def test_a_drop_that_nothing_can_exceed_is_no_limit(project: Project) -> None:
    """Of a score from 0 to 1, a plain 1 was meant as a point; `100 pp` says what it allows."""
    metric = "{name: torchmetrics.classification.MulticlassF1Score, arguments: {num_classes: 10}}"
    stated = {
        "plain": "{max_accuracy_drop: 1}",
        "points": "{max_accuracy_drop: 100 pp}",
        "less": "{max_accuracy_drop: 0.9}",
    }
    models = [
        f"  {name}:\n    factory: shop:classifier\n    data: shop:data\n    metric: {metric}\n"
        f"    recipes:\n      int8-dynamic: {limit}\n"
        for name, limit in stated.items()
    ]
    result = project(f"version: 1\nmodels:\n{''.join(models)}").runpytest("--modelopt")
    result.assert_outcomes(failed=1, passed=2)
    result.stdout.fnmatch_lines(
        ["plain/int8-dynamic: *max_accuracy_drop: 1 would allow every drop of MulticlassF1Score*write 1 pp*"]
    )


def test_a_metric_must_say_its_direction(project: Project) -> None:
    budgets = one_case("{max_accuracy_drop: 0.01}").replace("    recipes:", "    metric: scores:loss\n    recipes:")
    pytester = project(budgets)
    pytester.makepyfile(scores="def loss(outputs, targets):\n    return outputs.abs().mean()\n")
    result = pytester.runpytest("--modelopt")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*the metric `scores:loss` does not say whether higher is better*"])
