"""Processes that a worker started, found and ended when the worker has ended."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
from pathlib import Path

_ROUNDS = 3
"""A process may start another one while it is looked for."""
_HELPERS = ("multiprocessing.resource_tracker", "torch/_inductor/compile_worker", "torch_shm_manager")
"""Processes of Python's and torch's own that do no work of a model, and end a moment after the worker."""
_SHOWN = 80
_LISTED = 3
_MARK = 10**15
"""Microseconds, 31 years, of processor time at real-time priority: a limit that limits nothing, to which the number of
the worker is added. All that a worker starts inherits it: a daemon, too, which has another parent, another session and
maybe none of the worker's environment."""


def mark_own() -> None:
    """Mark this process, a worker, and all that it will start."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, ValueError):  # a lower limit is in force: then the group must do
            hard = resource.getrlimit(resource.RLIMIT_RTTIME)[1]
            resource.setrlimit(resource.RLIMIT_RTTIME, (_MARK + os.getpid(), hard))


def end_group(leader: int) -> tuple[str, ...]:
    """End the process group of a worker that still lives, and with it all that belongs to it; the command lines of what
    the worker had started there."""
    with contextlib.suppress(OSError):
        if os.getpgid(leader) == leader:  # not yet its own group, where it is just starting: never ours
            named = [command for process, command in started_by(leader, only_group=True).items() if process != leader]
            os.killpg(leader, signal.SIGKILL)
            return tuple(name for name in named if name)
    return ()


def end_left(worker: int) -> tuple[str, ...]:
    """End what a worker that has ended left behind; their command lines."""
    named: dict[int, str] = {}
    if sys.platform != "linux":
        with contextlib.suppress(OSError):
            os.killpg(worker, signal.SIGKILL)
    for _ in range(_ROUNDS):
        found = started_by(worker)
        for process, command in found.items():
            named.setdefault(process, command)
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL)
        if not found:
            break
    named.pop(worker, None)  # whose fork server has died is only thought to have ended
    return tuple(name for name in named.values() if name)


def running(worker: int) -> tuple[str, ...]:
    """The command lines of what a worker that lives has started and what runs by now."""
    return tuple(name for process, name in started_by(worker).items() if name and process != worker)


def listed(commands: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in commands[:_LISTED]) + (", ..." if len(commands) > _LISTED else "")


def is_running(process: int) -> bool:
    """Whether it has not ended; one that has stands in the list until its parent takes note."""
    try:
        state = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except OSError:
        return sys.platform != "linux"  # nobody knows
    return state not in (b"Z", b"X")


def started_by(worker: int, *, only_group: bool = False) -> dict[int, str]:
    """Processes that run in the group of a worker or under its mark: number -> command, '' of helpers."""
    mark, found = str(_MARK + worker).encode(), {}
    for name in os.listdir("/proc") if sys.platform == "linux" else ():  # noqa: PTH208 -- each worker's end waits for it
        if not name.isdigit() or int(name) == os.getpid():
            continue
        with contextlib.suppress(OSError, ValueError):  # it has just ended, or is another user's
            state, _, group = _read(name, "stat").rpartition(b")")[2].split(maxsplit=3)[:3]
            is_ours = int(group) == worker or (not only_group and mark in _read(name, "limits").split())
            if is_ours and state not in (b"Z", b"X"):
                found[int(name)] = _command(name)
    return found


def _read(process: str, name: str) -> bytes:
    """A file of `/proc`, without pathlib, which took half of the time: hundreds are read where a worker ends."""
    with open(f"/proc/{process}/{name}", "rb", buffering=0) as file:  # noqa: PTH123
        return file.readall()


def _command(process: str) -> str:
    words = " ".join(_read(process, "cmdline").decode("utf-8", errors="replace").replace("\0", " ").split())
    if any(helper in words for helper in _HELPERS):
        return ""
    if "multiprocessing.forkserver" in words:
        return "a fork of the worker"
    return words if len(words) <= _SHOWN else f"{words[: _SHOWN - 4]} ..."
