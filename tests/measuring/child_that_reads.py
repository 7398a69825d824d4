"""A process that has a child read a file of 300,000 bytes, and gets what it read in one way or none."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

from pytest_modelopt.measuring.worker.watches import opened_files

BYTES = 300_000
FILE = "weights.bin"


def read() -> bytes:
    return Path(FILE).read_bytes()


def beside_a_server() -> None:
    """A program that reads for itself, and a server that answers little."""
    ended(in_a_fork(read))
    ours, theirs = socket.socketpair()
    theirs.sendall(b"answer")
    assert ours.recv(100) == b"answer"


def in_a_fork(work: Callable[[], object]) -> int:
    pid = os.fork()
    if not pid:
        work()
        os._exit(0)
    return pid


def ended(pid: int) -> None:
    assert os.waitpid(pid, 0) == (pid, 0)


def looked_for_until_it_ended(pid: int) -> None:
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        pass


def polled() -> None:
    child = subprocess.Popen([sys.executable, "-Sc", f"open({FILE!r}, 'rb').read()"])
    while child.poll() is None:
        pass
    assert child.returncode == 0


def of_multiprocessing() -> None:
    child = multiprocessing.get_context("fork").Process(target=read)
    child.start()
    child.join()


def with_a_grandchild() -> None:
    ended(in_a_fork(lambda: ended(in_a_fork(read))))


def beside_one_that_writes() -> None:
    """What it writes hides no read of this process."""
    ended(in_a_fork(lambda: Path("log").write_bytes(bytes(10 * BYTES))))


def by_a_pipe() -> None:
    subprocess.run(["cat", FILE], check=True, capture_output=True)


def by_a_file() -> None:
    ended(in_a_fork(lambda: Path("copy").write_bytes(read())))
    Path("copy").read_bytes()


def by_shared_memory() -> None:
    shared = SharedMemory(create=True, size=BYTES)

    def work() -> None:
        memoryview(shared.buf or b"")[:BYTES] = read()

    ended(in_a_fork(work))
    shared.close()
    shared.unlink()


def by_shared_pages() -> None:
    shared = mmap.mmap(-1, BYTES)
    ended(in_a_fork(lambda: shared.write(read())))


def by_a_map_of_a_file() -> None:
    ended(in_a_fork(lambda: Path("copy").write_bytes(read())))
    with Path("copy").open("rb") as file:
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def by_a_map_of_which_python_does_not_know() -> None:
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    place = libc.mmap(None, ctypes.c_size_t(BYTES), 3, 0x21, -1, ctypes.c_long(0))  # shared and anonymous
    ended(in_a_fork(lambda: ctypes.memmove(place, read(), BYTES)))


def by_a_socket() -> None:
    ours, theirs = socket.socketpair()
    pid = in_a_fork(lambda: theirs.sendall(read()))
    left = BYTES
    while left:
        left -= len(ours.recv(left))
    ended(pid)


def by_a_socket_into_memory() -> None:
    ours, theirs = socket.socketpair()
    pid = in_a_fork(lambda: theirs.sendall(read()))
    with ours.makefile("rb") as file:
        assert len(file.read(BYTES)) == BYTES
    ended(pid)


def by_itself_in_c() -> None:
    libc = ctypes.CDLL(None)
    descriptor, block = libc.open(os.fsencode(FILE), 0), ctypes.create_string_buffer(BYTES)
    assert libc.read(descriptor, block, BYTES) == BYTES
    libc.close(descriptor)


def by_a_thread_in_c() -> None:
    thread = threading.Thread(target=by_itself_in_c)
    thread.start()
    thread.join()


def by_itself_in_c_beside_one_that_writes() -> None:
    by_itself_in_c()
    beside_one_that_writes()


LIBC = ctypes.CDLL(None)
LIBC.popen.restype = ctypes.c_void_p
READ_FOR_ITSELF = f"cksum {FILE} > /dev/null".encode()


def by_system(command: bytes = READ_FOR_ITSELF) -> None:
    assert LIBC.system(command) == 0


def by_popen() -> None:
    assert LIBC.pclose(ctypes.c_void_p(LIBC.popen(READ_FOR_ITSELF, b"w"))) == 0


def by_system_in_a_thread() -> None:
    thread = threading.Thread(target=by_system)
    thread.start()
    thread.join()


def by_system_beside_a_thread_and_a_child() -> None:
    """Each of them is known."""
    thread = threading.Thread(target=lambda: os.stat(FILE))  # noqa: PTH116
    thread.start()
    thread.join()
    ended(in_a_fork(read))
    by_system()


def by_itself_in_c_beside_system() -> None:
    by_itself_in_c()
    by_system()


def in_a_thread_of_c(work: Callable[[], None]) -> None:
    """That Python did not start."""
    called = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(lambda _: work())
    thread = ctypes.c_ulong()
    assert LIBC.pthread_create(ctypes.byref(thread), None, called, None) == 0
    assert LIBC.pthread_join(thread, None) == 0


def by_a_thread_of_c_beside_system() -> None:
    in_a_thread_of_c(by_itself_in_c)
    by_system(b"true")


def by_the_pipe_of_popen() -> None:
    pipe, block = ctypes.c_void_p(LIBC.popen(f"cat {FILE}".encode(), b"r")), ctypes.create_string_buffer(BYTES)
    assert LIBC.fread(block, ctypes.c_size_t(1), ctypes.c_size_t(BYTES), pipe) == BYTES
    assert LIBC.pclose(pipe) == 0


def by_a_map_of_a_file_of_system() -> None:
    by_system(f"cp {FILE} copy".encode())
    with Path("copy").open("rb") as file:
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def waited_for(wait: Callable[[int], object]) -> Callable[[], None]:
    def work() -> None:
        assert wait(in_a_fork(read))

    return work


NOTHING: dict[str, Callable[[], None]] = {
    "waitpid": waited_for(lambda pid: os.waitpid(pid, 0)),
    "waitpid of any": waited_for(lambda _: os.waitpid(-1, 0)),
    "waitpid of its group": waited_for(lambda _: os.waitpid(0, 0)),
    "wait": waited_for(lambda _: os.wait()),
    "wait3": waited_for(lambda _: os.wait3(0)),
    "wait4": waited_for(lambda pid: os.wait4(pid, 0)),
    "waitid": waited_for(lambda pid: os.waitid(os.P_PID, pid, os.WEXITED)),
    "looked for until it ended": lambda: looked_for_until_it_ended(in_a_fork(read)),
    "polled": polled,
    "multiprocessing": of_multiprocessing,
    "a grandchild": with_a_grandchild,
    "one that writes": beside_one_that_writes,
    "one beside a server": beside_a_server,
    "system": by_system,
    "popen of C": by_popen,
    "system, in a thread": by_system_in_a_thread,
    "system, beside a thread and a child": by_system_beside_a_thread_and_a_child,
}
ALL: dict[str, Callable[[], None]] = {
    "a pipe": by_a_pipe,
    "a file": by_a_file,
    "shared memory": by_shared_memory,
    "shared pages": by_shared_pages,
    "a map of a file": by_a_map_of_a_file,
    "a map of which Python does not know": by_a_map_of_which_python_does_not_know,
    "a socket": by_a_socket,
    "a socket, into memory": by_a_socket_into_memory,
    "itself in C": by_itself_in_c,
    "a thread in C": by_a_thread_in_c,
    "itself in C, beside one that writes": by_itself_in_c_beside_one_that_writes,
    "itself in C, beside system": by_itself_in_c_beside_system,
    "a thread of C": lambda: in_a_thread_of_c(by_itself_in_c),
    "a thread of C, beside system": by_a_thread_of_c_beside_system,
    "a pipe of popen": by_the_pipe_of_popen,
    "a map of a file of system": by_a_map_of_a_file_of_system,
}


def unexplained_bytes(connection: Connection, folder: str, way: str) -> None:
    """Send how many bytes nobody explains of those that were read. To be called in a process of its own."""
    os.chdir(folder)
    Path(FILE).write_bytes(b"\1" * BYTES)
    Path("saved").write_bytes(b"")
    os.utime(FILE, (1, 1))
    opened_files.watch([])
    with opened_files.counting(Path("saved")):
        (NOTHING | ALL)[way]()
    with contextlib.closing(connection):
        connection.send(opened_files.unexplained_bytes())
