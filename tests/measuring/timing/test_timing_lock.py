"""The lock that keeps timings of this machine apart, with real workers: who waits, for whom, and how long."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from pytest_modelopt import system
from pytest_modelopt.judging.judge import judge
from pytest_modelopt.measuring.controller.runner import Runner
from pytest_modelopt.measuring.controller.timing import host_lock
from pytest_modelopt.measuring.controller.timing.paired_timing import Listener
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.reporting.messages.verdicts import format_verdict
from pytest_modelopt.results.case import PlannedCase
from pytest_modelopt.results.verdicts import Limit
from pytest_modelopt.selftest import trial

HOLDS = """
import sys, time
from pathlib import Path
from pytest_modelopt.measuring.controller.timing.host_lock import alone
with alone(Path(sys.argv[1]), 60, lambda seconds: None):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that times something on this machine."""
    process = subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_timing_waits_for_another_and_goes_on_when_that_has_died(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    waits: list[float] = []

    def kill_at_the_second(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            holder.kill()

    with host_lock.alone(tmp_path / "lock", 60, kill_at_the_second) as held:
        assert len(waits) >= 2
        assert held.waited_s >= waits[1]


def test_waiting_too_long_says_for_what_and_what_to_do(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    with (
        pytest.raises(host_lock.LockUnavailable, match=r"have been timing for .*they hold .*lock; run fewer jobs"),
        host_lock.alone(tmp_path / "lock", 0.1, lambda seconds: None),
    ):
        pytest.fail("two hold the lock")


def test_a_lock_that_cannot_be_made_is_an_error_of_the_case(tmp_path: Path) -> None:
    with (
        pytest.raises(host_lock.LockUnavailable, match="cannot be used"),
        host_lock.alone(tmp_path, 1, lambda seconds: None),  # a folder
    ):
        pytest.fail("held")


def test_without_the_lock_timed_limits_are_not_measured_and_the_others_stand(
    variant: Callable[..., Variant], runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_lock, "lock_file", lambda: tmp_path)  # a folder
    limits = tuple(
        Limit(name, value, "L", "error", "budgets.yaml", 7) for name, value in (("max_size", 1e9), ("min_speedup", 0.1))
    )
    case = PlannedCase(id="id", model="m", recipe="int8-dynamic", limits=limits, batch_size=1)
    measured = runner.measure(case, variant(recipe="int8-dynamic"), lambda samples, call: False)
    assert measured.error is None
    size, speed = judge(measured, timed_limits=1).verdicts
    assert size.outcome == "pass"
    assert speed.outcome == "not measured"
    assert "the file that keeps timings apart cannot be used" in format_verdict(measured, speed)


LOCK_FILE = host_lock.lock_file  # as it is: the tests have one of their own


def test_the_lock_is_one_for_the_machine_whatever_tmpdir_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = LOCK_FILE()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert LOCK_FILE() == before
    assert stat.S_IMODE(before.parent.stat().st_mode) == 0o777


@pytest.mark.skipif(os.getuid() != 0, reason="only root can act for two users")
@pytest.mark.parametrize("first", ["root", "nobody"])
def test_users_wait_for_each_other(first: str) -> None:
    """In a folder as `lock_file` makes it, one user can lock the file of another; in /tmp itself none may open it."""
    script = (
        "import os, sys, tempfile\n"
        "from filelock import FileLock\n"
        "with FileLock(tempfile.mktemp()):\n    pass\n"  # imports all it needs, while it may read them
        "os.setgid(65534)\nos.setuid(65534)\n"
        "with FileLock(sys.argv[1], mode=0o666).acquire(timeout=30):\n    print('held')\n"
    )
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o777)
        path = Path(folder) / "timing.lock"
        if first == "root":
            with host_lock.alone(path, 60, lambda seconds: None):
                pass
        done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False)
        assert done.stdout == "held\n", done.stderr
        with host_lock.alone(path, 60, lambda seconds: None):
            pass


def test_pairs_are_taken_while_the_lock_is_held(
    variant: Callable[..., Variant], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A holder that lets go after the third look: what was waited stands in the record."""
    monkeypatch.setattr(host_lock, "lock_file", lambda: tmp_path / "lock")
    script = HOLDS.replace("time.sleep(60)", "sys.stdin.readline()")
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "lock")], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "held\n"

    class LetsGo(Listener):
        waits = free = 0

        def pairs(self, count: int, seconds: float, speedup: float) -> None:
            """Whether another could take the lock between two pairs."""
            try:
                FileLock(tmp_path / "lock").acquire(timeout=0).lock.release()
            except Timeout:
                return
            self.free += 1

        def waiting(self, seconds: float) -> None:
            self.waits += 1
            if self.waits == 3:
                process.communicate("\n")

    listener = LetsGo()
    done = trial(variant(), slowdown=1.0, min_speedup=0.9, time_limit_s=5, folder=tmp_path, listener=listener)
    assert listener.waits >= 3
    assert listener.free == 0
    assert done.timing.conditions.waited_s > 0.5


def test_a_step_waits_while_another_is_timed(
    holder: subprocess.Popen[str],
    variant: Callable[..., Variant],
    runner: Runner,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The wait is shown and is no time of the step; from when to when the case was timed stands in the record."""
    monkeypatch.setattr(host_lock, "lock_file", lambda: tmp_path / "lock")
    shown: list[str] = []

    def beat(detail: str = "") -> None:
        shown.append(detail)
        if len(shown) == 4:
            holder.kill()

    monkeypatch.setattr(runner._progress, "beat", beat)
    planned = PlannedCase(id="id", model="m", recipe="int8-dynamic", limits=(), batch_size=1)
    before = time.time()
    measured = runner.measure(planned, variant(recipe="int8-dynamic"), lambda samples, call: False)
    assert all(re.fullmatch(r"waiting \d+ s for a timing on this machine", text) for text in shown[:4])
    assert measured.timing is not None
    assert measured.timing.conditions.host == system.host()
    [(start, end)] = measured.timing.conditions.held_ms
    assert 1000 * before < start <= end <= 1000 * time.time()
