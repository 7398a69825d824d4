"""Python's small objects: a process that loads a model takes no mebibyte more for them than another one by chance."""

from __future__ import annotations

from pathlib import Path

import memray

from pytest_modelopt.measuring.worker.memory.process_memory import _room_for_small_objects

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
