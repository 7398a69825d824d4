"""Processes that a worker started, found and ended when the worker has ended."""

from __future__ import annotations

import contextlib
import os

from pytest_modelopt import system

_ROUNDS = 3
"""A process may start another one while it is looked for."""
_HELPERS = ("multiprocessing.resource_tracker", "torch/_inductor/compile_worker", "torch_shm_manager")
"""Processes of Python's and torch's own that do no work of a model, and end a moment after the worker."""
_SHOWN = 80
_LISTED = 3


def end_group(leader: int) -> tuple[str, ...]:
    """End the process group of a worker that still lives, and with it all that belongs to it; the command lines of what
    the worker had started there."""
    with contextlib.suppress(OSError):
        if system.leads_group(leader):  # not yet its own group, where it is just starting: never ours
            named = [command for process, command in started_by(leader, only_group=True).items() if process != leader]
            system.end_group(leader)
            return tuple(name for name in named if name)
    return ()


def end_left(worker: int) -> tuple[str, ...]:
    """End what a worker that has ended left behind; their command lines."""
    named: dict[int, str] = {}
    if system.HAS_GROUPS and not system.has_proc():
        with contextlib.suppress(OSError):
            system.end_group(worker)
    for _ in range(_ROUNDS):
        found = started_by(worker)
        for process, command in found.items():
            named.setdefault(process, command)
            with contextlib.suppress(OSError):
                os.kill(process, system.KILL)
        if not found:
            break
    named.pop(worker, None)  # whose fork server has died is only thought to have ended
    return tuple(name for name in named.values() if name)


def running(worker: int) -> tuple[str, ...]:
    """The command lines of what a worker that lives has started and what runs by now."""
    return tuple(name for process, name in started_by(worker).items() if name and process != worker)


def listed(commands: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in commands[:_LISTED]) + (", ..." if len(commands) > _LISTED else "")


def started_by(worker: int, *, only_group: bool = False) -> dict[int, str]:
    """Processes that run in the group of a worker or under its mark: number -> command, '' of helpers."""
    if not system.has_proc():
        return {process: _told(command) for process, command in system.descendants(worker).items()}
    found = {}
    for name in os.listdir(system.PROC):  # noqa: PTH208 -- each worker's end waits for it
        if not name.isdigit() or int(name) == os.getpid():
            continue
        process = int(name)
        with contextlib.suppress(OSError, ValueError):  # it has just ended, or is another user's
            # System calls, which take a tenth of the time of the files: each worker's end asks of all processes.
            if system.is_of(worker, process, only_group=only_group):
                folder = system.PROC / name
                state = (folder / "stat").read_bytes().rpartition(b")")[2].split(maxsplit=1)[0]
                if state not in (b"Z", b"X"):
                    command = (folder / "cmdline").read_text(encoding="utf-8", errors="replace")
                    found[process] = _told(command.replace("\0", " "))
    return found


def _told(command: str) -> str:
    words = " ".join(command.split())
    if any(helper in words for helper in _HELPERS):
        return ""
    if "multiprocessing.forkserver" in words:
        return "a fork of the worker"
    return words if len(words) <= _SHOWN else f"{words[: _SHOWN - 4]} ..."
