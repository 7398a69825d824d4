"""Memory that a process holds without a map of it: memory files and deleted files that it keeps open, and segments of
System V that it has made. Their pages are in no counter of a process's own."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection, Iterator
from typing import TypeAlias

from pytest_modelopt import system
from pytest_modelopt.measuring.worker.memory.tensor_meter import union_bytes
from pytest_modelopt.measuring.worker.watches import opened_files

Key: TypeAlias = "tuple[str, int]"
"""A file by its inode, a segment by its number, which stands for the inode in the maps of a process."""


def held() -> dict[Key, int]:
    """Bytes of each."""
    return dict([*_files(), *_segments()])


def unmapped_bytes(before: Collection[Key]) -> int:
    """Bytes of those that are not in `before`, beyond what this process maps of each, which other counters see."""
    new = {key: size for key, size in held().items() if key not in before}
    if not new:
        return 0
    mapped: dict[Key, list[tuple[int, int]]] = {}
    for line in opened_files.lines_of_maps():
        place, _, offset, _, number = line.split(" ", 5)[:5]
        start, _, stop = place.partition("-")
        first = int(offset, 16)
        key = ("segment" if "/SYSV" in line else "file", int(number))
        mapped.setdefault(key, []).append((first, first + int(stop, 16) - int(start, 16)))
    return sum(max(0, size - union_bytes(sorted(mapped.get(key, ())))) for key, size in new.items())


def _files() -> Iterator[tuple[Key, int]]:
    with contextlib.suppress(OSError):
        for descriptor in (system.PROC / "self" / "fd").iterdir():
            with contextlib.suppress(OSError):  # it was that of the list
                path = str(descriptor.readlink())
                state = descriptor.stat()
                if stat.S_ISREG(state.st_mode) and (path.startswith(opened_files.SHARED_MEMORY) or not state.st_nlink):
                    yield ("file", state.st_ino), 512 * state.st_blocks  # of a sparse file what is in memory


def _segments() -> Iterator[tuple[Key, int]]:
    with contextlib.suppress(OSError):
        head, *lines = (system.PROC / "sysvipc" / "shm").read_text(encoding="ascii").splitlines()
        names = head.split()
        for line in lines:
            segment = dict(zip(names, map(int, line.split()), strict=True))
            if segment["cpid"] == os.getpid():
                yield ("segment", segment["shmid"]), segment["rss"]
