"""Counters of this process that see whatever allocates: glibc's totals over all threads, pages, mapped files.

What installed packages take while they are imported is not what a model takes, and is left out.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pytest_modelopt import system
from pytest_modelopt.measuring.installation import is_installed
from pytest_modelopt.measuring.worker.watches import opened_files

_SELF = system.PROC / "self"
_LEAST_MAPPED = 64 * 1024
"""A library's constants are smaller."""
_OBJECTS = re.compile(rb"# bytes in allocated blocks +=\s+([\d,]+)")
_OF_NO_FILE = ("Anonymous:", "Private_Hugetlb:", "Shared_Hugetlb:")
"""What the kernel calls resident pages of no file; huge ones that are reserved stand by themselves."""
_OF_PAGES, _OF_THREADS_PAGES = 4 * 1024**2, 128 * 1024  # of each thread
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _RETURNED_BLOCK = -1, -3, 128 * 1024
"""Parameters of glibc's mallopt, and the bytes that are their values when a process starts."""
_LARGEST_HOLE = 2**31
"""Bytes. More than that is not free within a heap of what imports leave."""
_imported = [0, 0, 0]
"""(malloc, anonymous pages, small objects) of imports since this process started to look."""


@dataclass(frozen=True)
class Counters:
    """Bytes at one moment."""

    allocated: int
    """What malloc has handed out and not got back, in all threads."""
    anonymous: int
    """Resident pages of no file."""
    objects: int
    """Of Python's small objects: numbers, texts, entries of lists and dicts."""


class _MallInfo(ctypes.Structure):
    _names_ = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in _names_.split()]


@functools.cache
def are_here() -> bool:
    """Whether the system has them: Linux with glibc, whose allocator nothing has replaced."""
    if not (_SELF / "smaps_rollup").exists():
        return False
    try:
        before, block = allocated_bytes(), bytearray(2**20)
        return allocated_bytes() - before >= len(block)
    except (OSError, AttributeError):
        return False


def read() -> Counters:
    return Counters(allocated(), _anonymous() - _imported[1], small_objects() - _imported[2])


def allocated() -> int:
    """What malloc has handed out and not got back, in all threads. The other two counters take a hundred times as long:
    for them the kernel looks at each page of the process."""
    return allocated_bytes() - _imported[0]


def anonymous() -> int:
    """Resident pages of no file, without those of freed memory; 0 where there are no counters."""
    if not are_here():
        return 0
    give_back_free_memory()
    return _anonymous()


def room_for_pages() -> int:
    """What may be missing of them in what is known: stacks, generated code, room for Python's small objects. Ordinary
    models have up to 1.5 MiB, with 16 threads."""
    return _OF_PAGES + _OF_THREADS_PAGES * torch.get_num_threads()


def pages_of_imports() -> int:
    """Bytes of pages of no file that imports of installed packages have taken and `read` leaves out."""
    return _imported[1]


@functools.cache
def _libc() -> Any:
    libc = ctypes.CDLL(None)
    libc.mallinfo2.restype = _MallInfo
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    return libc


def allocated_bytes() -> int:
    """What malloc has handed out and not got back, in all threads, with what imports have taken."""
    info = _libc().mallinfo2()
    return int(info.uordblks) + int(info.hblkhd)


def _anonymous() -> int:
    lines = (_SELF / "smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(_OF_NO_FILE))


def small_objects() -> int:
    """Bytes in use of what Python keeps for objects of up to 512 bytes, of which malloc knows nothing; 0 where it keeps
    nothing, as under PYTHONMALLOC=malloc."""
    write: Any = getattr(sys, "_debugmallocstats", None)  # to the file behind standard error: there is no other way
    if write is None:
        return 0
    with tempfile.TemporaryFile(buffering=0) as file:  # what it takes itself should be little
        error = os.dup(2)
        try:
            os.dup2(file.fileno(), 2)
            write()
        finally:
            os.dup2(error, 2)
            os.close(error)
        file.seek(0)
        found = _OBJECTS.search(file.read())
    return int(found[1].replace(b",", b"")) if found else 0


def give_back_free_memory() -> None:
    """Have the kernel take the pages of freed memory, so that the next allocation shows in what is resident."""
    _libc().malloc_trim(0)


def keep_no_freed_blocks() -> None:
    """Have glibc return each freed block of 128 KiB or more to the kernel, in every thread.

    Otherwise its threshold rises with the blocks that are freed, and each thread's arena keeps up to twice as much
    at its end, which `malloc_trim` leaves there: the next call finds it, and does not grow by it.
    """
    for parameter in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD):
        _libc().mallopt(parameter, _RETURNED_BLOCK)


