"""Bytes that the kernel counts as read by this process though others read them, and those that it does not count.

What a child has read is added to this process when it waits for the child, but stays in the child unless that hands it
over. What comes through pipes and files this process reads itself; what sockets and shared memory bring is no read.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
from collections.abc import Callable
from typing import Any

from pytest_modelopt import system
from pytest_modelopt.measuring.worker.watches import c_children
from pytest_modelopt.measuring.worker.watches.c_children import Counts

_noted = [Counts()]
"""Of children that have ended and that Python has waited for, since `watch`."""
_shared = [0]
"""Bytes of memory that this process may share with them, as it was mapped from Python."""
_received = [0]
"""Bytes, through sockets of Python."""
_RECEIVERS = ("recv", "recv_into", "recvfrom", "recvfrom_into", "recvmsg", "recvmsg_into")


def watch() -> None:
    """Note from now on what each child has read when it is waited for from Python."""
    if not hasattr(os, "waitid") or not os.path.exists(f"{system.PROC}/self/io"):  # noqa: PTH110
        return
    c_children.watch()
    for name in _RECEIVERS:
        setattr(socket.socket, name, _counting(getattr(socket.socket, name)))
    ssl.SSLSocket.read = _counting(ssl.SSLSocket.read)  # type: ignore[method-assign]
    waitid, wait4, waitpid = os.waitid, os.wait4, os.waitpid
    poll = subprocess.Popen._internal_poll  # type: ignore[attr-defined]

    def ended(kind: int, number: int, options: int) -> int:
        """The child that the same wait would find, which stays to be waited for; 0: none has ended. Who asks whether
        one has ended is told 0 then, and not asked again: it may end meanwhile."""
        is_plain = not options & ~os.WNOHANG
        found = waitid(kind, number, os.WEXITED | os.WNOWAIT | (options & os.WNOHANG if is_plain else os.WNOHANG))
        if found is None:
            return 0
        _note_ended(found.si_pid)
        return found.si_pid

    def noted(pid: int, options: int) -> int:
        kind, number = (os.P_PID, pid) if pid > 0 else (os.P_ALL, 0) if pid == -1 else (os.P_PGID, -pid or os.getpgrp())
        return ended(kind, number, options)

    def internal_poll(self: Any, *arguments: Any, **more: Any) -> Any:
        if self.returncode is None:
            with contextlib.suppress(ChildProcessError):
                if not ended(os.P_PID, self.pid, os.WNOHANG):
                    return None
        return poll(self, *arguments, **more)

    def of_pid(pid: int, options: int) -> tuple[int, int]:
        found = noted(pid, options)
        return (0, 0) if options == os.WNOHANG and not found else waitpid(found or pid, options)

    def of_kind(kind: int, number: int, options: int) -> Any:
        if options & os.WEXITED and not options & os.WNOWAIT:
            found, is_asked_only = ended(kind, number, options & ~os.WEXITED), options == os.WEXITED | os.WNOHANG
            if is_asked_only and not found:
                return None
        return waitid(kind, number, options)

    replaced: dict[str, Any] = {
        "waitpid": of_pid,
        "wait": lambda: of_pid(-1, 0),
        "wait4": lambda pid, options: wait4(noted(pid, options) or pid, options),
        "wait3": lambda options: wait4(noted(-1, options) or -1, options),
        "waitid": of_kind,
    }
    for name, function in replaced.items():
        setattr(os, name, function)
    subprocess.Popen._internal_poll = internal_poll  # type: ignore[attr-defined]


def _counting(receive: Callable[..., Any]) -> Callable[..., Any]:
    """The method of a socket, and how much it gets."""

    def counted(self: Any, *arguments: Any, **more: Any) -> Any:
        found = receive(self, *arguments, **more)
        content = found[0] if isinstance(found, tuple) else found
        _received[0] += content if isinstance(content, int) else len(content)
        return found

    return counted


def note_map(descriptor: int, length: int, since_ns: int) -> None:
    """That this process has mapped memory, which others may write to. A file that was there before is no child's."""
    with contextlib.suppress(OSError):
        if descriptor >= 0:
            state = os.fstat(descriptor)
            length = 0 if state.st_mtime_ns < since_ns else length or state.st_size
        _shared[0] += length


def uncounted(mapped_bytes: int) -> int:
    """Bytes that this process got without a read, since `watch`: what children have read, as far as it shares memory
    with them, and what sockets brought. `mapped_bytes`: of shared memory of which Python does not know."""
    return min(_ended().read, _shared[0] + mapped_bytes) + _received[0]


def of_children() -> int:
    """Bytes that ended children have read beyond what they have written, which the kernel counts as this process's."""
    ended = _ended()
    return ended.read - ended.written


def _ended() -> Counts:
    """Of all children that have ended since `watch`."""
    return _noted[0] + c_children.waited_for_by_c(_noted[0])


def _note_ended(pid: int) -> None:
    """One that another user owns may not be looked at: it is told as those of C are."""
    with contextlib.suppress(OSError):
        _noted[0] += c_children.of_ended(pid)
