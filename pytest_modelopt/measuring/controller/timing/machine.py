"""The machine while pairs are timed: what others took of it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from pytest_modelopt import system


@dataclass(frozen=True)
class Reading:
    """Counters of the machine at one moment. None where the system has no such counter."""

    at_s: float
    busy_s: float | None
    """Processor time of all processes since the machine started."""
    stolen_s: float | None
    throttled_s: float | None

    def since(self, earlier: Reading) -> Reading:
        """What came to pass between two readings."""
        return Reading(
            self.at_s - earlier.at_s,
            _difference(self.busy_s, earlier.busy_s),
            _difference(self.stolen_s, earlier.stolen_s),
            _difference(self.throttled_s, earlier.throttled_s),
        )

    def plus(self, other: Reading) -> Reading:
        """Two spans of time together."""
        return Reading(
            self.at_s + other.at_s,
            _sum(self.busy_s, other.busy_s),
            _sum(self.stolen_s, other.stolen_s),
            _sum(self.throttled_s, other.throttled_s),
        )


def read() -> Reading:
    """The counters now: of the cores that this process may run on, and of its control group."""
    busy_s, stolen_s = system.processor_seconds() or (None, None)
    return Reading(time.monotonic(), busy_s, stolen_s, _throttled_s())


def load() -> float | None:
    """Load average of the last minute."""
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):
        return None


def _throttled_s() -> float | None:
    """Seconds for which a quota stopped this process's control group, of version 2 or 1."""
    for folder, version in system.control_groups("cpu"):
        name, per_second = ("throttled_usec", 1e6) if version == 2 else ("throttled_time", 1e9)
        for counter in system.text(folder / "cpu.stat").splitlines():
            if counter.startswith(f"{name} "):
                return int(counter.split()[1]) / per_second
    return None


def _difference(later: float | None, earlier: float | None) -> float | None:
    return None if later is None or earlier is None else later - earlier


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other
