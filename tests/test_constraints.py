"""constraints.txt pins what the project asks for, and is renewed without losing what it says."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def renewing() -> Any:
    spec = importlib.util.spec_from_file_location("newest_constraints", ROOT / ".ci" / "newest_constraints.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_that_tests_and_gates_need_is_pinned(renewing: Any) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *_asked(project["optional-dependencies"], *renewing.EXTRAS.split(","))]
    names = {renewing._plain(re.split(r"[\[<>=;! ]", line)[0]) for line in asked}
    assert len(names) > 40
    assert names - {renewing._plain(name) for name, _ in _pins()} == set()


def _asked(extras: dict[str, list[str]], *wanted: str) -> Iterator[str]:
    """What these extras ask for, with those that they name."""
    for line in (line for name in wanted for line in extras[name]):
        if own := re.fullmatch(r"pytest-modelopt\[(.+)\]", line):
            yield from _asked(extras, *own[1].split(","))
        else:
            yield line


def test_each_package_is_pinned_once_in_the_order_of_the_alphabet() -> None:
    names = [name.lower() for name, _ in _pins()]
    assert names == sorted(set(names))


def test_a_name_keeps_its_spelling_and_what_is_not_found_its_version(renewing: Any) -> None:
    pins = {"ast_serialize": "1.0", "Jinja2": "3.1", "pywin32": "300"}
    found = {"ast-serialize": "1.1", "jinja2": "3.1", "Toolz": "1.0"}
    assert renewing.newer(pins, found) == {"ast_serialize": "1.1", "Jinja2": "3.1", "pywin32": "300", "Toolz": "1.0"}


def _pins() -> list[list[str]]:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    return [line.split("==") for line in text.splitlines() if line and not line.startswith("#")]
