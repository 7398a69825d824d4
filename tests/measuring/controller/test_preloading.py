"""The project's libraries, which the fork server imports once for all workers, and what keeps it from that."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_modelopt.measuring.controller import preloading
from pytest_modelopt.measuring.controller.process import Worker, preload_libraries
from pytest_modelopt.measuring.variant import SourceTree, Variant
from pytest_modelopt.results.metric import MetricSpec

CODECS = """
import importlib, os, pkgutil, encodings, lib2to3
from torch import nn

def import_them():
    for package in (encodings, lib2to3):
        for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if not found.name.endswith("__main__") and not found.name.startswith("lib2to3.tests"):
                try:
                    importlib.import_module(found.name)
                except ImportError:
                    pass  # of another system

def model():
    import_them()
    return nn.Linear(2, 2)

def plain():
    return nn.Linear(2, 2)

def with_a_switch():
    import mailbox  # which no fork server of these tests has
    os.environ["BACKEND"] = "torch"
    return plain()

def with_the_compiler():
    import mailbox
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = "/caches"
    return plain()

def inputs():
    import torch
    return torch.ones(1, 2)
"""
"""More modules of the installation than another fork server is started for."""


@pytest.fixture
def variant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Variant]:
    (tmp_path / "codecs_user.py").write_text(CODECS)
    monkeypatch.setattr(preloading, "libraries", preloading.Libraries())
    monkeypatch.setattr(preloading, "PRELOAD", list(preloading.PRELOAD))
    folder = str(tmp_path)

    def of(model: str) -> Variant:
        return Variant(f"codecs_user:{model}", None, None, None, "codecs_user:inputs", MetricSpec(), (folder,), folder)

    return of


def imported(variant: Variant, folder: Path) -> tuple[str, ...]:
    """What a worker had to import to load the variant."""
    worker = Worker(variant, folder, "worker")
    try:
        worker.request("load", limit_s=60, scores=False)
        found: tuple[str, ...] = worker.request("imported", limit_s=60)
    finally:
        worker.close()
    return found


def test_what_the_first_worker_imported_is_there_for_the_next(
    variant: Callable[[str], Variant], tmp_path: Path
) -> None:
    of = variant("model")
    first = imported(of, tmp_path)
    assert len(first) >= preloading.LEAST_MODULES
    assert "codecs_user" not in first, "the project's own code is each worker's"
    preload_libraries(first, of)
    assert len(imported(of, tmp_path)) < 5
    assert preloading.libraries.names == first


def test_the_variable_that_the_compiler_sets_is_no_choice_of_the_project(
    variant: Callable[[str], Variant], tmp_path: Path
) -> None:
    """It is set where torch's compiler is imported, as all that builds on transformers does."""
    assert "mailbox" in imported(variant("with_the_compiler"), tmp_path)


def test_nothing_is_told_where_the_project_sets_the_environment(
    variant: Callable[[str], Variant], tmp_path: Path
) -> None:
    assert imported(variant("with_a_switch"), tmp_path) == ()


THREADED = """
import os, threading
is_over = threading.Event()
thread = threading.Thread(target=is_over.wait, daemon=True)
thread.start()
"""
POOL = (
    THREADED
    + """
def end():
    is_over.set()
    thread.join()
os.register_at_fork(before=end)
"""
)
"""As OpenBLAS, of which NumPy and SciPy have one each: it ends its threads before a fork."""


@pytest.mark.parametrize(("source", "is_kept"), [(THREADED, False), (POOL, True)], ids=["a thread", "a pool"])
def test_a_library_whose_threads_a_fork_would_lack_is_left_to_the_workers(
    variant: Callable[[str], Variant], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, is_kept: bool
) -> None:
    """Another fork server takes the place of the one that has imported it."""
    packages = tmp_path / "site-packages"
    packages.mkdir()
    (packages / "threaded.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(packages), *filter(None, [os.environ.get("PYTHONPATH")])]))
    of = variant("plain")
    preload_libraries(["threaded"] * preloading.LEAST_MODULES, of)
    assert preloading.libraries.names
    imported(of, tmp_path)
    assert bool(preloading.libraries.names) is is_kept


FOUND = [f"found{number}" for number in range(preloading.LEAST_MODULES)]


@pytest.mark.parametrize(
    "change",
    [
        lambda of: replace(of, environment=(("BACKEND", "jax"),)),
        lambda of: replace(of, tree=SourceTree("/head", "/base", "abc", differs=True)),
    ],
    ids=["another environment", "another revision"],
)
def test_a_worker_that_may_find_something_else_ends_it(
    variant: Callable[[str], Variant], change: Callable[[Variant], Variant]
) -> None:
    libraries, of = preloading.libraries, variant("model")
    assert libraries.add(FOUND, of)
    assert not libraries.drop_unfit(of)
    assert libraries.drop_unfit(change(of))
    assert libraries.names == ()
    assert not libraries.add(FOUND, of), "for good"


def test_a_module_of_the_project_is_not_hidden_by_a_library(variant: Callable[[str], Variant], tmp_path: Path) -> None:
    libraries, of = preloading.libraries, variant("model")
    (tmp_path / "found7.py").write_text("")
    assert not libraries.add(FOUND, of)


def test_few_modules_are_not_worth_another_fork_server(variant: Callable[[str], Variant]) -> None:
    assert not preloading.libraries.add(FOUND[1:], variant("model"))
