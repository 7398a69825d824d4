"""What is certain not to be found by its name, without importing anything; and where nobody can tell."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pytest_modelopt.measuring.function_lookup import missing

SHOP = """
raise RuntimeError("nobody imports this")

import functools
from other import borrowed as lent

def load(path="x", *, size=1): ...

def needs(path, *, size): ...

@functools.cache
def decorated(path): ...

def replaced(path): ...
replaced = functools.partial(replaced, "x")

class Net:
    @classmethod
    def make(cls, path): ...

if True:
    def perhaps(path): ...

made = lambda: None
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "broken.py").write_text("def load(:\n")
    (tmp_path / "dynamic.py").write_text("def __getattr__(name): ...\n")
    (tmp_path / "everything.py").write_text("from shop import *\n")
    (tmp_path / "marked.py").write_bytes(b"\xef\xbb\xbfdef load(): ...\n")
    (tmp_path / "latin.py").write_bytes(b"# coding: latin-1\nname = '\xe9'\ndef load(): ...\n")
    (tmp_path / "escapes.py").write_text("pattern = '\\d'\ndef load(): ...\n")
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").write_text("raise RuntimeError\n")
    (tmp_path / "pkg" / "vision.py").write_text("def load(): ...\n")
    (tmp_path / "space").mkdir()
    (tmp_path / "space" / "deep.py").write_text("def load(): ...\n")
    return tmp_path


@pytest.mark.parametrize(
    "name",
    [
        "shop:load",
        "shop:lent",
        "shop:Net",
        "shop:Net.make",
        "shop:decorated",
        "shop:replaced",
        "shop:perhaps",
        "shop:made",
        "dynamic:anything",
        "everything:anything",
        "pkg.vision:load",
        "pkg:vision",
        "space.deep:load",
        "space.elsewhere:load",
        "marked:load",
        "latin:load",
        "escapes:load",
        "json:JSONDecoder",
        "math:pi",
        "sys:exit",
        "torchmetrics.text:WordErrorRate",
    ],
)
def test_what_may_be_there_is_not_missing(folder: Path, name: str) -> None:
    loaded = set(sys.modules)
    assert missing(name, folder, folder, called=True) is None
    assert {each for each in set(sys.modules) - loaded if not each.startswith("encodings.")} == set()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("shop:laod", "`shop` has no `laod`; did you mean `load`?"),
        ("shop:Model.make", "`shop` has no `Model`"),
        ("shop:needs", "it needs arguments (path, size), and is called without any: give each a default"),
        ("broken:load", "`broken` cannot be imported: {folder}/broken.py:1: invalid syntax"),
        ("shop.vision:load", "`shop` is a module, and holds no `vision`"),
        ("pkg.speech:load", "the package `pkg` has no module `speech`"),
        ("nowhere:load", "there is no module `nowhere` (looked first in {folder})"),
        ("json.vision:load", "the package `json` has no module `vision`"),
        ("torchmetrics.text:WordErorRate", "`torchmetrics.text` has no `WordErorRate`"),
    ],
)
def test_what_is_certain_to_be_missing(folder: Path, name: str, why: str) -> None:
    found = missing(name, folder, folder, called=True)
    assert found is not None
    assert found.is_certain
    assert found.why.partition("; did you mean")[0] == why.format(folder=folder).partition("; did you mean")[0]


def test_who_is_not_called_plainly_may_need_arguments(folder: Path) -> None:
    assert missing("shop:needs", folder, folder, called=False) is None


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("tests/helpers.py", ""),
        ("tests/helpers/__init__.py", ""),
        ("tests/conftest.py", "import sys\nsys.path.append('../lib')\n"),
        ("tests/test_it.py", "import sys\nsys.path.insert(0, 'lib')\n"),
    ],
)
def test_nobody_can_tell_where_a_test_may_put_the_module_on_the_path(folder: Path, file: str, text: str) -> None:
    found = missing("helpers:load", folder, folder, called=True)
    assert found is not None
    assert found.is_certain
    (folder / file).parent.mkdir(parents=True)
    (folder / file).write_text(text)
    assert missing("helpers:load", folder, folder, called=True) is None


def test_a_src_layout_that_is_not_on_the_path_is_told_as_likely(folder: Path) -> None:
    (folder / "src" / "stock").mkdir(parents=True)
    (folder / "src" / "stock" / "__init__.py").write_text("def load(): ...\n")
    found = missing("stock:load", folder, folder, called=True)
    assert found is not None
    assert not found.is_certain
    assert found.why.endswith(
        f"stock lies in {folder / 'src'}: set `pythonpath = src` in pytest's ini file, or install the project"
    )
