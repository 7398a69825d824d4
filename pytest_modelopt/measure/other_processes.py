"""Work that a variant leaves to other processes: those that it starts, and servers that it asks.

No counter of this process sees what they hold, nor which files they read.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
from pathlib import Path
from typing import Any

_SELF = Path("/proc/self")
_HELPERS = ("multiprocessing.resource_tracker", "_inductor/compile_worker")
"""Processes of Python's and torch's own that do no work of a model."""
_LOGS = ("/dev/log", "/run/systemd/")
_TCP_INFO_BYTES, _RECEIVED = 192, 128
"""Bytes of Linux's `struct tcp_info` that are read, and the offset of its count of received bytes."""
_SHOWN = 60


class OtherProcesses:
    """Counts the work that other processes do for this one after it was made."""

    def __init__(self) -> None:
        self._children = _children()
        self._ended, self._received = _ended_children(), _received()
        self._connected: set[str] = set()
        sys.addaudithook(self._note_event)

    def note_first_call(self) -> None:
        """What a model does once, such as to download its weights or to compile an operator, is no work of a call."""
        self._ended, self._received = _ended_children(), _received()
        self._connected.clear()

    def named(self) -> str:
        """Those that are there for the calls since the first one, in words; empty where there are none."""
        found = [f"`{command}`" for pid, command in _children().items() if pid not in self._children]
        if _ended_children() != self._ended:
            found.append("processes that each call starts")
        asked = {address for address, received in _received().items() if received != self._received.get(address)}
        found += [f"a server at {address}" for address in sorted(asked | self._connected)]
        return ", ".join(dict.fromkeys(found))

    def _note_event(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.connect" and (address := _address(arguments[1])):
            self._connected.add(address)


def _children() -> dict[int, str]:
    """Processes that this one has started and that still run: number -> command."""
    found: dict[int, str] = {}
    with contextlib.suppress(OSError):  # not Linux, or a kernel that does not tell
        for task in (_SELF / "task").iterdir():
            for pid in (task / "children").read_text(encoding="ascii").split():
                with contextlib.suppress(OSError):  # it has just ended
                    words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    if words and not any(helper in words for helper in _HELPERS):  # one that has ended has no words
                        command = " ".join(words.split())
                        found[int(pid)] = command if len(command) <= _SHOWN else f"{command[: _SHOWN - 4]} ..."
    return found


def _ended_children() -> tuple[float, ...]:
    used = os.times()
    return used.children_user, used.children_system, _faults_of_ended_children()


def _faults_of_ended_children() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt


def _received() -> dict[str, int]:
    """Address of each server to which this process is connected -> bytes that came from there, where that is known."""
    found: dict[str, int] = {}
    with contextlib.suppress(OSError):
        for link in (_SELF / "fd").iterdir():
            with contextlib.suppress(OSError):  # it was closed, is no socket, or not connected
                if os.readlink(link).startswith("socket:"):  # noqa: PTH115 -- which is no path
                    with socket.socket(fileno=os.dup(int(link.name))) as connection:
                        if address := _address(connection.getpeername()):
                            found[address] = found.get(address, 0) + _bytes_of(connection)
    return found


def _address(peer: Any) -> str:
    """In words; empty where there is no server behind it: a pair of sockets, the system's log."""
    if isinstance(peer, tuple):
        return f"{peer[0]}:{peer[1]}" if len(peer) > 1 and isinstance(peer[0], str) else ""
    name = os.fsdecode(peer) if isinstance(peer, (str, bytes)) else ""
    return "" if name.startswith(_LOGS) else name.replace("\0", "@")


def _bytes_of(connection: socket.socket) -> int:
    if connection.family not in (socket.AF_INET, socket.AF_INET6) or not hasattr(socket, "TCP_INFO"):
        return 0
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    return int(struct.unpack_from("Q", info, _RECEIVED)[0]) if len(info) >= _RECEIVED + 8 else 0
