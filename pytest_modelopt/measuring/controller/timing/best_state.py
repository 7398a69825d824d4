"""The best states that this machine is known to have had since it was started, by the canary's time.

A neighbour on the host slows programs down for minutes, each by another share, and no counter of a virtual machine
shows it. That a canary takes longer than it once did is the only sign of it, so the shortest time is kept in the
user's cache folder. A machine that was just started has no past: then only this process's own comparisons are known.

A canary is compared with canaries behind work of its kind only: behind programs that read 24 MiB or more it took 28 to
32 us on a machine left alone, and 19 to 22 us behind smaller ones, which is no state of the machine.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from pytest_modelopt import system
from pytest_modelopt.results.files.atomic_files import write_text

_known: dict[str, int] = {}


def behind_blocks(threads: int, *, are_large: bool) -> str:
    """The work that the canary follows: blocks of two programs, of which one is large or none."""
    return f"{threads} threads, {'large' if are_large else 'small'} models"


def behind_loading(threads: int) -> str:
    """The work that the canary follows: the first call of a fresh process."""
    return f"{threads} threads, loading"


def canary_at_best_ns(work: str) -> int | None:
    """The shortest time of a launch so far behind such work; None before the first."""
    found = [value for value in (_known.get(work), _stored().get(work)) if value is not None]
    return min(found, default=None)


def note_canary(work: str, canary_ns: int) -> int:
    """Take in the canary's time of a launch; the shortest so far, this one included."""
    before = canary_at_best_ns(work)
    if before is not None and before <= canary_ns:
        return before
    _known[work] = canary_ns
    path = _file()
    if path is not None:
        with contextlib.suppress(OSError):  # what cannot be kept is known to this process
            write_text(json.dumps(_stored() | {work: canary_ns}), path)
    return canary_ns


def _stored() -> dict[str, int]:
    path = _file()
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path is not None else {}
    except (OSError, ValueError):
        return {}
    items = found.items() if isinstance(found, dict) else ()
    return {str(key): value for key, value in items if type(value) is int and value > 0}


def _file() -> Path | None:
    """Of this start of this machine; None where nothing tells one start from another."""
    try:
        boot = (system.PROC / "sys" / "kernel" / "random" / "boot_id").read_text(encoding="ascii").strip()
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except (OSError, RuntimeError):
        return None
    return cache / "pytest-modelopt" / f"canary-{boot}.json"
