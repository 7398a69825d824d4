"""Processes that a worker started, found and ended when the worker has ended."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path

_ROUNDS = 3
"""A process may start another one while it is looked for."""
_HELPERS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver", "torch/_inductor/compile_worker")
"""They end by themselves with the worker, a moment later: nobody needs to know."""


def end_group(leader: int) -> None:
    """End the process group of a worker that still lives, and with it all that belongs to it."""
    with contextlib.suppress(OSError):
        if os.getpgid(leader) == leader:  # not yet its own group, where it is just starting: never ours
            os.killpg(leader, signal.SIGKILL)


def end_left(worker: int, mark: str) -> tuple[str, ...]:
    """End what a worker that has ended left behind, in its group or under its mark; their command lines."""
    named: dict[int, str] = {}
    for _ in range(_ROUNDS):
        found = _left(worker, f"{mark}={worker}".encode())
        for process in found:
            named.setdefault(process, _command(process))
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL)
        if not found:
            break
    return tuple(name for name in named.values() if name and not any(helper in name for helper in _HELPERS))


def _left(worker: int, mark: bytes) -> list[int]:
    if sys.platform != "linux":
        with contextlib.suppress(OSError):
            os.killpg(worker, signal.SIGKILL)
        return []
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) in (worker, os.getpid()):
            continue
        with contextlib.suppress(OSError, ValueError):
            state, _, group = (folder / "stat").read_bytes().rpartition(b")")[2].split()[:3]
            if state in b"ZX":
                continue
            if int(group) == worker or mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def _command(process: int) -> str:
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
        return " ".join(word.decode("utf-8", errors="replace") for word in words).strip()[:80]
    return ""
