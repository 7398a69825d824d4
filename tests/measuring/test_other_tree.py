"""What is head's and what the other tree's: environments, links, copies and readers that Python does not know of."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import pytest

from pytest_modelopt.measuring.installation import is_installed
from pytest_modelopt.measuring.variant import SourceTree
from pytest_modelopt.measuring.worker.other_tree import in_tree, taken_from_head
from pytest_modelopt.measuring.worker.watches import opened_files

SITE = "lib/python3.11/site-packages"


@pytest.fixture
def tree(tmp_path: Path) -> SourceTree:
    """`usr/src/app`, and its base, both with `shop/models.py` in `src`."""
    for top in ("usr/src/app", "base/app"):
        package = tmp_path / top / "src" / "shop"
        package.mkdir(parents=True)
        (package / "models.py").write_text("")
    return SourceTree(str(tmp_path / "usr/src/app"), str(tmp_path / "base/app"), 40 * "0", True)


@pytest.fixture(autouse=True)
def _nothing_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened_files, "_opened", {})


def moved(tree: SourceTree, path: str) -> bool:
    """Whether a path below head's top has its place in the other tree."""
    there = in_tree(f"{tree.head}/{path}", tree)
    assert there in (f"{tree.head}/{path}", f"{tree.folder}/{path}")
    return there == f"{tree.folder}/{path}"


def test_a_folder_that_became_a_link_to_head_since_the_last_question_is_seen(tree: SourceTree, tmp_path: Path) -> None:
    """Folders are looked up once for thousands of modules, and again for the next question."""
    place = tmp_path / "elsewhere"
    place.mkdir()
    file = str(place / "models.py")
    assert in_tree(file, tree) == file
    place.rmdir()
    place.symlink_to(Path(tree.head, "src", "shop"))
    assert in_tree(file, tree) == f"{tree.folder}/src/shop/models.py"


