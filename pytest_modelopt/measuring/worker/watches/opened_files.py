"""Files that this process opens: by an audit hook, by wrapped readers of which Python does not know, by its maps."""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pytest_modelopt import system
from pytest_modelopt.measuring.installation import is_installed
from pytest_modelopt.measuring.worker.watches import c_children, reads_of_others
from pytest_modelopt.measuring.worker.watches.kernel_watches import FoldersOfProject, NamedFiles

_opened: dict[str, None] = {}
"""In order: a process runs one variant."""
_read: Counter[str] = Counter()
"""Bytes of each as often as it was opened, by its size then: it may be gone at the end. Libraries are not read."""
_states: dict[str, os.stat_result] = {}
"""Of each when it was first opened: its name may be gone at the end, of a link or after `rename`."""
_of_nobody = [0]
"""Bytes read by imports of installed packages beyond the files that were noted meanwhile."""
_written: set[str] = set()
_since = [0]
"""Nanoseconds, as the kernel dates files."""
_unexplained = [0]
_named: list[NamedFiles] = []
_of_project: list[FoldersOfProject] = []
_NO_WEIGHTS = (".py", ".pyc", ".pyi")
_BUFFER_SIZE = 8192
"""Of files, in bytes."""
_CACHES = ("torchinductor_", "torch_extensions", "triton_")
"""What compilers keep for the next process, in the system's temporary folder."""
_CACHE_FOLDERS = (
    "TORCHINDUCTOR_CACHE_DIR",
    "TRITON_CACHE_DIR",
    "NUMBA_CACHE_DIR",
    "JAX_COMPILATION_CACHE_DIR",
    "PYTORCH_KERNEL_CACHE_PATH",
    "CUDA_CACHE_PATH",
    "MPLCONFIGDIR",
)
"""Environment variables that name a folder of what libraries make anew where it is missing."""
SHARED_MEMORY = ("/dev/shm/", "/dev/zero", "/memfd:", "/SYSV")
"""Pages of no file that several processes may have: to the kernel they are a file."""


def watch(paths: Iterable[str] = (), folders: Iterable[str] = ()) -> None:
    """Note from now on which files are opened. `paths`: files and folders that the saved variant names. `folders`: the
    project's."""
    _note_readers()  # it imports some itself
    _read_in_small_parts()
    _since[0] = system.file_time_ns()
    _named.append(NamedFiles(paths))
    _of_project.append(FoldersOfProject(folders))
    sys.addaudithook(_note_event)
    reads_of_others.watch()


def noted() -> tuple[str, ...]:
    return tuple(_opened)


def shipped_with(own: set[str], mapped_before: set[str]) -> dict[str, int]:
    """Bytes of each file that a variant needs beside the one it is saved in: what was opened since `watch`, or mapped
    since then, and is neither of the installation, nor source, nor written by this process itself. `own` are ours."""
    _note_what_the_kernel_tells()
    found: dict[str, int] = {}
    for path in (*_opened, *(file for file in mapped() if file not in mapped_before)):
        real = os.path.realpath(path)
        if path in _written or real in own or _is_of_nobody(path) or _is_of_nobody(real):
            continue
        with contextlib.suppress(OSError):  # it has gone since
            if Path(real).is_file() and not _is_new(real):
                found[real] = Path(real).stat().st_size
    return found | _gone(list(found))


def _gone(found: list[str]) -> dict[str, int]:
    """Bytes of each file that was opened by a name which is gone, and that is none of those found."""
    known = {(state.st_dev, state.st_ino) for state in map(os.stat, found)}
    gone: dict[str, int] = {}
    for path, state in _states.items():
        if not os.path.lexists(path) and path not in _written and not _is_of_nobody(path):
            if (state.st_dev, state.st_ino) not in known:
                gone[path] = state.st_size
            known.add((state.st_dev, state.st_ino))
    return gone


