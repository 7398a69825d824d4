"""Work that a variant leaves to other processes: those that it starts, and servers that it asks.

No counter of this process sees what they hold, nor which files they read.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
from typing import Any

from pytest_modelopt import system
from pytest_modelopt.measuring.descendants import started_by

_SELF = system.PROC / "self"
_LOGS = ("/dev/log", "/run/systemd/")
_TCP_INFO_BYTES, _RECEIVED = 192, 128
"""Bytes of Linux's `struct tcp_info` that are read, and the offset of its count of received bytes."""


class OtherProcesses:
    """Counts the work that other processes do for this one after it was made."""

    def __init__(self) -> None:
        self._children = _children()
        self._ended, self._received = _ended_children(), _received()
        self._before = frozenset(self._received)
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
        asked = {
            address
            for address, received in _received().items()
            if (address not in self._before if received is None else received != self._received.get(address))
        }
        found += [f"a server at {address}" for address in sorted(asked | self._connected)]
        return ", ".join(dict.fromkeys(found))

    def _note_event(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("socket.connect", "socket.sendto", "socket.sendmsg") and (address := _address(arguments[1])):
            self._connected.add(address)


def _children() -> dict[int, str]:
    """Processes that this worker has started, daemons included, and that still run: number -> command."""
    return {pid: command for pid, command in started_by(os.getpid()).items() if command}


def _ended_children() -> tuple[float, ...]:
    used = os.times()
    return used.children_user, used.children_system, system.faults_of_children()


def _received() -> dict[str, int | None]:
    """Address of each server to which this process is connected -> bytes that came from there; None of those that
    nothing counts: of this machine's own sockets that have a path, and of named pipes."""
    found: dict[str, int | None] = {}
    with contextlib.suppress(OSError):
        for link in (_SELF / "fd").iterdir():
            with contextlib.suppress(OSError):  # it was closed, is no socket, or not connected
                if link.is_fifo() and (path := os.readlink(link)).startswith("/"):  # noqa: PTH115
                    found[path] = None
                elif link.is_socket():
                    with socket.socket(fileno=os.dup(int(link.name))) as connection:
                        if address := _address(connection.getpeername()):
                            received, so_far = _bytes_of(connection), found.get(address, 0)
                            found[address] = None if received is None or so_far is None else so_far + received
    return found


def _address(peer: Any) -> str:
    """In words; empty where there is no server behind it: a pair of sockets, the system's log."""
    if isinstance(peer, tuple):
        return f"{peer[0]}:{peer[1]}" if len(peer) > 1 and isinstance(peer[0], str) else ""
    name = os.fsdecode(peer) if isinstance(peer, (str, bytes)) else ""
    return "" if name.startswith(_LOGS) else name.replace("\0", "@")


def _bytes_of(connection: socket.socket) -> int | None:
    if connection.family not in (socket.AF_INET, socket.AF_INET6) or not hasattr(socket, "TCP_INFO"):
        return None
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    return int(struct.unpack_from("Q", info, _RECEIVED)[0]) if len(info) >= _RECEIVED + 8 else None