def test_a_module_that_is_itself_a_link_to_head_is_heads(
    tree: SourceTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path / "linked.py"
    link.symlink_to(Path(tree.head, "src", "shop", "models.py"))
    module = types.ModuleType("linked")
    module.__file__ = str(link)
    monkeypatch.setitem(sys.modules, "linked", module)
    assert taken_from_head(tree) == (f"linked ({link})",)


def test_the_interpreter_is_installed() -> None:
    """Else each worker that is asked what is mapped would have the kernel look at all of its pages."""
    mapped = [file for file in opened_files.mapped() if Path(file).name.startswith(("python3", "libpython3"))]
    assert mapped
    assert all(map(is_installed, mapped))


def test_a_project_below_the_interpreters_prefix_is_a_project(
    tree: SourceTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`/usr/src/app`, with Debian's Python, whose prefix is `/usr`; or an environment made in the top folder itself."""
    for prefix in (str(tmp_path / "usr"), tree.head):
        monkeypatch.setattr(sys, "prefix", prefix)
        monkeypatch.setattr(sys, "base_prefix", prefix)
        assert moved(tree, "src/shop/models.py")
        assert moved(tree, "weights.pt")
        assert not moved(tree, f"{SITE}/torch/__init__.py")


def test_an_environment_in_the_project_is_none_of_it(tree: SourceTree, monkeypatch: pytest.MonkeyPatch) -> None:
    assert moved(tree, ".venv/bin/python")
    monkeypatch.setattr(sys, "prefix", f"{tree.head}/.venv")
    assert not moved(tree, ".venv/bin/python")
    assert moved(tree, "src/shop/models.py")


def test_a_package_that_is_installed_as_a_link_is_heads(tree: SourceTree, tmp_path: Path) -> None:
    """And one that links lead to in a cache in head's folder is not."""
    site = tmp_path / "venv" / SITE
    site.mkdir(parents=True)
    (site / "shop").symlink_to(f"{tree.head}/src/shop")
    cache = Path(tree.head, ".cache", "numpy")
    cache.mkdir(parents=True)
    (site / "numpy").symlink_to(cache)
    assert in_tree(str(site / "shop" / "models.py"), tree) == f"{tree.folder}/src/shop/models.py"
    assert in_tree(str(site / "numpy"), tree) == str(site / "numpy")


@pytest.mark.parametrize("source", ["copy", "editable", "elsewhere"])
def test_a_package_that_is_installed_as_a_copy_is_heads(
    source: str, tree: SourceTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "venv" / SITE
    info = site / "shop_of_copies-1.dist-info"
    info.mkdir(parents=True)
    (site / "shop_of_copies.py").write_text("")
    (info / "METADATA").write_text("Name: shop-of-copies\nVersion: 1\n")
    (info / "RECORD").write_text("shop_of_copies.py,,\n")
    url = f"file://{tmp_path}/other" if source == "elsewhere" else f"file://{tree.head}"
    (info / "direct_url.json").write_text(
        json.dumps({"url": url, "dir_info": {"editable": True} if source == "editable" else {}})
    )
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, "shop_of_copies", raising=False)
    __import__("shop_of_copies")
    found = [name for name in taken_from_head(tree) if "shop_of_copies" in name]
    assert found == ([f"shop_of_copies ({site}/shop_of_copies.py)"] if source == "copy" else [])


ENTERING = """
import os, sys, types
from pytest_modelopt.measuring.worker.other_tree import enter, taken_from_head
from pytest_modelopt.measuring.variant import SourceTree

tree = SourceTree({head!r}, {folder!r}, 40 * "0", True)
src, parent = {head!r} + "/src", os.path.dirname({head!r})
sys.path[:] = [src, parent, *sys.path]
os.environ.update(HOME={head!r}, SHOP=src)

finder = types.ModuleType("finder")
finder.MAPPING, finder.NAMESPACES = {{"shop": src + "/shop"}}, {{"ns": [src, "/elsewhere"]}}
class Redirecting:
    _redirections = {{"shop": src + "/shop/__init__.py"}}
    find_spec = classmethod(lambda *args: None)
class Editable(Redirecting):
    _redirections = None
Editable.__module__ = "finder"
sys.modules["finder"] = finder
sys.meta_path += [Redirecting, Editable]

import torch
unnoticed = torch.from_file  # as weights that stay mapped, whatever has opened them
enter(tree)
base = {folder!r} + "/src"
assert sys.path[:3] == [base, os.path.dirname({folder!r}), parent], sys.path
assert (os.environ["HOME"], os.environ["SHOP"]) == ({head!r}, base)
assert finder.MAPPING == {{"shop": base + "/shop"}}
assert finder.NAMESPACES == {{"ns": [base, "/elsewhere"]}}
assert Redirecting._redirections == {{"shop": base + "/shop/__init__.py"}}

import importlib.util
from safetensors.torch import load_file
def spec(file):
    found = importlib.util.spec_from_file_location("hidden", file)
    found.loader.exec_module(importlib.util.module_from_spec(found))
readers = {{
    "a.safetensors": load_file,
    "b.bin": lambda file: os.close(os.open(file, os.O_RDONLY)),
    "c.bin": lambda file: torch.from_file(file, size=4, dtype=torch.uint8),
    "d.bin": lambda file: torch.UntypedStorage.from_file(file, False, 4),
    "e.ts": torch.jit.load,
    "f.py": spec,
    "g.py": spec,
    "h.bin": lambda file: open(file).close(),
    "only_here.bin": lambda file: open(file).close(),
}}
for name, read in readers.items():
    read(os.path.join({head!r}, name))
kept = unnoticed({head!r} + "/i.bin", size=4, dtype=torch.uint8)
shop = types.ModuleType("shop.models")
shop.__file__ = {head!r} + "/src/shop/models.py"
sys.modules["shop.models"] = shop
module, *files = taken_from_head(tree)
assert module == f"shop.models ({{shop.__file__}})", module
found = {{os.path.basename(file) for file in files}}
assert found == {{*readers, "i.bin"}} - {{"only_here.bin"}}, found
"""


def test_every_way_to_heads_modules_leads_to_the_tree_and_what_reads_head_is_seen(tree: SourceTree) -> None:
    """In a process of its own, as it is in a worker: what is entered is never left."""
    making = """
        import py_compile, torch
        from safetensors.torch import save_file
        save_file({"w": torch.zeros(1)}, "a.safetensors")
        torch.jit.script(torch.nn.Linear(1, 1)).save("e.ts")
        py_compile.compile("g.py")
    """
    head = Path(tree.head)
    (head / "f.py").write_text("")
    (head / "g.py").write_text("")
    for name in ("b.bin", "c.bin", "d.bin", "h.bin", "i.bin", "only_here.bin"):
        (head / name).write_bytes(b"1234")
    script = ENTERING.format(head=tree.head, folder=tree.folder)
    for name in ("a.safetensors", "b.bin", "c.bin", "d.bin", "e.ts", "f.py", "g.py", "h.bin", "i.bin"):
        Path(tree.folder, name).write_text("")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(making) + script],
        cwd=head,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
