"""Memory without a map: what a process has written into memory files, deleted files and segments of System V."""

from __future__ import annotations

import ctypes
import mmap
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_modelopt.measuring.worker.memory import unmapped_memory

SIZE = 3 * 1024**2
_CREATE, _REMOVE = 0o1600, 0
_LIBC = ctypes.CDLL(None)
_LIBC.shmat.restype, _LIBC.shmdt.argtypes = ctypes.c_void_p, [ctypes.c_void_p]


class Segment:
    """Of System V."""

    def __init__(self) -> None:
        self.number = _LIBC.shmget(0, SIZE, _CREATE)
        assert self.number >= 0
        address = _LIBC.shmat(self.number, None, 0)
        ctypes.memset(address, 1, SIZE)
        _LIBC.shmdt(address)

    def close(self) -> None:
        _LIBC.shmctl(self.number, _REMOVE, None)


class Written:
    """A file by its descriptor."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        os.write(descriptor, bytes(SIZE))

    def close(self) -> None:
        os.close(self.descriptor)


def deleted(folder: str) -> Written:
    descriptor, path = tempfile.mkstemp(dir=folder)
    Path(path).unlink()
    return Written(descriptor)


KINDS: dict[str, Callable[[], Any]] = {
    "memory file": lambda: Written(os.memfd_create("of_ours")),
    "deleted file": lambda: deleted(tempfile.gettempdir()),
    "deleted in /dev/shm": lambda: deleted("/dev/shm"),
    "segment": Segment,
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_and_not_mapped_is_counted_until_it_is_given_back(kind: str) -> None:
    before = unmapped_memory.held()
    made = KINDS[kind]()
    try:
        assert unmapped_memory.unmapped_bytes(before) == SIZE
        assert unmapped_memory.unmapped_bytes(unmapped_memory.held()) == 0
    finally:
        made.close()
    assert unmapped_memory.unmapped_bytes(before) == 0


def test_what_is_mapped_or_was_never_written_is_not_counted() -> None:
    before = unmapped_memory.held()
    made = Written(os.memfd_create("of_ours"))
    os.truncate(made.descriptor, 2 * SIZE)
    with mmap.mmap(made.descriptor, SIZE // 3), mmap.mmap(made.descriptor, SIZE // 3):
        assert unmapped_memory.unmapped_bytes(before) == SIZE - SIZE // 3
    made.close()
