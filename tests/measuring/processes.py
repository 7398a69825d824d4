"""Whether a process of a test still runs."""

from __future__ import annotations

from pathlib import Path


def is_running(pid: int) -> bool:
    """Whether it still runs: one that has ended stands in the list until somebody takes note, in a container never."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")
