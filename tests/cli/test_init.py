"""`pytest-modelopt init`: what it writes is a budgets file that the gate passes on, or nothing."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from pytest_modelopt.cli import init_trials
from pytest_modelopt.cli.init import require_that_it_holds
from pytest_modelopt.cli.main import main
from pytest_modelopt.cli.shared.model_options import name_of
from pytest_modelopt.config.loader import load_budgets
from pytest_modelopt.exploring.space import fits
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.optimizing.registry import RECIPES
from pytest_modelopt.plugin.session import Session
from pytest_modelopt.results.answers import Agreement
from tests.exploring.candidates_by_hand import candidate
from tests.reporting.records_by_hand import record

SHOP = '''
import torch
from torch import nn

def load_small_net():
    """Layers so large that int8 makes it a quarter, and no slower."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 1024), nn.ReLU(), nn.Linear(1024, 512), nn.ReLU(), nn.Linear(512, 10)).eval()

def data():
    inputs = torch.randn(200, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return inputs, load_small_net()(inputs).argmax(1)

def load_wide_net():
    """The same, with answers that are real numbers."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(64, 1024), nn.ReLU(), nn.Linear(1024, 512), nn.ReLU(), nn.Linear(512, 3)).eval()

def values():
    inputs = torch.randn(200, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return inputs, load_wide_net()(inputs)[:, 0] + 1

def first_column(outputs, targets):
    return outputs[:, 0], targets

def squared_error(outputs, targets):
    return (outputs - targets) ** 2

def without_weights():
    raise FileNotFoundError("weights/best.pt")
'''


@pytest.fixture
def shop(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.delenv("COLUMNS", raising=False)
    pytester.makepyfile(shop=SHOP)
    return pytester


def test_the_gate_passes_on_what_was_written(shop: pytest.Pytester, capsys: pytest.CaptureFixture[str]) -> None:
    recipes = ("int8-dynamic", "int8-static", "int8-dynamic()")
    asked = [argument for recipe in recipes for argument in ("--recipe", recipe)]
    assert main(["init", "shop:load_small_net", "--data", "shop:data", "--time-limit", "1 s", *asked]) == 0
    told = capsys.readouterr().out
    assert "budgets.yaml: written, with 1 of 2 recipes: check it by `pytest --modelopt`\n" in told
    file = shop.path / "budgets.yaml"
    text = file.read_text(encoding="utf-8")
    (case,) = load_budgets(file, relative_to=shop.path).cases
    assert case.name == "small-net/int8-dynamic"
    names = {limit.name for limit in case.limits}
    assert names >= {"max_memory", "max_size", "max_accuracy_drop", "min_accuracy"}
    assert "# int8-static: left out: int8-static needs calibration data" in text
    assert "Written by `pytest-modelopt init` on 20" in text.splitlines()[0]
    assert " torch 2" in " ".join(text.splitlines()[:2])
    values = {limit.name: limit.value for limit in case.limits}
    assert values["max_accuracy_drop"] >= 0.015
    assert values["min_accuracy"] == pytest.approx(1 - values["max_accuracy_drop"])
    assert "int8-dynamic: # memory " in text
    assert "time_limit: 1 s" in text
    result = shop.runpytest("--modelopt", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)
    assert main(["init", "shop:load_small_net", "--data", "shop:data"]) == 2
    told = capsys.readouterr().err
    assert "budgets.yaml exists, and init overwrites nothing: add this model to it by --add, or name another" in told
    assert file.read_text(encoding="utf-8") == text


def test_what_is_too_wrong_is_not_timed_nor_scored_to_the_end() -> None:
    """Five points of the score are too much: 18 of 360 are exactly that."""
    for lost, goes_on in ((18, True), (19, False)):
        funnel = init_trials._Funnel()
        case = candidate("int8-dynamic", lost=lost)
        assert funnel.goes_on(case, "score")
        assert funnel.goes_on(case, "timing") is goes_on
    assert funnel.goes_on(replace(case, agreement=Agreement(64, 4, 0, 4)), "look")
    assert not funnel.why
    assert not funnel.goes_on(replace(case, agreement=Agreement(64, 40, 0, 40)), "look")
    assert funnel.why.startswith("64 examples, drawn at random, show at least ")


def test_a_factory_that_fails_is_told_as_the_gate_tells_it(
    shop: pytest.Pytester, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", "shop:without_weights", "--data", "shop:data", "--recipe", "int8-dynamic"]) == 2
    told = capsys.readouterr().err
    assert "without-weights/int8-dynamic: error while loading the model or its data: the original cannot be " in told
    assert "model `shop:without_weights` raised FileNotFoundError: weights/best.pt" in told
    assert not (shop.path / "budgets.yaml").exists()


def test_where_nothing_is_worth_a_budget_nothing_is_written(
    shop: pytest.Pytester, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", "shop:load_small_net", "--data", "shop:data", "--recipe", "int8-static"]) == 2
    told = capsys.readouterr().err
    assert "no recipe is worth a budget here, so nothing was written:" in told
    assert "int8-static: left out: int8-static needs calibration data" in told
    assert list(shop.path.glob("*budgets*")) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--recipe", "int8-dynamc"), "did you mean 'int8-dynamic'?"),
        (("--name", "a/b"), "the model name 'a/b' contains `/`"),
        (("--name", ""), "a model has an empty name"),
        (("--metric", "acuracy"), "'acuracy'"),
        (("--metric", "{name: accuracy, per_example: true}"), "`accuracy` is built in and takes no `per_example`"),
        (("--metric", "{nam: accuracy}"), "'nam'"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_measured(
    shop: pytest.Pytester, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert main(["init", "no_such_module:net", "--data", "shop:data", *arguments]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert "no_such_module" not in told
    assert list(shop.path.iterdir()) == [shop.path / "shop.py"]


@pytest.mark.parametrize("output", ["shop.py/budgets.yaml", "shop.py/more/budgets.yaml"])
def test_where_nothing_can_be_written_is_said_before_anything_is_measured(
    shop: pytest.Pytester, capsys: pytest.CaptureFixture[str], output: str
) -> None:
    assert main(["init", "no_such_module:net", "--data", "shop:data", "--output", output]) == 2
    assert f"{output} cannot be written: {shop.path / 'shop.py'}: Not a directory" in capsys.readouterr().err
    assert list(shop.path.iterdir()) == [shop.path / "shop.py"]


def test_an_interrupted_command_says_so_and_leaves_nothing(
    shop: pytest.Pytester, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Session, "run", interrupted)
    assert main(["init", "shop:load_small_net", "--data", "shop:data", "--output", "new/budgets.yaml"]) == 130
    assert capsys.readouterr() == ("", "interrupted\n")
    assert list(shop.path.iterdir()) == [shop.path / "shop.py"]


@pytest.mark.parametrize("arguments", [("shop.net", "--data", "shop:data"), ("shop:net", "--data", "shop/data.py")])
def test_names_that_are_no_functions(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["init", *arguments])
    assert exit.value.code == 2
    assert "does not name a function; write `package.module:function`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("factory", "name"),
    [
        ("shop.vision:load_model", "vision"),
        ("shop:load_digits_vit", "digits-vit"),
        ("shop:Digits.make", "shop"),
        ("my_shop:build", "my-shop"),
        ("shop:ResNet18", "resnet18"),
    ],
)
def test_the_name_of_a_model(factory: str, name: str) -> None:
    assert name_of(factory) == name


METRIC = "{name: shop:squared_error, prepare: shop:first_column, per_example: true, higher_is_better: false}"
FILE = """\
# ours
version: 1
defaults: {time_limit: 1 s}   # short
models:
  small-net:   # the first
    factory: shop:load_small_net
    data: "shop:data"
    recipes:
      int8-dynamic: {max_size: 1 MiB}
      # bf16: left out
waivers: []  # none
"""


def test_a_second_model_with_a_metric_of_its_own_is_added(
    shop: pytest.Pytester, capsys: pytest.CaptureFixture[str]
) -> None:
    file = shop.path / "budgets.yaml"
    file.write_text(FILE, encoding="utf-8")
    call = ["init", "shop:load_wide_net", "--data", "shop:values", "--metric", METRIC, "--recipe", "int8-dynamic"]
    assert main([*call, "--add"]) == 0
    assert (
        "budgets.yaml: wide-net was added, with 1 of 1 recipes: check it by `pytest --modelopt`\n"
        in capsys.readouterr().out
    )
    text = file.read_text(encoding="utf-8")
    ahead, behind = FILE[: FILE.index("waivers")], "waivers: []  # none\n"
    assert text.startswith(f"{ahead}  # Added by `pytest-modelopt init` on 20")
    assert text.endswith(behind)
    assert "  wide-net:\n    factory: shop:load_wide_net\n    data: shop:values\n" in text
    assert f"    metric: {METRIC}\n    recipes:\n      int8-dynamic: # memory" in text
    case = load_budgets(file, relative_to=shop.path).cases[1]
    assert {limit.name for limit in case.limits} >= {"max_memory", "max_size", "max_accuracy_drop", "min_accuracy"}
    shop.runpytest("--modelopt", "-p", "no:cacheprovider").assert_outcomes(passed=2)
    assert main(["validate"]) == 0
    assert main([*call, "--add"]) == 2
    line = 1 + text.splitlines().index("  wide-net:")
    told = f"budgets.yaml:{line}: there is a model `wide-net` already: choose another one with --name"
    assert told in capsys.readouterr().err
    assert file.read_text(encoding="utf-8") == text


def test_a_file_that_was_changed_meanwhile_stays_as_it_is(
    shop: pytest.Pytester, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = shop.path / "budgets.yaml"
    file.write_text(FILE, encoding="utf-8")
    close = Session.close

    def change_and_close(session: Session) -> None:
        file.write_text(f"{FILE}# by others\n", encoding="utf-8")
        close(session)

    monkeypatch.setattr(Session, "close", change_and_close)
    call = ["init", "shop:load_wide_net", "--data", "shop:values", "--metric", METRIC, "--recipe", "int8-dynamic"]
    assert main([*call, "--add"]) == 2
    assert "was changed by others meanwhile, so nothing was written" in capsys.readouterr().err
    assert file.read_text(encoding="utf-8") == f"{FILE}# by others\n"
    assert list(shop.path.glob(".budgets*")) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "there is no budgets.yaml to add to: leave out --add"),
        (FILE.replace("1 MiB", "1"), "budgets.yaml:9: max_size of small-net/int8-dynamic: 1 has no unit"),
        ("{version: 1, models: {m: {factory: a:b, data: a:b, recipes: {bf16: }}}}", "written in braces or as an alias"),
    ],
)
def test_a_file_that_takes_no_model_is_told_before_anything_is_measured(
    shop: pytest.Pytester, capsys: pytest.CaptureFixture[str], text: str | None, said: str
) -> None:
    if text is not None:
        (shop.path / "budgets.yaml").write_text(text, encoding="utf-8")
    assert main(["init", "no_such_module:net", "--data", "shop:data", "--add"]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert "no_such_module" not in told


def test_files_beside_the_folder_of_the_budgets_are_inside_of_the_project(
    shop: pytest.Pytester, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both times that the file is checked; the worker then says what is wrong with the factory."""
    file = shop.mkdir("deploy") / "budgets.yaml"
    text = FILE.replace("    recipes:\n", "    candidates: {shipped: {file: ../weights/x.onnx}}\n    recipes:\n", 1)
    file.write_text(text, encoding="utf-8")
    call = ["init", "no_such_module:net", "--data", "shop:data", "--recipe", "bf16", "--add", "--output", str(file)]
    assert main(call) == 2
    assert "module `shop` cannot be imported" in capsys.readouterr().err
    new = file.with_name("new.yaml")
    new.write_text(text, encoding="utf-8")
    require_that_it_holds(new, shop.path, "another", record())


def test_after_the_time_no_recipe_is_begun(
    shop: pytest.Pytester, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 1.0, 61.0])
    monkeypatch.setattr(init_trials, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    call = ["init", "shop:load_small_net", "--data", "shop:data", "--time-limit", "1 s", "--within", "1 min"]
    assert main([*call, "--recipe", "int8-dynamic", "--recipe", "int8-weight-only"]) == 0
    said = "not tried, since the 1 min of --within were over: int8-weight-only"
    assert f"{said}\n" in capsys.readouterr().out
    assert f"      # {said}\n" in (shop.path / "budgets.yaml").read_text(encoding="utf-8")


def test_the_recipes_that_are_tried_are_those_that_run_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RECIPES["onnxruntime"], "requires", ("onnxruntime_is_absent",))
    without = init_trials.choose("cpu", has_calibration=False)
    tried = {str(recipe) for recipe in without.recipes}
    assert {"int8-dynamic", "int8-weight-only", "low-rank(ratio=0.5)", "compile"} <= tried
    why = dict(without.impossible)
    assert why["int8-static"] == "there is no --calibration"
    assert "onnxruntime needs onnxruntime_is_absent: run `pip install" in why["onnxruntime"]
    with_it = {str(recipe) for recipe in init_trials.choose("cpu", has_calibration=True).recipes}
    assert with_it - tried >= {"int8-static"}
    assert "int8-dynamic" not in {str(recipe) for recipe in init_trials.choose("cuda", has_calibration=True).recipes}


@pytest.mark.parametrize(
    ("layers", "fitting"),
    [
        ({"Conv2d", "BatchNorm2d"}, {"channels-last", "bf16", "onnxruntime", "fold-batchnorm"}),
        ({"Linear"}, {"int8-dynamic", "low-rank(ratio=0.5)", "bf16", "onnxruntime", "fold-batchnorm"}),
        ({"LSTM"}, {"int8-dynamic", "bf16", "onnxruntime"}),
    ],
)
def test_recipes_that_change_none_of_the_layers_are_not_tried(layers: set[str], fitting: set[str]) -> None:
    asked = ("int8-dynamic", "channels-last", "bf16", "onnxruntime", "fold-batchnorm", "low-rank(ratio=0.5)")
    assert {text for text in asked if fits(parse(text), layers)} == fitting
