"""`pytest-modelopt init`: what it writes is a budgets file that the gate passes on, or nothing."""

from __future__ import annotations

import pytest

from pytest_modelopt.budgets.file import load_budgets
from pytest_modelopt.cli import main
from pytest_modelopt.commands.init import _name_of, _recipes_that_run
from pytest_modelopt.session import Session

SHOP = '''
import torch
from torch import nn

def load_small_net():
    """Large layers in front of a small answer: int8 makes it a quarter."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10)).eval()

def data():
    inputs = torch.randn(200, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return inputs, load_small_net()(inputs).argmax(1)

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
    assert "budgets.yaml: written, with 1 of 2 recipes\n" in told
    file = shop.path / "budgets.yaml"
    text = file.read_text(encoding="utf-8")
    (case,) = load_budgets(file, relative_to=shop.path).cases
    assert case.name == "small-net/int8-dynamic"
    names = {limit.name for limit in case.limits}
    assert names >= {"max_memory", "max_size", "max_accuracy_drop", "min_accuracy"}
    assert "# int8-static: left out: int8-static needs calibration data" in text
    assert "Written by `pytest-modelopt init` on 20" in text.splitlines()[0]
    assert " torch 2" in text.splitlines()[0]
    assert "int8-dynamic: # memory " in text
    assert "time_limit: 1 s" in text
    result = shop.runpytest("--modelopt", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)
    assert main(["init", "shop:load_small_net", "--data", "shop:data"]) == 2
    assert "budgets.yaml exists, and init overwrites nothing: name another file" in capsys.readouterr().err
    assert file.read_text(encoding="utf-8") == text


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
    assert "int8-static: int8-static needs calibration data" in told
    assert list(shop.path.glob("*budgets*")) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--recipe", "int8-dynamc"), "did you mean 'int8-dynamic'?"),
        (("--name", "a/b"), "the model name 'a/b' contains `/`"),
        (("--name", ""), "a model has an empty name"),
        (("--metric", "acuracy"), "'acuracy'"),
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
    assert _name_of(factory) == name


def test_recipes_that_need_calibration_are_tried_where_there_is_some() -> None:
    with_it, without_it = _recipes_that_run(True), _recipes_that_run(False)
    assert set(with_it) - set(without_it) >= {"int8-static"}
    assert set(without_it) < set(with_it)
    assert "int8-dynamic" in without_it
