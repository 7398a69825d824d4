"""Room that a process has by chance: what Python keeps for small objects, and what is free between blocks of malloc."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import memray
import pytest

from pytest_modelopt.measuring.controller.preloading import PRELOAD
from pytest_modelopt.measuring.worker.memory import process_counters
from pytest_modelopt.measuring.worker.memory.process_memory import _room_for_small_objects
from tests.measuring import heap_with_gaps

OBJECTS = 22_000
"""Of 336 bytes each: seven arenas, which would be taken anew."""


def test_small_objects_find_room_and_take_no_arena(tmp_path: Path) -> None:
    room = _room_for_small_objects()
    with memray.Tracker(tmp_path / "allocations.bin"):
        kept = [bytes(300) for _ in range(OBJECTS)]
    reader = memray.FileReader(tmp_path / "allocations.bin")
    peak = reader.metadata.peak_memory
    reader.close()
    assert len(kept) == OBJECTS
    assert len(room) < 100, "what keeps the room is small"
    assert 8 * OBJECTS <= peak < 512 * 1024, "the list itself, and no arena"


@pytest.mark.skipif(not process_counters.are_here(), reason="nothing counts what a call takes")
def test_two_blocks_that_a_call_needs_one_after_the_other_are_not_both_in_its_peak() -> None:
    """Of a hole that holds both, each would take a part, which stays resident when it is free."""
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    ours, theirs = context.Pipe()
    process = context.Process(target=heap_with_gaps.unexplained_in_call, args=(theirs,))
    process.start()
    theirs.close()
    unexplained: int = ours.recv()
    process.join()
    assert abs(unexplained) < 1024**2
