"""SIGTERM as Ctrl-C: who else handles it keeps it, forked children end by it, and afterwards all is as it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_modelopt.measuring.controller.termination import Terminated, Termination, sigterm_as_ctrl_c


@pytest.fixture(autouse=True)
def _default() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


def _send() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0)


def test_it_raises_what_ctrl_c_raises_and_leaves_the_default_behind() -> None:
    with pytest.raises(KeyboardInterrupt, match="ended by SIGTERM"), sigterm_as_ctrl_c():
        _send()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize("theirs", [signal.SIG_IGN, lambda *_: None], ids=["ignored", "handled"])
def test_what_others_do_at_the_signal_stays(theirs: Any) -> None:
    signal.signal(signal.SIGTERM, theirs)
    with sigterm_as_ctrl_c():
        _send()
        assert signal.getsignal(signal.SIGTERM) is theirs
    assert signal.getsignal(signal.SIGTERM) is theirs


def test_a_handler_that_was_installed_since_stays() -> None:
    calls: list[int] = []
    with sigterm_as_ctrl_c():
        signal.signal(signal.SIGTERM, lambda number, _: calls.append(number))
    _send()
    assert calls == [signal.SIGTERM]


def test_the_second_signal_of_timeout_does_not_interrupt_the_cleaning_up_and_a_later_one_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with sigterm_as_ctrl_c():
        with pytest.raises(Terminated):
            _send()
        _send()
        now[0] += 3
        with pytest.raises(Terminated):
            _send()


def test_nothing_interrupts_the_end() -> None:
    termination = Termination()
    termination.install()
    termination.is_ending = True
    _send()
    termination.remove()


FORKS = """
import os, signal, time
from pytest_modelopt.measuring.controller.termination import sigterm_as_ctrl_c
with sigterm_as_ctrl_c():
    child = os.fork()
    if not child:
        try:
            time.sleep(30)
        finally:
            os._exit(7)
    time.sleep(0.1)
    os.kill(child, signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_child_that_a_test_forks_ends_by_it() -> None:
    done = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, check=True)
    assert int(done.stdout) == -signal.SIGTERM


def test_another_thread_can_neither_install_nor_remove_it() -> None:
    termination = Termination()

    def both() -> None:
        termination.install()
        termination.remove()

    thread = threading.Thread(target=both)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


HOLDS = """
import sys, time
from pytest_modelopt.results.files.locked_folders import hold
folder = hold()
(folder.path / "data.pt").write_text("evaluation data")
print(folder.path, flush=True)
time.sleep(60)
"""


def test_what_a_killed_process_left_is_cleared_and_what_a_live_one_holds_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    from pytest_modelopt.results.files.locked_folders import clear_abandoned, held_folder

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    theirs = tmp_path / "pytest-modelopt-run-user"
    theirs.mkdir()
    linked = tmp_path / "pytest-modelopt-run-0123456789ab"
    linked.symlink_to(theirs)
    processes, folders = [], []
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDS],
            env={**os.environ, "TMPDIR": str(tmp_path)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        processes.append(process)
        folders.append(Path(process.stdout.readline().strip()))
    try:
        with held_folder() as own:
            assert own.stat().st_mode & 0o777 == 0o700
            processes[0].kill()
            processes[0].wait()
            clear_abandoned()
            assert [folder.exists() for folder in folders] == [False, True]
            assert own.exists()
            assert theirs.exists()
        assert not own.exists()
        monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
        processes[1].kill()
        processes[1].wait()
        clear_abandoned()
        assert folders[1].exists(), "another user's"
        monkeypatch.undo()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        clear_abandoned()
        assert sorted(path.name for path in tmp_path.iterdir()) == [linked.name, theirs.name]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
