"""`pytest-modelopt validate`: what a file demands, also against a base, and what it waives."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_modelopt.cli.main import main
from pytest_modelopt.cli.shared import certain_failures
from pytest_modelopt.optimizing.registry import RECIPES

SHOP = """
raise RuntimeError("nothing is imported")

def classifier(): ...

def data(): ...

def needs(path): ...

def score(outputs, targets): ...
"""

BUDGETS = """
version: 1
models:
  m:
    factory: shop:classifier
    data: shop:data
    regression: {max_size_growth: 2%}
    recipes:
      int8-dynamic: {max_size: 1 MB, regression: {max_size_growth: 5%}}
      bf16: {}
waivers:
  - {case: m/int8-dynamic, limit: max_size, until: 2999-12-31, reason: a wider head, owner: kai, ceiling: 2 MB}
  - {case: m/original, limit: max_size_growth, until: 2999-12-31, reason: the same}
"""


def test_it_lists_limits_those_against_a_base_and_waivers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("shop.py").write_text(SHOP, encoding="utf-8")
    Path("budgets.yaml").write_text(BUDGETS, encoding="utf-8")
    assert main(["validate"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "budgets.yaml: 1 models, 2 cases",
        "  m/int8-dynamic: max_size 1 MB; against a base: max_size_growth 5%",
        "  m/bf16: no limits; against a base: max_size_growth 2%",
        "  m/original: no limits; against a base: max_size_growth 2%",
        "  waived until 2999-12-31, kai: m/int8-dynamic, max_size up to 2 MB: a wider head",
        "  waived until 2999-12-31: m/original, max_size_growth: the same",
    ]


def test_it_is_red_where_a_run_is_certain_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("shop.py").write_text(SHOP, encoding="utf-8")
    monkeypatch.setattr(RECIPES["prune-structured"], "requires", ("torch_pruning_is_absent",))
    Path("budgets.yaml").write_text(
        """
version: 1
models:
  m:
    factory: shop:classifier
    data: shop:data
    recipes:
      int8-static: {}
      prune-structured(ratio=0.5) + int8-dynamic: {}
      bf16: {}
""",
        encoding="utf-8",
    )
    assert main(["validate"]) == 1
    first, second = capsys.readouterr().out.splitlines()[4:]
    assert first == (
        "budgets.yaml:8: m/int8-static cannot run: int8-static needs calibration data: add `calibration:` to the model"
    )
    assert second.startswith("budgets.yaml:9: m/prune-structured(ratio=0.5)+int8-dynamic cannot run: prune-structured")
    assert 'needs torch_pruning_is_absent: run `pip install "pytest-modelopt[pruning]"`' in second
    text = (
        Path("budgets.yaml")
        .read_text(encoding="utf-8")
        .replace("    recipes:", "    calibration: shop:data\n    recipes:")
    )
    Path("budgets.yaml").write_text("\n".join(line for line in text.splitlines() if "prune" not in line))
    assert main(["validate"]) == 0


MODEL = """
version: 1
defaults: {{device: {device}}}
models:
  m:
    factory: {factory}
    data: {data}
    metric: {metric}
    {more}
    recipes:
      {recipe}:
        max_size: 1 MB
        {limit}
