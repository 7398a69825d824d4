"""Files that are opened, as the kernel tells: readers in C are seen by no hook of Python's."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import struct
from collections import deque
from collections.abc import Iterable, Iterator

from pytest_modelopt import system
from pytest_modelopt.measuring.installation import is_installed

_MOST_FOLDERS, _MOST_ENTRIES = 4096, 100_000
_NO_FOLDERS = frozenset({"__pycache__", "node_modules"})


class NamedFiles:
    """Files, and those in folders, by inotify. To be given names that the saved variant holds, since it tells of other
    processes, too."""

    _OPENED, _NONBLOCKING = 0x20, 0o4000
    _EVENT = struct.Struct("iIII")

    def __init__(self, paths: Iterable[str]) -> None:
        self._names: dict[int, str] = {}
        self._events = -1
        if not system.HAS_INOTIFY:
            return
        libc = ctypes.CDLL(None)
        self._events = libc.inotify_init1(self._NONBLOCKING)
        for path in sorted(paths):
            watch = libc.inotify_add_watch(self._events, os.fsencode(path), self._OPENED)
            if watch >= 0:
                self._names[watch] = path

    def opened(self) -> Iterator[str]:
        """What was opened since the last time."""
        content = _read_all(self._events)
        while content:
            watch, _, _, length = self._EVENT.unpack_from(content)
            name = os.fsdecode(content[self._EVENT.size : self._EVENT.size + length].rstrip(b"\0"))
            content = content[self._EVENT.size + length :]
            if watch in self._names:
                yield os.path.join(self._names[watch], name) if name else self._names[watch]  # noqa: PTH118


class FoldersOfProject:
    """All files below some folders, by fanotify, which tells whether this process has opened them: since Linux 5.13
    without privileges, but not in containers that forbid it. Folders that are hidden or installed are left out."""

    _INIT = (
        0x1 | 0x2 | 0x400 | 0x800
    )  # closed in children, without waiting, with the folder's handle and the file's name
    _ADD, _OPENED, _IN_FOLDER, _HERE = 0x1, 0x20, 0x0800_0000, -100
    _EVENT, _INFO = struct.Struct("=IBBHQii"), struct.Struct("=BBH8sIi")
    _MOST_BYTES_OF_HANDLE = 128

    def __init__(self, folders: Iterable[str]) -> None:
        self._folders: dict[bytes, str] = {}
        """By the kernel's handle of each."""
        self._events = -1
        libc = ctypes.CDLL(None)
        if not system.HAS_INOTIFY or not hasattr(libc, "fanotify_init"):
            return
        self._events = libc.fanotify_init(self._INIT, os.O_RDONLY)
        if self._events < 0:
            return
        libc.fanotify_mark.argtypes = [ctypes.c_int, ctypes.c_uint, ctypes.c_uint64, ctypes.c_int, ctypes.c_char_p]
        for folder in _below(folders):
            path = os.fsencode(folder)
            handle = self._handle(libc, path)
            if handle and not libc.fanotify_mark(
                self._events, self._ADD, self._OPENED | self._IN_FOLDER, self._HERE, path
            ):
                self._folders[handle] = folder

    @property
    def is_watching(self) -> bool:
        return bool(self._folders)

    def _handle(self, libc: ctypes.CDLL, path: bytes) -> bytes:
        """Empty where the file system has none."""
        buffer = ctypes.create_string_buffer(struct.pack("=Ii", self._MOST_BYTES_OF_HANDLE, 0), 8 + 128)
        if libc.name_to_handle_at(self._HERE, path, buffer, ctypes.byref(ctypes.c_int()), 0):
            return b""
        (size,) = struct.unpack_from("=I", buffer)
        return buffer.raw[: 8 + size]

    def opened(self) -> Iterator[str]:
        """What this process has opened since the last time."""
        content = _read_all(self._events)
        while content:
            length, _, _, start, _, _, process = self._EVENT.unpack_from(content)
            event, content = content[:length], content[length:]
            if process == os.getpid() and length > start:
                *_, size, _ = self._INFO.unpack_from(event, start)
                first = start + self._INFO.size - 8
                handle, name = event[first : first + 8 + size], event[first + 8 + size :].partition(b"\0")[0]
                if handle in self._folders:
                    yield os.path.join(self._folders[handle], os.fsdecode(name))  # noqa: PTH118


def _read_all(descriptor: int) -> bytes:
    content = b""
    with contextlib.suppress(OSError):  # nothing, or the kernel does not look
        while more := os.read(descriptor, 2**16):
            content += more
    return content


def _below(folders: Iterable[str]) -> list[str]:
    """These folders and those in them, the outer ones first, as far as that is looked through at once."""
    found: dict[str, None] = {}
    waiting, entries = deque(folders), 0
    while waiting and len(found) < _MOST_FOLDERS:
        folder = waiting.popleft()
        if folder in found or is_installed(f"{folder}/file"):
            continue
        found[folder] = None
        with contextlib.suppress(OSError), os.scandir(folder) as inside:
            for entry in itertools.islice(inside, _MOST_ENTRIES - entries):
                entries += 1
                is_left_out = entry.name.startswith(".") or entry.name in _NO_FOLDERS
                if not is_left_out and entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
    return list(found)
