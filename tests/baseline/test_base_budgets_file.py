"""Where the base's budgets file is found when head has it elsewhere, or says so in its configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_modelopt.baseline.base_budgets import find_budgets
from pytest_modelopt.baseline.base_tree import BaseTree

BUDGETS = "version: 1\nmodels:\n  m: {factory: shop:m, data: shop:d, recipes: {bf16: {max_size: 1 MiB}}}\n"


def _tree(tmp_path: Path, base: dict[str, str], head: dict[str, str]) -> BaseTree:
    for side, files in (("base", base), ("head", head)):
        (tmp_path / side).mkdir()
        for name, text in files.items():
            (tmp_path / side / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / side / name).write_text(text, encoding="utf-8")
    changed = tuple(sorted(name for name in {**base, **head} if base.get(name) != head.get(name)))
    return BaseTree(tmp_path / "head", tmp_path / "base", 40 * "0", "main", 40 * "1", False, (), changed)


def _found(tree: BaseTree, budgets: str, *, configured: bool = True) -> tuple[str | None, str, str]:
    found = find_budgets(tree, tree.repository / budgets, tree.repository if configured else None)
    name = None if found.file is None else found.file.relative_to(tree.folder).as_posix()
    return name, found.note, found.unknown


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pytest.ini", "[pytest]\nmodelopt_budgets = loose.yaml\n"),
        ("pytest.ini", "[pytest]\naddopts = -q --modelopt-budgets=loose.yaml\n"),
        ("pyproject.toml", "[tool.pytest.ini_options]\nmodelopt_budgets = 'loose.yaml'\n"),
        ("pyproject.toml", '[tool.pytest.ini_options]\naddopts = ["--modelopt-budgets", "loose.yaml"]\n'),
    ],
)
def test_a_change_of_the_configuration_does_not_choose_the_bases_file(tmp_path: Path, name: str, text: str) -> None:
    """Strict budgets.yaml stays where it is, and head's configuration names another file, which may be there before."""
    files = {"budgets.yaml": BUDGETS, "loose.yaml": BUDGETS}
    tree = _tree(tmp_path, files, {**files, name: text})
    note = "the budgets file was budgets.yaml at 000000000000, and is loose.yaml now"
    assert _found(tree, "loose.yaml") == ("budgets.yaml", note, "")
    assert _found(tree, "loose.yaml", configured=False) == ("loose.yaml", "", "")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pytest.ini", "[pytest]\nmodelopt_budgets = strict.yaml\n"),
        ("tox.ini", "[pytest]\n# --modelopt-budgets=loose.yaml\naddopts = --modelopt-budgets strict.yaml -q\n"),
        ("pyproject.toml", '[tool.pytest.ini_options]\nmodelopt_budgets = "strict.yaml"\n'),
        ("pyproject.toml", '[tool.pytest.ini_options]\naddopts = ["--modelopt-budgets", "strict.yaml"]\n'),
    ],
)
def test_what_the_bases_configuration_named_is_its_file(tmp_path: Path, name: str, text: str) -> None:
    files = {"budgets.yaml": BUDGETS, "strict.yaml": BUDGETS}
    tree = _tree(tmp_path, {**files, name: text}, files)
    assert _found(tree, "budgets.yaml")[0] == "strict.yaml"
    assert _found(tree, "strict.yaml") == ("strict.yaml", "", "")


def test_a_file_that_was_moved_is_the_one_that_is_gone_and_of_two_nobody_knows(tmp_path: Path) -> None:
    one = _tree(tmp_path, {"ci/old.yaml": BUDGETS, "ci/other.yaml": "a: 1\n"}, {"budgets.yaml": BUDGETS})
    assert _found(one, "budgets.yaml")[0] == "ci/old.yaml"
    (tmp_path / "two").mkdir()
    two = _tree(tmp_path / "two", {"a.yaml": BUDGETS, "b.yaml": BUDGETS}, {"budgets.yaml": BUDGETS})
    why = "2 budgets files of 000000000000 are not in head (a.yaml, b.yaml), and it is not known which one this was"
    assert _found(two, "budgets.yaml") == (None, "", why)
    (tmp_path / "none").mkdir()
    none = _tree(tmp_path / "none", {"other.yaml": BUDGETS}, {"other.yaml": BUDGETS, "new/budgets.yaml": BUDGETS})
    assert _found(none, "new/budgets.yaml") == (None, "", "")