@contextlib.contextmanager
def counting(own: Path) -> Iterator[None]:
    """Compare what is read meanwhile with the sizes of the files that are noted meanwhile, and of the saved variant,
    `own`."""
    uncounted, mapped_before = reads_of_others.uncounted(0), _bytes_of_new_maps()
    _read.clear()
    _of_nobody[0], before = 0, _bytes_read()
    yield
    read = _bytes_read() - before
    read += reads_of_others.uncounted(_bytes_of_new_maps() - mapped_before) - uncounted
    _note_what_the_kernel_tells()
    _note_kept_open()
    _unexplained[0] = read - _known(own) - own.stat().st_size - _of_nobody[0]


def unexplained_bytes() -> int:
    """How much more was read than the files that are known have, while it was counted."""
    return _unexplained[0]


def _bytes_read() -> int:
    """Since the process started, beyond what it has written, as the kernel counts it, without ended children: readers
    in C are seen by no hook, and what a process writes for them itself comes from nowhere else. 0 where the kernel does
    not tell."""
    try:
        found = c_children.of_process()
    except OSError:
        return 0
    return found.read - found.written - reads_of_others.of_children()


@contextlib.contextmanager
def read_by_nobody() -> Iterator[None]:
    """What is read meanwhile is nobody's: an installed package may ask other programs when it is imported."""
    before = _bytes_read() - _known()
    _note_what_the_kernel_tells()
    try:
        yield
    finally:
        for folders in _of_project:
            list(folders.opened())
        _of_nobody[0] += max(0, _bytes_read() - _known() - before)


def _known(without: Path | None = None) -> int:
    """Bytes of what was noted. Who opens data once may read it twice; source is read once."""
    return sum(size * (1 if path.endswith(_NO_WEIGHTS) else 2) for path, size in _read.items() if path != str(without))


def _note_what_the_kernel_tells() -> None:
    for files in _named:
        for path in files.opened():
            _note(path)
    for folders in _of_project:
        for path in folders.opened():
            if path not in _opened:  # else a hook has noted it
                _note(path)


def _size_of(path: str) -> int:
    with contextlib.suppress(OSError):
        if os.path.isfile(path):  # noqa: PTH113
            return os.stat(path).st_size  # noqa: PTH116
    return 0


def _is_new(path: str) -> bool:
    """Whether it was written since `watch`; one that has gone, too."""
    try:
        return os.stat(path).st_mtime_ns >= _since[0]  # noqa: PTH116
    except OSError:
        return True


def _note_kept_open() -> None:
    """Note the files that the process keeps open to read, by whatever name and reader it came to them."""
    with contextlib.suppress(OSError):
        for descriptor in os.listdir(f"{system.PROC}/self/fd"):  # noqa: PTH208
            with contextlib.suppress(OSError):
                path = os.readlink(f"{system.PROC}/self/fd/{descriptor}")  # noqa: PTH115
                if path.startswith("/") and path not in _opened and _can_be_read(descriptor):
                    _note(path)


def _can_be_read(descriptor: str) -> bool:
    """Not the log of what this process prints, for one."""
    with open(f"{system.PROC}/self/fdinfo/{descriptor}", encoding="ascii") as file:  # noqa: PTH123
        flags = next(line.split()[1] for line in file if line.startswith("flags:"))
    return int(flags, 8) & os.O_ACCMODE != os.O_WRONLY


def _is_of_nobody(path: str) -> bool:
    """Of the installation, source, or in a cache of a library."""
    return path.endswith(_NO_WEIGHTS) or is_installed(path) or _is_in_a_cache(Path(path))


def _is_in_a_cache(path: Path) -> bool:
    caches = [os.environ.get(name) for name in _CACHE_FOLDERS]
    folder = Path(tempfile.gettempdir())
    inside = path.relative_to(folder).parts[:1] if path.is_relative_to(folder) else ()
    return any(part.startswith(_CACHES) for part in inside) or any(
        cache and path.is_relative_to(cache) for cache in caches
    )


