"""What operating systems differ in, with each feature taken away in turn."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pytest_modelopt import system
from pytest_modelopt.measuring import descendants

FAMILY = """
import subprocess, sys
subprocess.run([sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(60)"])
"""


@pytest.fixture
def family() -> Iterator[tuple[int, int]]:
    """The numbers of a process in a group of its own, and of the child that it waits for."""
    parent = subprocess.Popen([sys.executable, "-c", FAMILY], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    yield parent.pid, child
    for process in (parent.pid, child):
        if psutil.pid_exists(process):
            os.kill(process, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for control groups and a /proc that holds nothing but this process's own, /jobs/one, of version 2."""
    monkeypatch.setattr(system, "PROC", tmp_path / "proc")
    monkeypatch.setattr(system, "CGROUPS", tmp_path)
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "jobs" / "one").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text("0::/jobs/one\n", encoding="ascii")
    monkeypatch.setattr(system, "allowed_cores", lambda: set(range(8)))
    return tmp_path


@pytest.mark.parametrize("has_groups", [True, False])
def test_a_process_ends_with_what_it_started(
    family: tuple[int, int], monkeypatch: pytest.MonkeyPatch, has_groups: bool
) -> None:
    monkeypatch.setattr(system, "HAS_GROUPS", has_groups)
    if not has_groups:
        monkeypatch.delattr(os, "killpg")
    assert system.leads_group(family[0])
    assert all(map(system.is_running, family))
    system.end_group(family[0])
    deadline = time.monotonic() + 10
    while any(map(system.is_running, family)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(system.is_running, family))


def test_what_a_process_started_is_known_where_the_kernel_has_no_files_of_it(
    family: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "PROC", Path("/nowhere"))
    assert descendants.started_by(family[0]) == {}, "nobody can say"
    monkeypatch.setattr(system, "_psutil", lambda: psutil)  # as on macOS and Windows
    assert {child: " -c import" in command for child, command in descendants.started_by(family[0]).items()} == {
        family[1]: True
    }


@pytest.mark.skipif(sys.platform != "linux", reason="limits of other processes are Linux's")
@pytest.mark.parametrize("is_told", [True, False])
def test_what_bears_the_mark_of_a_worker_is_its_own_in_whatever_group(
    monkeypatch: pytest.MonkeyPatch, is_told: bool
) -> None:
    """By a system call, and by the kernel's file where that is refused, as of another user's process."""
    program = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_RTTIME, (int(sys.argv[1]), resource.RLIM_INFINITY))\n"
        "print(flush=True)\n"
        "sys.stdin.read()"
    )
    worker = 2**22 + 1  # Linux has no such process
    command = [sys.executable, "-c", program, str(system.mark_of(worker))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as marked:
        assert marked.stdin is not None
        assert marked.stdout is not None
        marked.stdout.readline()
        if not is_told:
            monkeypatch.setattr("resource.prlimit", _refuse)
        assert list(descendants.started_by(worker)) == [marked.pid]
        assert descendants.started_by(worker, only_group=True) == {}
        assert list(descendants.started_by(marked.pid, only_group=True)) == [marked.pid]
        assert descendants.started_by(worker + 1) == {}
        marked.stdin.close()


def _refuse(*arguments: object) -> None:
    raise PermissionError


@pytest.mark.parametrize(("platform", "methods"), [("darwin", ["fork", "spawn", "forkserver"]), ("win32", ["spawn"])])
def test_neither_macos_nor_windows_has_a_fork_server(
    monkeypatch: pytest.MonkeyPatch, platform: str, methods: list[str]
) -> None:
    assert system.has_fork_server()
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: methods)
    assert not system.has_fork_server()


def test_one_that_has_ended_and_one_that_never_was_do_not_run() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    assert not system.is_running(ended.pid), "nobody has taken note of its end"
    ended.wait()
    assert not system.is_running(ended.pid)
    assert system.is_running(os.getpid())


def test_a_file_that_is_written_at_once_is_not_older_than_the_moment_before(tmp_path: Path) -> None:
    """Some milliseconds lie between the ticks by which the kernel dates files: most of 300 moments are between two."""
    for number in range(300):
        moment, file = system.file_time_ns(), tmp_path / str(number)
        file.touch()
        assert file.stat().st_mtime_ns >= moment


def test_without_affinity_all_cores_are_this_process_s(monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.sched_getaffinity(0)
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.delattr(os, "sched_setaffinity")
    monkeypatch.setattr(system, "cpu_quota", lambda: None)
    assert (system.allowed_cores(), system.cores()) == (set(), os.cpu_count())
    system.run_on([min(before)])
    monkeypatch.undo()
    assert os.sched_getaffinity(0) == before


def test_threads_run_where_they_are_told_though_the_kernel_lists_none(monkeypatch: pytest.MonkeyPatch) -> None:
    found, one = [], min(os.sched_getaffinity(0))
    monkeypatch.setattr(system, "PROC", Path("/nowhere"))

    def run() -> None:  # in a thread of its own, whose place ends with it
        system.run_on([one])
        found.append(os.sched_getaffinity(0))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [{one}]


def test_without_counters_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "resource", None)
    monkeypatch.setattr(system, "PROC", Path("/nowhere"))
    monkeypatch.delattr(os, "getuid")
    system.mark_own()
    assert (system.faults_of_children(), system.user()) == (0, 0)
    assert (system.processor_seconds(), list(system.memory_left()), system.anonymous_bytes(os.getpid())) == (
        None,
        [],
        0,
    )
    assert system.is_running(2**30), "nobody can say"


def test_memory_and_processors_where_the_kernel_has_no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS and Windows: what psutil tells, which has its own way to it."""
    monkeypatch.setattr(system, "PROC", Path("/nowhere"))
    monkeypatch.setattr(system, "_psutil", lambda: psutil)
    ((left, limit),) = system.memory_left()
    assert 0 < left < psutil.virtual_memory().total
    assert limit is None
    busy_s, _ = system.processor_seconds() or (0.0, 0.0)
    assert busy_s >= os.times().user


@pytest.mark.parametrize(
    ("own", "above", "expected"),
    [
        ("max 100000", "max 100000", 8),
        ("max 100000", "150000 100000", 2),
        ("50000 100000", "400000 100000", 1),
        ("1600000 100000", "max 100000", 8),
    ],
)
def test_cores_are_what_the_tightest_quota_leaves(groups: Path, own: str, above: str, expected: int) -> None:
    (groups / "jobs" / "one" / "cpu.max").write_text(f"{own}\n", encoding="ascii")
    (groups / "jobs" / "cpu.max").write_text(f"{above}\n", encoding="ascii")
    assert (system.cores(), system.granted_share()) == (expected, expected / 8)


@pytest.mark.parametrize(("quota", "expected"), [("-1", 8), ("250000", 3)])
def test_a_quota_of_version_1_in_a_container_that_sees_its_group_as_the_root(
    groups: Path, quota: str, expected: int
) -> None:
    (groups / "proc" / "self" / "cgroup").write_text("3:cpuset:/\n4:cpu,cpuacct:/docker/0f3a\n0::/\n", encoding="ascii")
    folder = groups / "cpu,cpuacct"
    folder.mkdir()
    (folder / "cpu.cfs_quota_us").write_text(f"{quota}\n", encoding="ascii")
    (folder / "cpu.cfs_period_us").write_text("100000\n", encoding="ascii")
    assert system.cores() == expected
