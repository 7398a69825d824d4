"""A process whose heap has room between blocks in use, as imports leave it, and a call that needs two large blocks."""

from __future__ import annotations

from multiprocessing.connection import Connection

import torch

from pytest_modelopt.measuring.worker.memory import balance, process_counters

SMALL, BLOCKS = 100 * 1024, 500
"""Bytes of a block that glibc takes from its heap, and how many lie side by side."""
NUMBERS = (2**21, 2**22)
"""Of 4 bytes, in the first and the second of the large blocks."""


def unexplained_in_call(connection: Connection) -> None:
    """Send how many bytes of a call's peak nobody explains. To be called in a process of its own."""
    libc = process_counters._libc()
    process_counters.keep_no_freed_blocks()
    blocks = [libc.malloc(SMALL) for _ in range(BLOCKS)]
    for block in blocks[:-1]:  # the last one keeps the end of the heap where it is
        libc.free(block)
    with torch.inference_mode():
        connection.send(balance._unexplained_in_call(lambda: [float(torch.ones(numbers)[0]) for numbers in NUMBERS]))