def _note_event(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        _note(arguments[0], is_written=bool(arguments[2] and arguments[2] & (os.O_WRONLY | os.O_CREAT | os.O_TRUNC)))
    elif event == "mmap.__new__":
        reads_of_others.note_map(arguments[0], arguments[1], _since[0])
    elif event == "ctypes.dlopen":
        _note(arguments[0], is_library=True)
    elif event == "sqlite3.connect":
        file = os.fsdecode(arguments[0]) if isinstance(arguments[0], (str, bytes, os.PathLike)) else ""
        _note(url2pathname(urlsplit(file).path) if file.startswith("file:") else file)


def _note(file: Any, *, is_written: bool = False, is_library: bool = False) -> None:
    with contextlib.suppress(TypeError, ValueError, OSError):  # a number of an open file, or nothing that can be opened
        path = os.path.abspath(os.fsdecode(file))  # noqa: PTH100
        _opened.setdefault(path)
        if not is_library and not _is_new(path):  # of what was written meanwhile nobody knows where it comes from
            _read[path] += _size_of(path)
            if os.path.isfile(path):  # noqa: PTH113
                _states.setdefault(path, os.stat(path))  # noqa: PTH116
        if is_written:
            _written.add(path)


def _read_in_small_parts() -> None:
    """Let files be read as before Python 3.14, which reads 128 KiB after each seek: `torch.load`, which seeks for each
    tensor, then reads a file several times over, and that would look like what nobody can name."""
    if io.DEFAULT_BUFFER_SIZE <= _BUFFER_SIZE:
        return
    opened = io.open

    def open_file(file: Any, mode: str = "r", buffering: int = -1, *more: Any, **named: Any) -> Any:
        return opened(file, mode, _BUFFER_SIZE if buffering == -1 and "r" in mode else buffering, *more, **named)

    io.open = builtins.open = open_file


def _note_readers() -> None:
    """Readers that open files without Python's knowledge."""
    import torch

    packages = getattr(torch._C, "_aoti", None)
    for place, name in (
        (torch.jit, "load"),
        (torch, "from_file"),
        (torch.UntypedStorage, "from_file"),
        (packages, "AOTIModelPackageLoader"),
    ):
        if hasattr(place, name):
            setattr(place, name, _Noted(getattr(place, name)))
    try:
        import safetensors
    except ImportError:
        return
    reader = safetensors.safe_open
    noted = _Noted(reader)
    for module in list(sys.modules.values()):
        if getattr(module, "__dict__", {}).get("safe_open") is reader:
            module.safe_open = noted  # type: ignore[attr-defined]


class _Noted:
    """A reader, function or class, that notes what it is given; for all else it is what it was."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        for value in (*args[:1], *kwargs.values()):
            if isinstance(value, (str, os.PathLike)):
                _note(value)
        return self._reader(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    def __instancecheck__(self, value: Any) -> bool:
        return isinstance(value, self._reader)


def mapped() -> list[str]:
    """Files that are mapped into this process: libraries and weights."""
    return list(dict.fromkeys(path for path, _ in _maps()))


def _maps() -> list[tuple[str, int]]:
    """Path and bytes of each part of a file that is mapped."""
    lines = (line for line in lines_of_maps() if "/" in line)
    places = ((line[line.index("/") :], line.split(" ", 1)[0].split("-")) for line in lines)
    return [(path, int(stop, 16) - int(start, 16)) for path, (start, stop) in places]


def lines_of_maps() -> list[str]:
    """What the kernel tells of each map of this process; empty where it tells nothing."""
    try:
        return (system.PROC / "self" / "maps").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []


def _bytes_of_new_maps() -> int:
    """Of shared memory, and of files that were written since `watch`."""
    return sum(
        size for path, size in _maps() if path.startswith(SHARED_MEMORY) or (not _is_of_nobody(path) and _is_new(path))
    )