@contextlib.contextmanager
def without_holes() -> Iterator[None]:
    """Take what is free within the heap of this thread, untouched, in blocks of 128 KiB and more.

    glibc gives a block from there before it asks the kernel, and a freed one stays resident there: two that a call
    needs one after the other would both be in its peak, in those processes whose imports left room for them.
    """
    libc, taken, size = _libc(), list[int](), _LARGEST_HOLE
    while size >= _RETURNED_BLOCK:
        of_kernel = libc.mallinfo2().hblks
        block = libc.malloc(size)
        if block and libc.mallinfo2().hblks == of_kernel:
            taken.append(block)
        else:  # no hole is so large
            libc.free(block)
            size //= 2
    try:
        yield
    finally:
        for block in taken:
            libc.free(block)


def free_buffers_of_libraries() -> None:
    """Have MKL give back the scratch memory that it keeps for its next call, where torch was built with it."""
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(str(library)).mkl_serv_free_buffers()


@contextlib.contextmanager
def without_imports() -> Iterator[None]:
    """Keep what the import of an installed package takes out of the counters."""
    machinery: Any = importlib._bootstrap
    load, within = machinery._load_unlocked, [0]

    def measured(spec: Any) -> Any:
        if within[0] or not is_installed(spec.origin or ""):
            return load(spec)
        within[0] += 1
        before = allocated_bytes(), _anonymous(), small_objects()
        try:
            with opened_files.read_by_nobody():
                return load(spec)
        finally:
            within[0] -= 1
            _imported[0] += allocated_bytes() - before[0]
            _imported[1] += max(0, _anonymous() - before[1])
            _imported[2] += small_objects() - before[2]

    machinery._load_unlocked = measured
    try:
        yield
    finally:
        machinery._load_unlocked = load


def own_libraries() -> int:
    """Resident bytes of libraries that are loaded from outside of the installation: a compiled program keeps its
    numbers in one, and what the loader maps no meter of allocations sees."""
    parts, loaded = [], set[str]()
    for head, file, resident in _mappings() if _has_maps_of_others() else ():
        if file and not is_installed(file):
            parts.append((file, resident))
            loaded |= {file} if "x" in head else set()
    return sum(resident for file, resident in parts if file in loaded and resident >= _LEAST_MAPPED)


def mapped_files() -> dict[tuple[int, int], int]:
    """(start, stop) -> resident bytes of each part of a file that is mapped as data, and of shared memory; not of
    installed files, nor of libraries' constants."""
    found: dict[tuple[int, int], int] = {}
    for head, file, resident in _mappings() if _has_maps_of_others() else ():
        place, mode = head.split(" ", 1)
        is_shared = file.startswith(opened_files.SHARED_MEMORY)
        if file and "x" not in mode and (is_shared or not is_installed(file)) and resident >= _LEAST_MAPPED:
            start, _, stop = place.partition("-")
            found[int(start, 16), int(stop, 16)] = resident
    return found


def _has_maps_of_others() -> bool:
    """Whether anything is mapped but the installation, which is rare. What is resident of each part is asked of the
    kernel then only, which looks at each page of the process for it."""
    shared = opened_files.SHARED_MEMORY
    return any(file.startswith(shared) or not is_installed(file) for file in opened_files.mapped())


def _mappings() -> Iterator[tuple[str, str, int]]:
    """('7f00-7f10 r-xp', file or '', resident bytes) of each part of the memory."""
    head = file = ""
    for line in (_SELF / "smaps").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        first, _, rest = line.partition(" ")
        if "-" in first:
            _, slash, name = rest.partition("/")
            head, file = f"{first} {rest[:4]}", slash + name
        elif first == "Rss:":
            yield head, file, 1024 * int(rest.split()[0])
