"""As few places as cover every target that a machine of a fleet is."""

from __future__ import annotations

import pytest

from pytest_modelopt.fleet.engine import Machine
from pytest_modelopt.fleet.placement import ANYWHERE, Place, places
from pytest_modelopt.results.record import Target
from pytest_modelopt.results.target import Fingerprint

TARGETS = (Target("arm", "aarch64"), Target("big", cores=8), Target("power", "ppc64le"))


@pytest.mark.parametrize(
    ("machines", "expected"),
    [
        ("arm1 aarch64 2, arm2 aarch64 2", [Place(("arm",), ("arm1", "arm2"))]),
        ("x1 x86_64 2, x2 x86_64 2", [ANYWHERE]),
        ("", [ANYWHERE]),
        ("a aarch64 2, b x86_64 8, c aarch64 8", [Place(("arm", "big"), ("c",))]),
        ("a aarch64 2, b x86_64 8", [Place(("arm",), ("a",)), Place(("big",), ("b",))]),
        ("a x86_64 2, b aarch64 2, c ppc64le 8", [Place(("big", "power"), ("c",)), Place(("arm",), ("b",))]),
    ],
)
def test_each_target_has_a_place_and_no_place_is_one_too_many(machines: str, expected: list[Place]) -> None:
    found = []
    for each in filter(None, machines.split(", ")):
        name, architecture, cores = each.split()
        found.append((Machine(name, name), Fingerprint(architecture, frozenset(), int(cores))))
    assert places(found, TARGETS) == expected
    assert places(found, ()) == [ANYWHERE]
