"""Recipes of the project's own: registered by a hook in conftest.py or by an installed package, and told when wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_modelopt.cli.main import main
from pytest_modelopt.optimizing.registry import BUILT_IN, RECIPES
from tests.plugin.own_recipe import HOOK, ROUND
from tests.plugin.small_project import one_case

Project = Callable[..., pytest.Pytester]

CASE = one_case("{min_coverage: 90%, max_flips: 1%}", recipe="round(step=0.001)")


def test_a_recipe_of_conftest_is_used_in_budgets_and_in_tests(project: Project) -> None:
    pytester = project(CASE)
    pytester.makeconftest(ROUND + HOOK)
    pytester.makepyfile(
        """
        import torch
        import shop

        def test_it(optimize):
            variant = optimize(shop.classifier(), "round(step=0.5) + int8-dynamic", data=shop.data())
            assert variant.notes[0] == "rounded to multiples of 0.5"
            assert [step.recipe for step in variant.coverage.steps] == ["round(step=0.5)", "int8-dynamic"]

        def test_alone(optimize):
            model = optimize(shop.classifier(), "round(step=0.5)", data=shop.data()).load()
            assert torch.equal(model[0].weight, (shop.classifier()[0].weight * 2).round() / 2)
        """
    )
    result = pytester.runpytest("--modelopt")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["*pass*round(step=0.001)*"])


def test_what_one_run_added_the_next_one_does_not_know(project: Project) -> None:
    pytester = project(CASE)
    pytester.makeconftest(ROUND + HOOK)
    pytester.runpytest("--modelopt", "--collect-only").assert_outcomes()
    assert "round" not in RECIPES
    (pytester.path / "conftest.py").unlink()
    result = pytester.runpytest("--modelopt")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*unknown recipe 'round'*"])


def test_the_hook_is_known_and_not_called_while_the_gate_is_off(project: Project) -> None:
    pytester = project(None)
    pytester.makeconftest("def pytest_modelopt_register_recipes(register):\n    raise AssertionError('called')")
    pytester.makepyfile("def test_it(): pass")
    pytester.runpytest("--strict-config").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        # Before Python 3.11 it passes for a class.
        ("register(list[int])", "list[[]int[]] is not a subclass of pytest_modelopt.Recipe"),
        ("Round.recipe_name = 'Round it'; register(Round)", "'Round it', the name of *.Round, is not made of"),
        ("Round.recipe_name = 'original'; register(Round)", "'original', the name of *, stands for the model without*"),
        ("Round.recipe_name = 'low-rank'; register(Round)", "the name 'low-rank' of *.Round is taken by *.LowRank"),
        ("del Round.summary; register(Round)", "*.Round does not set `summary`, a class variable (text)"),
        ("del Round.apply; register(type('R', (Recipe,), dict(vars(Round))))", "the recipe *does not define `apply`"),
    ],
)
def test_a_recipe_that_is_not_whole_is_a_usage_error(project: Project, recipe: str, told: str) -> None:
    pytester = project(CASE)
    pytester.makeconftest(ROUND + f"def pytest_modelopt_register_recipes(register):\n    {recipe}\n")
    result = pytester.runpytest("--modelopt")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{told}*"])


def test_a_mistake_in_its_parameters_is_told_like_any_other(project: Project) -> None:
    pytester = project(one_case(recipe="round(step=-1)"))
    pytester.makeconftest(ROUND + HOOK)
    result = pytester.runpytest("--modelopt")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*budgets.yaml:7*step of round must be a number above 0*"])


def install(pytester: pytest.Pytester, value: str) -> None:
    """A package as an installer leaves it, with an entry point for one recipe."""
    (pytester.path / "our_recipes.py").write_text(ROUND, encoding="utf-8")
    metadata = pytester.path / "our_recipes-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: our-recipes\nVersion: 1.0\n", encoding="utf-8")
    (metadata / "entry_points.txt").write_text(f"[pytest_modelopt.recipes]\nround = {value}\n", encoding="utf-8")
    pytester.syspathinsert()


def test_an_installed_package_adds_recipes_also_to_the_command_line(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester = project(CASE)
    install(pytester, "our_recipes:Round")
    pytester.runpytest("--modelopt").assert_outcomes(passed=1)
    capsys.readouterr()
    try:
        assert main(["recipes", "round"]) == 0
        assert capsys.readouterr().out.splitlines() == [
            "round: rounds the weights of Linear",
            "    step=0.125 (a number above 0)",
            "    changes Linear",
            "    runs here: yes",
        ]
        assert main(["validate", str(pytester.path / "budgets.yaml")]) == 0
    finally:
        RECIPES.pop("round", None)


def test_an_entry_point_that_cannot_be_loaded_is_named(project: Project) -> None:
    pytester = project(CASE)
    install(pytester, "our_recipes:Rounded")
    result = pytester.runpytest("--modelopt")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*the entry point round = our_recipes:Rounded*cannot be loaded: AttributeError*"])


def test_the_list_names_every_recipe_with_its_parameters_and_what_this_machine_lacks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RECIPES["prune-structured"], "requires", ("torch_pruning_is_absent",))
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[0] for line in lines if not line.startswith(" ")] == list(RECIPES)
    text = "\n".join(lines)
    assert "    ratio=0.3 (a number between 0 and 1, both excluded): share of the channels of each layer" in text
    assert all(field.description for recipe in BUILT_IN for field in recipe.model_fields.values())
    assert "    runs here: no: prune-structured needs torch_pruning_is_absent: run `pip install" in text


def test_an_unknown_name_is_told_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "low-rnk"]) == 2
    assert "did you mean 'low-rank'?" in capsys.readouterr().err
