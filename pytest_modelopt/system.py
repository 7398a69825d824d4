"""What operating systems differ in, each with what is done where one lacks it. No other module asks which one this is.

Linux has all of it. macOS has no `/proc`, no affinity and no real-time signals; Windows no process groups, no numbers
of users and no `resource` either. psutil is imported where it is asked, since importing the plugin must cost nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import multiprocessing
import os
import signal
import socket
import struct
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
HAS_INOTIFY = sys.platform == "linux"
"""Whether the kernel tells which files are opened."""
HAS_GROUPS = hasattr(os, "killpg")
"""Of processes: what a process starts can be ended with it, though its parent has ended."""
KILL: int = getattr(signal, "SIGKILL", signal.SIGTERM)
"""Ends a process whatever it wants; on Windows SIGTERM does."""
DUMP: int | None = signal.SIGRTMIN + 5 if hasattr(signal, "SIGRTMIN") else None
"""The signal at which a worker writes the stacks of all threads into its log; a number that hardly any program uses."""
CLOSED_WITH_A_PROGRAM: int = getattr(os, "O_CLOEXEC", 0)
_MARK = 10**15
"""Microseconds, 31 years, of processor time at real-time priority: a limit that limits nothing, to which the number of
the worker is added. All that a worker starts inherits it: a daemon, too, which has another parent, another session and
maybe none of the worker's environment."""
_UNLIMITED = 2**60
_CLOCK_REALTIME_COARSE = 5
"""Linux's number of the clock, which Python does not name."""

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


NO_LINK: int = getattr(os, "O_NOFOLLOW", 0)


def has_proc() -> bool:
    """Whether the kernel tells of processes by files: Linux, unless a sandbox hides them."""
    return (PROC / "self" / "stat").exists()


def _psutil() -> Any:
    """None where it has nothing to read: on Linux without /proc it cannot even be imported without a traceback."""
    if sys.platform == "linux" and not has_proc():
        return None
    import psutil

    return psutil


# --- processes -------------------------------------------------------------------------------------------------------


def has_fork_server() -> bool:
    """Whether workers can be forked from a process that has imported torch; otherwise each imports it for itself. Not
    on macOS, whose libraries may end a forked process that uses them again."""
    return "forkserver" in multiprocessing.get_all_start_methods() and sys.platform != "darwin"


def has_shared_locks() -> bool:
    """Whether several processes can hold the lock of a file at once."""
    return fcntl is not None


def try_lock(descriptor: int, *, shared: bool) -> bool:
    """Lock an open file, without waiting; False where others hold it."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(descriptor: int) -> None:
    """Give up what `try_lock` has locked."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)


def host() -> str:
    """By which records tell one machine, since it was started, from another: a digest that names nobody."""
    started = text(PROC / "sys" / "kernel" / "random" / "boot_id") or socket.gethostname()
    return hashlib.sha256(started.encode()).hexdigest()[:12]


def user() -> int:
    """The number of the user who runs this; 0, as the files there say, where users have none."""
    return os.getuid() if hasattr(os, "getuid") else 0


def lead_group() -> None:
    """Make this process the first of a group of its own, with which what it starts can be ended."""
    if HAS_GROUPS:
        os.setpgid(0, 0)


def leads_group(process: int) -> bool:
    """Whether `end_group` ends nothing but the process and what it started."""
    return not HAS_GROUPS or os.getpgid(process) == process


def end_group(leader: int, how: int = KILL) -> None:
    """Send the signal to the process's whole group; without groups, to it and to its descendants.

    Raises:
        OSError: there is none.
    """
    if HAS_GROUPS:
        os.killpg(leader, how)
        return
    for process in (*descendants(leader), leader):
        with contextlib.suppress(OSError):
            os.kill(process, how)


def descendants(process: int) -> dict[int, str]:
    """What the process has started and what runs by now, as far as their parents live: number -> command line."""
    psutil = _psutil()
    if psutil is None:
        return {}
    found = {}
    with contextlib.suppress(psutil.Error):
        for each in psutil.Process(process).children(recursive=True):
            found[each.pid] = ""
            with contextlib.suppress(psutil.Error):  # it has just ended, or is another user's
                found[each.pid] = " ".join(each.cmdline())
    return found


