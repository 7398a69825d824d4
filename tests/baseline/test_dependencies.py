"""Which changes of which files are changes of dependencies."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_modelopt.baseline.dependencies import changed_dependencies

PROJECT = '[project]\nname = "shop"\nversion = "1"\ndependencies = ["torch>=2"]\n'
LOCK = (
    '[[package]]\nname = "torch"\nversion = "2.13"\n'
    '[[package]]\nname = "shop"\nversion = "1"\nsource = { editable = "." }\n'
)
NAMED = "name: a\ndependencies: [x]\n"
CHANGES = {
    "a version of the project": ("pyproject.toml", PROJECT, PROJECT.replace('"1"', '"2"'), False),
    "settings of a tool": ("pyproject.toml", PROJECT, PROJECT + "[tool.ruff]\nline-length = 99\n", False),
    "a dependency": ("pyproject.toml", PROJECT, PROJECT.replace("2", "3"), True),
    "a group": ("pyproject.toml", PROJECT, PROJECT + '[dependency-groups]\ndev = ["x"]\n', True),
    "poetry": ("pyproject.toml", "", "[tool.poetry.group.dev.dependencies]\nx = '1'\n", True),
    "not TOML": ("pyproject.toml", PROJECT, PROJECT + "[", True),
    "a comment": ("requirements.txt", "torch\n", "# why\n\ntorch  # needed\n", False),
    "a pin": ("sub/requirements-dev.txt", "torch\n", "torch==2.13\n", True),
    "a new file": ("constraints.txt", None, "torch<3\n", True),
    "a file that went": ("constraints.txt", "torch<3\n", None, True),
    "setup.cfg's version": ("setup.cfg", "[metadata]\nversion = 1\n", "[metadata]\nversion = 2\n", False),
    "setup.cfg's packages": ("setup.cfg", "", "[options]\ninstall_requires =\n  torch\n", True),
    "the project in its lock": ("uv.lock", LOCK, LOCK.replace('version = "1"', 'version = "2"'), False),
    "a locked package": ("uv.lock", LOCK, LOCK.replace("2.13", "2.14"), True),
    "a lock of something else": ("yarn.lock", "a", "b", False),
    "an environment's name": ("environment.yml", NAMED, NAMED.replace("name: a", "name: b"), False),
    "an environment": ("environment.yml", NAMED, NAMED.replace("x", "y"), True),
    "no list": ("environment.yml", "a\n", "b\n", True),
    "setup.py": ("setup.py", "a", "b", True),
    "another file": ("README.md", "torch>=2", "torch>=3", False),
}


@pytest.mark.parametrize("change", CHANGES)
def test_dependencies_change_where_a_file_states_others(tmp_path: Path, change: str) -> None:
    name, was, now, expected = CHANGES[change]
    for side, text in (("base", was), ("head", now)):
        file = tmp_path / side / name
        file.parent.mkdir(parents=True)
        if text is not None:
            file.write_text(text, encoding="utf-8")
    assert changed_dependencies((name,), tmp_path / "base", tmp_path / "head") == ((name,) if expected else ())