"""
USUAL = {
    "device": "cpu",
    "factory": "shop:classifier",
    "data": "shop:data",
    "metric": "accuracy",
    "more": "",
    "recipe": "int8-dynamic",
    "limit": "",
}
NOT_PREDICTED = "is not right-or-wrong per example; remove the limit, or take `accuracy`, `top-5` or `agreement`"
OWN = "{name: shop:score, higher_is_better: true}"


def validated(folder: Path, capsys: pytest.CaptureFixture[str], stated: dict[str, str]) -> tuple[int, list[str]]:
    """The exit status, and what is said beside the list of cases."""
    (folder / "shop.py").write_text(SHOP, encoding="utf-8")
    (folder / "budgets.yaml").write_text(MODEL.format(**{**USUAL, **stated}), encoding="utf-8")
    status = main(["validate"])
    return status, [line for line in capsys.readouterr().out.splitlines()[1:] if not line.startswith("  ")]


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        (
            {"factory": "shop:clasifier"},
            "6: m cannot run: `factory: shop:clasifier`: `shop` has no `clasifier`; did you mean",
        ),
        ({"factory": "shop:needs"}, "6: m cannot run: `factory: shop:needs`: it needs arguments (path), and is called"),
        (
            {"factory": "{name: shop:clasifier, arguments: {path: a}}"},
            "6: m cannot run: `factory: shop:clasifier`: `shop` has no `clasifier`; did you mean",
        ),
        (
            {"data": "nowhere:data"},
            "7: m cannot run: `data: nowhere:data`: there is no module `nowhere` (looked first in",
        ),
        (
            {"metric": "{name: shop:scores, higher_is_better: true}"},
            "8: m cannot run: `metric: shop:scores`: `shop` has no",
        ),
        ({"metric": "{name: accuracy, prepare: shop:no}"}, "8: m cannot run: `prepare: shop:no`: `shop` has no `no`"),
        (
            {"metric": "torchmetrics.text.WordErorRate"},
            "8: m cannot run: `metric: torchmetrics.text.WordErorRate`: `torch",
        ),
        (
            {"more": "workloads: {long: {example_inputs: shop:one}}"},
            "9: m cannot run: `example_inputs: shop:one`: `shop` has no `one`",
        ),
        ({"more": "slices: shop:slice_of"}, "9: m cannot run: `slices: shop:slice_of`: `shop` has no `slice_of`"),
        ({"more": "example_inputs: shop:one"}, "9: m cannot run: `example_inputs: shop:one`: `shop` has no `one`"),
        (
            {"more": "calibration: shop:some", "recipe": "fold-batchnorm + int8-static"},
            "11: m/fold-batchnorm+int8-static cannot run: `calibration: shop:some`: `shop` has no `some`",
        ),
        ({"recipe": "prune-structured(importance=taylor)"}, "prune-structured needs calibration data: add `calib"),
        ({"recipe": "litert-int8(activations=static)"}, "litert-int8 needs calibration data: add `calibration:`"),
        (
            {"more": "calibration: shop:data", "recipe": "prune-structured(finetune='shop:train')"},
            "cannot run: `finetune=shop:train`: `shop` has no `train`",
        ),
        ({"recipe": "sparse-2:4"}, "11: m/sparse-2:4 cannot run: sparse-2:4 makes variants that run on cuda only"),
        (
            {"metric": "cosine", "limit": "max_flips: 1%"},
            f"13: m/int8-dynamic: max_flips cannot be measured: `metric: cosine` {NOT_PREDICTED}",
        ),
        ({"metric": OWN, "limit": "max_flips: 1%"}, f"`metric: shop:score` {NOT_PREDICTED}"),
        (
            {"metric": OWN, "limit": "max_slice_drop: 0.1"},
            "knows no classes; name slices with `slices: package.module:function`",
        ),
        (
            {"metric": OWN, "more": "slices: shop:data\n    inference: population", "limit": "max_slice_drop: 0.1"},
            "single slices get no interval; `inference: set` judges these examples themselves",
        ),
    ],
)
def test_each_kind_of_certain_failure_is_said_with_its_line_and_the_way_out(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stated: dict[str, str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    status, (line,) = validated(tmp_path, capsys, stated)
    assert status == 1
    assert line.startswith("budgets.yaml:")
    assert said in line


@pytest.mark.parametrize(
    "stated",
    [
        {"more": "calibration: shop:nothing"},  # a recipe that calibrates nothing never asks for it
        {"recipe": "openvino-int8(weights_only=true)"},
        {"recipe": "litert-int8"},
        {"factory": "{name: shop:needs, arguments: {path: a}}"},
        {"recipe": "prune-structured(ratio=0.5)"},
        {"metric": "top-5", "limit": "max_flips: 1%"},
        {"metric": "agreement", "limit": "max_slice_drop: 1 pp"},
        {"metric": OWN, "limit": "max_flips: {limit: 1%, level: warn}"},
        {"metric": OWN, "more": "slices: shop:data", "limit": "max_slice_drop: 0.1"},
        {"limit": "regression: {max_slowdown: 10%}"},
    ],
)
def test_what_may_run_is_not_red(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stated: dict[str, str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert validated(tmp_path, capsys, stated) == (0, [])


def test_what_is_likely_only_is_said_and_not_red(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "stock.py").write_text("def load(): ...")
    status, (line,) = validated(tmp_path, capsys, {"factory": "stock:load"})
    assert status == 0
    assert line.startswith("budgets.yaml:6: m may not run: `factory: stock:load`: there is no module `stock`")
    assert line.endswith("set `pythonpath = src` in pytest's ini file, or install the project")


def test_a_gpu_that_is_not_there_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(certain_failures, "has_gpu", lambda: False)
    said = "budgets.yaml:3: no case can run: `device: cuda` is asked for, and torch finds no GPU here"
    assert validated(tmp_path, capsys, {"device": "cuda", "recipe": "bf16"}) == (1, [said])
