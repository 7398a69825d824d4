"""Counters of the machine: differences and sums, and what is unknown stays unknown."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pytest_modelopt import system
from pytest_modelopt.measuring.controller.timing import machine
from pytest_modelopt.measuring.controller.timing.machine import Reading
from pytest_modelopt.measuring.controller.timing.paired_timing import _others


def test_what_came_to_pass_between_two_readings() -> None:
    later, earlier = Reading(12.0, 7.0, 1.5, 0.25), Reading(10.0, 4.0, 1.0, 0.25)
    assert later.since(earlier) == Reading(2.0, 3.0, 0.5, 0.0)
    assert later.since(earlier).plus(Reading(1.0, 1.0, 0.5, 0.5)) == Reading(3.0, 4.0, 1.0, 0.5)


def test_what_is_unknown_once_stays_unknown() -> None:
    known, unknown = Reading(2.0, 1.0, 1.0, 1.0), Reading(1.0, None, None, None)
    assert known.since(unknown) == Reading(1.0, None, None, None)
    assert unknown.plus(known) == Reading(3.0, None, None, None)


def test_counters_that_do_not_hold_our_own_work_say_nothing_about_others() -> None:
    """Some sandboxes count nothing at all: that is not a quiet machine."""
    assert _others(0.0, 3.0, 4.0) is None
    assert _others(None, 3.0, 4.0) is None
    assert _others(2.95, 3.0, 4.0) == 0.0
    assert _others(5.0, 3.0, 4.0) == 0.5


@pytest.mark.skipif(not os.path.exists("/proc/stat"), reason="needs Linux's /proc")  # noqa: PTH110
def test_a_busy_process_shows_in_the_counters() -> None:
    before = machine.read()
    used = "import time\nwhile time.process_time() < 0.5: pass"
    subprocess.run([sys.executable, "-c", used], check=True)
    busy_s = machine.read().since(before).busy_s
    assert busy_s is not None
    assert busy_s >= 0.4
    assert system.cores() == len(os.sched_getaffinity(0))