def is_running(process: int) -> bool:
    """Whether it has not ended, or nobody knows; one that has stands in the list until its parent takes note."""
    psutil = _psutil()
    if psutil is None:
        return True
    try:
        return bool(psutil.Process(process).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD))
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:  # another user's
        return True


def end_with_parent(sentinel: int) -> None:
    """Have the kernel end this process's group when the pipe closes that shows whether its parent lives. Nothing where
    the kernel sends no signal of a file's: then a worker ends at its next answer."""
    if fcntl is not None and hasattr(fcntl, "F_SETSIG"):
        with contextlib.suppress(OSError):
            fcntl.fcntl(sentinel, fcntl.F_SETOWN, -os.getpgrp())
            fcntl.fcntl(sentinel, fcntl.F_SETSIG, signal.SIGKILL)
            fcntl.fcntl(sentinel, fcntl.F_SETFL, fcntl.fcntl(sentinel, fcntl.F_GETFL) | os.O_ASYNC)


def mark_own() -> None:
    """Mark this process, a worker, and all that it will start. Nothing where no such limit is inherited."""
    if hasattr(resource, "RLIMIT_RTTIME"):
        with contextlib.suppress(OSError, ValueError):  # a lower limit is in force: then the group must do
            hard = resource.getrlimit(resource.RLIMIT_RTTIME)[1]
            resource.setrlimit(resource.RLIMIT_RTTIME, (mark_of(os.getpid()), hard))


def mark_of(worker: int) -> int:
    return _MARK + worker


def is_of(worker: int, process: int, *, only_group: bool) -> bool:
    """Whether the process runs in the worker's group or, unless `only_group`, under its mark. For Linux only.

    Raises:
        OSError: it has ended.
    """
    is_in_group = os.getpgid(process) == worker
    if is_in_group or only_group:
        return is_in_group
    try:
        return bool(resource.prlimit(process, resource.RLIMIT_RTTIME)[0] == mark_of(worker))
    except PermissionError:  # another user's, and in some sandboxes any: the file, which takes ten times as long
        return str(mark_of(worker)).encode() in (PROC / str(process) / "limits").read_bytes().split()


def end_stalls(connection: Any, after_s: int) -> None:
    """Have reading and writing of a pipe raise BlockingIOError where they stand still for so long: a worker that was
    stopped, or has died while a process that it forked keeps the pipe open, would be waited for without an end. Nothing
    on Windows, whose pipes are no sockets."""
    if sys.platform != "win32":
        with socket.socket(fileno=os.dup(connection.fileno())) as pipe:
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                pipe.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", after_s, 0))


def keep_from_programs(handle: int) -> None:
    """Have a file's number, on Windows a handle, not given to another program that takes this one's place."""
    if sys.platform == "win32":
        os.set_handle_inheritable(handle, False)
    else:
        os.set_inheritable(handle, False)


def file_time_ns() -> int:
    """Now, as the kernel dates a file that is written: by its last tick, some milliseconds ago. By the exact clock, a
    file that is written at once would be older than that."""
    if sys.platform == "linux":
        return time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)
    return time.time_ns()


# --- cores and time --------------------------------------------------------------------------------------------------


def allowed_cores() -> set[int]:
    """Those that this process may run on; empty where the system does not tell."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


def run_on(cores: list[int]) -> None:
    """Put every thread of this process on these cores. Nothing where threads cannot be told where to run."""
    if not hasattr(os, "sched_setaffinity"):
        return
    with contextlib.suppress(FileNotFoundError):
        for thread in (PROC / "self" / "task").iterdir():
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.sched_setaffinity(int(thread.name), cores)
        return
    os.sched_setaffinity(0, cores)


def cores() -> int:
    """Cores that this process has: of those that it may run on, as many as its control group's quota gives."""
    allowed, quota = _allowed(), cpu_quota()
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def granted_share() -> float:
    """The share of the cores that it may run on which this process has: what others keep busy of a host's 64 cores is
    that share of what they take from a container of two."""
    return cores() / _allowed()


