"""The lock of the machine: timings exclude all others, and those that prepare exclude timings only."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_modelopt import system
from pytest_modelopt.cli.main import main
from pytest_modelopt.measuring.controller.timing import host_lock

HOLDS = """
import sys
from pathlib import Path
from pytest_modelopt.measuring.controller.timing import host_lock
with getattr(host_lock, sys.argv[2])(Path(sys.argv[1]), 60, lambda seconds: None):
    print("held", flush=True)
    sys.stdin.readline()
print("given up", flush=True)
sys.stdin.readline()
"""


class Other:
    """Another process of this machine, which asks for the lock; `held` waits until it has it."""

    def __init__(self, lock: Path, how: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDS, str(lock), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._said: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._said.append(line.strip())

    def has_said(self, text: str, within_s: float = 30.0) -> bool:
        end = time.monotonic() + within_s
        while text not in self._said and time.monotonic() < end:
            time.sleep(0.01)
        return text in self._said

    def goes_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "lock"


@pytest.fixture
def other(lock: Path) -> Iterator[Callable[[str], Other]]:
    with contextlib.ExitStack() as ended:

        def start(how: str) -> Other:
            made = Other(lock, how)
            ended.callback(made.end)
            return made

        yield start


def is_free(lock: Path, how: str) -> bool:
    """Whether this process could have the lock at once."""

    class Waits(Exception):
        pass

    def give_up(seconds: float) -> None:
        raise Waits

    try:
        with getattr(host_lock, how)(lock, 60, give_up):
            return True
    except Waits:
        return False


def test_those_that_prepare_share_it_and_a_timing_does_not(lock: Path, other: Callable[[str], Other]) -> None:
    assert other("shared").has_said("held")
    assert is_free(lock, "shared")
    assert not is_free(lock, "alone")


def test_beside_a_timing_nobody_prepares(lock: Path, other: Callable[[str], Other]) -> None:
    timing = other("alone")
    assert timing.has_said("held")
    assert not is_free(lock, "shared")
    assert not is_free(lock, "alone")
    timing.goes_on()
    assert timing.has_said("given up")
    assert is_free(lock, "alone")


def test_a_timing_that_waits_lets_no_new_step_begin(lock: Path, other: Callable[[str], Other]) -> None:
    """Or steps that overlap would keep it waiting for ever."""
    preparing = other("shared")
    assert preparing.has_said("held")
    timing = other("alone")
    end = time.monotonic() + 30
    while is_free(lock, "shared"):  # until it waits
        assert time.monotonic() < end
    assert not timing.has_said("held", within_s=0.1)
    preparing.goes_on()
    assert timing.has_said("held")


@pytest.mark.parametrize("how", ["shared", "alone"])
def test_it_ends_with_a_process_that_is_killed(lock: Path, other: Callable[[str], Other], how: str) -> None:
    holder = other(how)
    assert holder.has_said("held")
    holder.process.kill()
    holder.process.wait()
    assert is_free(lock, "alone")


def test_a_process_that_was_forked_meanwhile_does_not_hold_it(lock: Path) -> None:
    with host_lock.shared(lock, 60, lambda seconds: None):
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
    try:
        assert is_free(lock, "alone")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_what_is_prepared_within_a_timing_has_the_machine_already(lock: Path) -> None:
    with host_lock.alone(lock, 60, lambda seconds: None):
        assert is_free(lock, "shared")


def test_waiting_for_those_that_prepare_has_an_end(lock: Path, other: Callable[[str], Other]) -> None:
    assert other("shared").has_said("held")
    with (
        pytest.raises(host_lock.LockUnavailable, match=r"have been preparing for .*lock; run fewer jobs"),
        host_lock.alone(lock, 0.1, lambda seconds: None),
    ):
        pytest.fail("held")


def test_without_shared_locks_timings_exclude_each_other_still(
    lock: Path, other: Callable[[str], Other], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "fcntl", None)
    assert other("alone").has_said("held")
    assert is_free(lock, "shared")
    assert not is_free(lock, "alone")


# --- the command -----------------------------------------------------------------------------------------------------

SAYS_WHETHER_FREE = """
import sys
from pathlib import Path
from pytest_modelopt.measuring.controller.timing import host_lock
def give_up(seconds): sys.exit(3)
with getattr(host_lock, sys.argv[2])(Path(sys.argv[1]), 60, give_up): pass
"""


@pytest.mark.parametrize(
    ("kind", "asks", "status"),
    [("--shared", "shared", 0), ("--shared", "alone", 3), ("--exclusive", "shared", 3), ("--exclusive", "alone", 3)],
)
def test_a_command_holds_it_and_gives_its_exit_status(
    lock: Path, monkeypatch: pytest.MonkeyPatch, kind: str, asks: str, status: int
) -> None:
    monkeypatch.setattr(host_lock, "lock_file", lambda: lock)
    assert main(["lock", kind, "--", sys.executable, "-c", SAYS_WHETHER_FREE, str(lock), asks]) == status
    assert is_free(lock, "alone")


def test_a_command_that_waits_says_for_what_and_gives_up(
    lock: Path,
    other: Callable[[str], Other],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(host_lock, "lock_file", lambda: lock)
    assert other("alone").has_said("held")
    touches = [sys.executable, "-c", f"open({json.dumps(str(tmp_path / 'ran'))}, 'w')"]
    assert main(["lock", "--shared", "--wait", "0.1 s", "--", *touches]) == 2
    assert not (tmp_path / "ran").exists()
    told: Any = capsys.readouterr().err
    assert told.startswith(f"waiting for others on this machine, which hold {lock}\nothers on this machine have been")


def test_a_command_that_does_not_exist_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lock", "--exclusive", "--", "no-such-command"]) == 2
    assert "no-such-command" in capsys.readouterr().err
