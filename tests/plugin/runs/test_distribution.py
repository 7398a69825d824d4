"""Which process of pytest-xdist gets which test: a model's cases one and the same, all others as without the plugin."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
from xdist.scheduler import LoadScheduling

from pytest_modelopt.plugin.collecting.distribution import models_together

NODES = 3
Sent = list[tuple[str, list[int]]]


class Node:
    """What a scheduler knows of a process."""

    def __init__(self, name: str, sent: Sent) -> None:
        self.gateway = SimpleNamespace(id=name)
        self.name, self.sent, self.waiting, self.shutting_down = name, sent, list[int](), False

    def send_runtest_some(self, tests: list[int]) -> None:
        self.sent.append((self.name, list(tests)))
        self.waiting += tests

    def shutdown(self) -> None:
        self.shutting_down = True


def run(scheduling: Any, ids: list[str], seed: int) -> Sent:
    """All tests run, their ends in a random order. A process keeps its last test until it is told to shut down."""
    chance, sent = random.Random(seed), Sent()
    nodes = [Node(f"gw{number}", sent) for number in range(NODES)]
    for node in nodes:
        scheduling.add_node(node)
        scheduling.add_node_collection(node, ids)
    scheduling.schedule()
    while ready := [node for node in nodes if len(node.waiting) > (0 if node.shutting_down else 1)]:
        node = chance.choice(ready)
        scheduling.mark_test_complete(node, node.waiting.pop(0), duration=chance.random() / 5)
    assert scheduling.tests_finished
    assert sorted(test for _, tests in sent for test in tests) == list(range(len(ids))), "each test runs once"
    return sent


def collection(seed: int, *, models: bool) -> list[str]:
    chance = random.Random(seed)
    ids = [f"tests/test_{chance.randrange(9)}.py::test_{n}" for n in range(chance.randrange(60))]
    for number in range(chance.randrange(1, 9) if models else 0):
        place = chance.randrange(len(ids) + 1)
        while place and place < len(ids) and "budgets.yaml" in ids[place]:
            place += 1
        ids[place:place] = [f"ci/budgets.yaml::m{number}::r::{n}" for n in range(chance.randrange(1, 12))]
    return ids


@pytest.fixture
def config(pytester: pytest.Pytester) -> pytest.Config:
    return pytester.parseconfig(f"--tx={NODES}*popen")


@pytest.mark.parametrize("seed", range(60))
def test_tests_without_a_budget_go_where_they_would_go_without_the_plugin(config: pytest.Config, seed: int) -> None:
    ids = collection(seed, models=False)
    assert run(models_together(config, None, "budgets.yaml"), ids, seed) == run(LoadScheduling(config), ids, seed)


@pytest.mark.parametrize("seed", range(60))
def test_the_cases_of_a_model_go_to_one_process(config: pytest.Config, seed: int) -> None:
    ids = collection(seed, models=True)
    places: dict[str, set[str]] = {}
    for node, tests in run(models_together(config, None, "budgets.yaml"), ids, seed):
        for test in tests:
            if "budgets.yaml" in ids[test]:
                places.setdefault(ids[test].split("::")[1], set()).add(node)
    assert {len(nodes) for nodes in places.values()} == {1}


def test_without_it_they_would_be_divided(config: pytest.Config) -> None:
    ids = [f"budgets.yaml::m::r{n}" for n in range(12)]
    assert len({node for node, _ in run(LoadScheduling(config), ids, 0)}) == NODES
    assert len({node for node, _ in run(models_together(config, None, "budgets.yaml"), ids, 0)}) == 1