def _allowed() -> int:
    return len(allowed_cores()) or os.cpu_count() or 1


def cpu_quota() -> float | None:
    """Cores' worth of processor time that the tightest control group allows; None where none limits it."""
    found = []
    for folder, version in control_groups("cpu"):
        if version == 2:
            quota, _, period = text(folder / "cpu.max").partition(" ")
        else:
            quota, period = text(folder / "cpu.cfs_quota_us"), text(folder / "cpu.cfs_period_us")
        with contextlib.suppress(ValueError, ZeroDivisionError):  # 'max', or no such file
            found.append(int(quota) / int(period))
    return min((each for each in found if each > 0), default=None)


def processor_seconds() -> tuple[float, float] | None:
    """(busy, stolen) since the machine started, of the cores that this process may run on: a container may see those of
    its whole host. None where the system does not tell."""
    psutil = _psutil()
    if psutil is None:
        return None
    try:
        times = psutil.cpu_times(percpu=True)
        mine = [times[core] for core in sorted(allowed_cores())] or times
    except (OSError, IndexError, ValueError, RuntimeError):
        return None
    names = ("user", "nice", "system", "irq", "softirq", "interrupt", "dpc")
    busy = sum(getattr(each, name, 0.0) for each in mine for name in names)
    return (busy, sum(getattr(each, "steal", 0.0) for each in mine)) if mine else None


def faults_of_children() -> int:
    """Pages that children have touched which have ended and were waited for; 0 where nothing counts them."""
    return 0 if resource is None else resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt


# --- memory and control groups ---------------------------------------------------------------------------------------


def memory_left() -> Iterator[tuple[int, int | None]]:
    """(bytes that can still be had without swapping, limit) of the machine, whose limit is None, and of each limited
    control group."""
    psutil = _psutil()
    if psutil is not None:
        with contextlib.suppress(OSError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what else a sandbox leaves out
            yield int(psutil.virtual_memory().available), None
    for folder, version in control_groups("memory"):
        if version == 2:
            files, cache = ("memory.max", "memory.current"), ("active_file", "inactive_file")
        else:
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes")
            cache = ("total_active_file", "total_inactive_file")
        limit, used = (_number(text(folder / name)) for name in files)
        if limit is not None and used is not None and limit < _UNLIMITED:
            counts = dict(line.split(" ", 1) for line in text(folder / "memory.stat").splitlines() if " " in line)
            yield limit - used + sum(_number(counts.get(name, "")) or 0 for name in cache), limit


def anonymous_bytes(process: int) -> int:
    """What a process holds in memory that no file backs; 0 where nobody can say."""
    psutil = _psutil()
    if psutil is None:
        return 0
    try:
        held = psutil.Process(process)
        resident = held.memory_info()
        return int(resident.rss - resident.shared if hasattr(resident, "shared") else held.memory_full_info().uss)
    except (psutil.Error, OSError):
        return 0


def control_groups(controller: str) -> Iterator[tuple[Path, int]]:
    """(folder, version) of this process's control group and of each above it, which limit it, too; in a container the
    root may be its own already."""
    for line in text(PROC / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, version = CGROUPS, 2
        elif controller in controllers.split(","):
            named = CGROUPS / controllers
            root, version = named if named.is_dir() else CGROUPS / controller, 1
        else:
            continue
        folder = root / path.lstrip("/")
        while folder != root:
            yield folder, version
            folder = folder.parent
        yield root, version


def gpus() -> tuple[str, ...]:
    """Names of the NVIDIA GPUs, as the driver says them by files; empty where it does not."""
    names = []
    for file in sorted((PROC / "driver" / "nvidia" / "gpus").glob("*/information")):
        for line in text(file).splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "Model":
                names.append(value.strip())
    return tuple(names)


def text(file: Path) -> str:
    """What the kernel says in a file; '' where it has none."""
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _number(said: str) -> int | None:
    return int(said) if said.isascii() and said.isdigit() else None
