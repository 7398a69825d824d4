"""What a fleet would take: a simulation of models x recipes x targets on machines, with step times of real records.

    python -m benchmarks.fleet RECORD... [--nodes 5 50 200] [--models 500] [--recipes 12] [--compare FLEET]

Each case takes the seconds of a case drawn from the records (preparing, and the spans for which it had its machine for
itself), each model's original those of an original. Two ways to place them are simulated beside each other: all cases
of a model as one job, as `--modelopt-ray` does, and each case as a job of its own, which measures the original again.
With several jobs on one machine those that prepare share it, and none of them takes longer for that; a timing is alone,
by a reader/writer lock as ours.
`--compare` simulates the run of which FLEET is the record, on as many machines, so that the simulation can be believed.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import simpy
import tabulate

from pytest_modelopt.results.case import ORIGINAL, Case
from pytest_modelopt.results.json import read

SEED = 7
_START_S = 2.5
"""Of a job: pytest starts, and collects."""


@dataclass(frozen=True)
class Steps:
    """Seconds of one case."""

    original_s: float
    """Of its model, once for each job."""
    prepare_s: float
    timing_s: float


@dataclass(frozen=True)
class Outcome:
    """Of one simulated run."""

    wall_s: float
    utilisation: float
    """Share of the machines' time in which they work on a case."""
    alone: float
    """Share of the jobs' time in which they wait for others on their machine."""


class Machine:
    """One machine: `slots` jobs at a time, and the lock of the machine."""

    def __init__(self, world: simpy.Environment, slots: int) -> None:
        self.world = world
        self.slots = simpy.Resource(world, slots)
        self.turn = simpy.Resource(world, 1)
        self.shares = simpy.Container(world, slots, init=slots)
        self.all = slots
        self.busy_s = self.waited_s = 0.0
        self.working = 0
        self._since = 0.0

    def work(self, seconds: float, *, alone: bool) -> Generator[Any, Any, None]:
        """One step, in which others share the machine or not."""
        asked = self.world.now
        with self.turn.request() as turn:
            yield turn
            yield self.shares.get(self.all if alone else 1)
            if alone:
                self.waited_s += self.world.now - asked
                yield from self._step(seconds)
                yield self.shares.put(self.all)
                return
        self.waited_s += self.world.now - asked
        yield from self._step(seconds)
        yield self.shares.put(1)

    def _step(self, seconds: float) -> Generator[Any, Any, None]:
        if self.working == 0:
            self._since = self.world.now
        self.working += 1
        yield self.world.timeout(seconds)
        self.working -= 1
        if self.working == 0:
            self.busy_s += self.world.now - self._since


def steps_of(case: Case) -> Steps | None:
    """None of a case that has no times, or is the original's own."""
    if case.error is not None or case.variant is None or case.reference is None or case.recipe == ORIGINAL:
        return None
    timings = case.timings.values()
    spans = {span for timing in timings for span in timing.conditions.held_ms}
    return Steps(
        original_s=sum(case.reference.seconds.values()),
        prepare_s=sum(case.variant.seconds.values()),
        timing_s=sum(end - start for start, end in spans) / 1000,
    )


def simulate(jobs: Sequence[Sequence[Steps]], machines: int, slots: int) -> Outcome:
    """Run the jobs, in their order, on machines that are alike."""
    world = simpy.Environment()
    fleet = [Machine(world, slots) for _ in range(machines)]
    free = simpy.Store(world)
    free.items.extend(machine for _ in range(slots) for machine in fleet)

    def run(job: Sequence[Steps]) -> Generator[Any, Any, None]:
        machine: Machine = yield free.get()
        yield from machine.work(_START_S + job[0].original_s, alone=False)
        for case in job:
            yield from machine.work(case.prepare_s, alone=False)
            yield from machine.work(case.timing_s, alone=True)
        yield free.put(machine)

    for job in jobs:
        world.process(run(job))
    world.run()
    wall = float(world.now)
    spent = sum(machine.busy_s for machine in fleet)
    waited = sum(machine.waited_s for machine in fleet)
    return Outcome(wall, spent / (wall * machines), waited / max(spent + waited, 1e-9))


def table(known: Sequence[Steps], models: int, recipes: int, targets: int, nodes: Sequence[int]) -> str:
    """Each way to place the cases, on each number of machines. A target has its own share of the machines."""
    chance = random.Random(SEED)
    of_models = [[chance.choice(known) for _ in range(recipes)] for _ in range(models)]
    rows = []
    for count in nodes:
        share = max(1, count // targets)
        for name, jobs in (("model", of_models), ("case", [[case] for model in of_models for case in model])):
            for slots in (1, 2):
                found = simulate(jobs, share, slots)
                times = f"{found.wall_s / 3600:.2f} h", f"{found.utilisation:.0%}", f"{found.alone:.0%}"
                rows.append((count, f"a {name}", slots, *times))
    headers = ("machines", "a job is", "jobs on a machine", "wall time", "utilisation", "time spent waiting")
    return str(tabulate.tabulate(rows, headers, disable_numparse=True))


def compared(path: Path, jobs_at_once: int) -> str:
    """What a run on a fleet took, from its first to its last timing, and what the simulation says of it, with so many
    jobs at once on each host."""
    record = read(path)
    jobs: dict[str, list[Steps]] = {}
    for case in record.cases:
        if (steps := steps_of(case)) is not None:
            jobs.setdefault(case.model, []).append(steps)
    conditions = [timing.conditions for case in record.cases for timing in case.timings.values()]
    spans = [span for each in conditions for span in each.held_ms]
    hosts = len({each.host for each in conditions})
    took = (max(end for _, end in spans) - min(start for start, _ in spans)) / 1000
    found = simulate(list(jobs.values()), hosts, jobs_at_once)
    return (
        f"{path}: {len(jobs)} models on {hosts} hosts took {took:.0f} s between timings, simulated {found.wall_s:.0f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", nargs="+", type=Path)
    parser.add_argument("--nodes", nargs="+", type=int, default=[5, 50, 200])
    parser.add_argument("--models", type=int, default=500)
    parser.add_argument("--recipes", type=int, default=12)
    parser.add_argument("--targets", type=int, default=3)
    parser.add_argument("--compare", type=Path, metavar="FLEET")
    parser.add_argument("--jobs", type=int, default=1, help="of FLEET, at once on each host (%(default)s)")
    options = parser.parse_args()
    cases = [case for path in options.records for case in read(path).cases]
    known = [steps for case in cases if (steps := steps_of(case)) is not None]
    print(f"{len(known)} cases of {len(options.records)} records")
    print(table(known, options.models, options.recipes, options.targets, options.nodes))
    if options.compare is not None:
        print(compared(options.compare, options.jobs))


if __name__ == "__main__":
    main()
