"""Shared by all rooms' tests."""

from __future__ import annotations

import ctypes
import gc
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from pytest_modelopt.measuring.controller import preloading, process
from pytest_modelopt.measuring.controller.timing import best_state, host_lock
from tests.kinds import REAL_MODELS, WHOLE_RUNS

pytest_plugins = ["pytester"]


def pytest_configure(config: pytest.Config) -> None:
    """`make test` ends a run that takes too long by Ctrl-C's signal, which one in the background would ignore."""
    if not hasattr(config, "workerinput") and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the test modules as pytest has rewritten them, also where PYTHONDONTWRITEBYTECODE is set, as in many images:
    to rewrite them takes each process of pytest-xdist as long as to import all libraries. Tests run as that variable
    says: in what they write twice within a second Python would take the first for the second."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, False
    try:
        return (yield)
    finally:
        sys.dont_write_bytecode = before


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`-m unit` imports no room that has no such test: their libraries take longer to import than its tests to run."""
    is_other = collection_path.parent == Path(__file__).parent and collection_path.name in WHOLE_RUNS | REAL_MODELS
    return True if is_other and config.getoption("markexpr") == "unit" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each test is marked by its room, `unit`, `runtime` or `e2e`, unless its file says another kind.

    Files whose tests take long come first, so that no process is left alone with one at the end.
    """
    for item in items:
        room = room_of(item)
        if not any(map(item.get_closest_marker, ("unit", "runtime", "e2e"))):
            item.add_marker("e2e" if room in WHOLE_RUNS else "runtime" if room in REAL_MODELS else "unit")
    items.sort(key=lambda item: (room_of(item) != "plugin", item.path.name != "test_unchanged.py"))


def room_of(item: pytest.Item) -> str:
    """The folder right below this one in which the test stands."""
    return next((folder.name for folder in item.path.parents if folder.parent == Path(__file__).parent), "")


@pytest.fixture(autouse=True, scope="module")
def _imported_modules_are_not_searched_for_garbage() -> None:
    """Each inner run of pytest collects garbage: among all that the runtimes import, that takes two seconds."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def _nothing_was_compiled_before() -> None:
    """torch compiles the forward of a class eight times in a process, and then no more, whichever file asked for it."""
    if "torch._dynamo" in sys.modules:
        import torch

        torch.compiler.reset()


@pytest.fixture(autouse=True, scope="module")
def _fork_server_as_it_is_for_a_run_of_its_own() -> Iterator[None]:
    """What an inner run in this process let it import, no other file's workers find."""
    yield
    preloading.libraries = preloading.Libraries()
    if preloading.METRICS in preloading.PRELOAD:
        preloading.PRELOAD.remove(preloading.METRICS)
        process._forget_fork_server()


@pytest.fixture(autouse=True)
def _own_lock(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests do not wait for what others on this machine are timing. (Runs in processes of their own still do.)

    And inner runs do not take themselves for a worker of the outer one's pytest-xdist.
    """
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID"):
        monkeypatch.delenv(name, raising=False)
    lock = tmp_path_factory.getbasetemp() / "timing.lock"
    monkeypatch.setattr(host_lock, "lock_file", lambda: Path(lock))


@pytest.fixture(autouse=True)
def _no_best_state(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Each test meets this machine for the first time, and leaves nothing in the user's cache folder."""
    monkeypatch.setattr(best_state, "_known", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(autouse=True)
def _inner_runs_load_no_plugins_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """hypothesis, and numpy for jaxtyping: to import them takes a third of a second in each process."""
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:hypothesispytest -p no:jaxtyping -p no:anyio")


class _Stack(ctypes.Structure):
    """`stack_t` of Linux."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


_NO_STACK = _Stack(None, 2, 0)  # SS_DISABLE


@pytest.fixture(autouse=True)
def _signals_find_a_stack() -> Iterator[None]:
    """OpenVINO gives the main thread a stack for its signal handlers, and frees it while it is still in force.

    The next signal that Python handles there, such as an alarm or Ctrl-C, would end the process without a word. The
    thread's own stack serves as well.
    """
    yield
    if sys.platform == "linux" and "openvino" in sys.modules:
        ctypes.CDLL(None).sigaltstack(ctypes.byref(_NO_STACK), None)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Figures of memory, and the bits of answers, repeat with one thread."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
