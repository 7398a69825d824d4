"""What is known about a record that was put together from the records of several jobs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Merged:
    """Where a merged record comes from. Its jobs must have run every case together, each to its end: else it is red."""

    jobs: int
    """How many records it was made of."""
    notes: tuple[str, ...] = ()
    """Sentences about how they were put together: which of two measurements counts, which job was interrupted."""
