"""On which machines of a fleet the cases of a model run, so that each target has them that a machine is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_modelopt.fleet.engine import Machine
from pytest_modelopt.results.record import Target
from pytest_modelopt.results.target import Fingerprint, lacks


@dataclass(frozen=True)
class Place:
    """Machines that are the same targets: on one of them a job runs."""

    targets: tuple[str, ...] = ()
    machines: tuple[str, ...] = ()
    """Their ids; empty where any will do."""


ANYWHERE = Place()


def places(machines: Sequence[tuple[Machine, Fingerprint]], targets: Sequence[Target]) -> list[Place]:
    """As few as cover every target that a machine is; one place anywhere where no machine is one."""
    found: dict[tuple[str, ...], list[str]] = {}
    for machine, fingerprint in machines:
        names = tuple(target.name for target in targets if not lacks(target, fingerprint))
        found.setdefault(names, []).append(machine.id)
    wanted = {name for names in found for name in names}
    chosen: list[Place] = []
    while wanted:
        best = max(found, key=lambda names: len(wanted.intersection(names)))  # of equals the first
        chosen.append(Place(best, tuple(found[best])))
        wanted.difference_update(best)
    return chosen or [ANYWHERE]
