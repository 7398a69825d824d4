"""What was wrong with the machine, or with a worker, while pairs were timed: raw figures of the record, in words."""

from __future__ import annotations

from pytest_modelopt.results.figures import format_number, format_percentage, format_time
from pytest_modelopt.results.timed_pairs import Timing

OTHERS = 0.125
"""Share of the cores that others may keep busy on average before it is said."""
STOLEN_CORES = 0.02
DELAYED = 0.05
"""Share of the timed time."""
IDLE_CORES = 0.25
"""A worker that waits for its turn needs a few hundredths of a core to answer; a spinning thread wants a whole one."""


def disturbances(timing: Timing) -> list[str]:
    """How others disturbed the timing; empty on a quiet machine."""
    conditions, found = timing.conditions, []
    if conditions.other_cores is not None and conditions.other_cores >= OTHERS * conditions.cores:
        cores = f"{format_number(conditions.other_cores, digits=2)} of {conditions.cores} cores"
        found.append(f"other processes kept {cores} busy")
    if conditions.stolen_cores is not None and conditions.stolen_cores >= STOLEN_CORES:
        found.append(f"the host took {format_number(conditions.stolen_cores, digits=2)} cores away (steal)")
    if conditions.throttled_s:
        found.append(f"a processor quota stopped it for {format_time(conditions.throttled_s, digits=2)}")
    if timing.delayed >= DELAYED:
        found.append(f"others had the processor for {format_percentage(timing.delayed, digits=2)} of the timed time")
    if found and conditions.load is not None:
        found.append(f"load average {format_number(conditions.load, digits=2)}")
    return found


def oddities(timing: Timing, names: tuple[str, str] = ("original", "variant")) -> list[str]:
    """What the workers themselves did against the conditions under which they were to be timed.

    `names` says what the two are called.
    """
    found = []
    for name, use in zip(names, (timing.conditions.reference, timing.conditions.variant), strict=True):
        if use.active_threads is not None and use.active_threads > timing.threads:
            found.append(
                f"the {name} worked with {use.active_threads} threads though `threads` is {timing.threads}: its engine "
                "does not follow torch's setting, so set the number in the engine, too"
            )
        if use.idle_cores >= IDLE_CORES:
            found.append(
                f"the {name} kept {format_number(use.idle_cores, digits=2)} cores busy when it was not its turn, which "
                "slows both down: a thread of its engine spins while it waits, so turn spinning off there"
            )
    return found
