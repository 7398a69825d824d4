"""`pytest-modelopt validate`: what a file demands, also against a base, and what it waives."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_modelopt.cli import main
from pytest_modelopt.recipes.registry import RECIPES

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
