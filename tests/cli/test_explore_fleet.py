"""`explore --ray`: what other machines of one kind measure of the candidates is what is measured here."""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from pytest_modelopt.cli.exploration import explore_fleet
from pytest_modelopt.cli.exploration.explore_fleet import Fleet, to_event
from pytest_modelopt.cli.exploration.explore_gauge import GateGauge, Watch
from pytest_modelopt.cli.main import main
from pytest_modelopt.exploring.cache import Cache, key_of
from pytest_modelopt.exploring.choice import Trial
from pytest_modelopt.exploring.funnel import TimeIsUp
from pytest_modelopt.fleet.engine import Cluster, EngineError, Machine, Told
from pytest_modelopt.fleet.job import Job
from pytest_modelopt.fleet.project import Project
from pytest_modelopt.optimizing.expression import Expression, parse
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.target import Fingerprint
from tests.exploring.candidates_by_hand import candidate, failed
from tests.plugin.engine_here import EngineHere
from tests.reporting.records_by_hand import ENVIRONMENT

A, B, C = "int8-dynamic", "bf16", "int8-weight-only"
KEY = key_of("0a", "data", "work", "0.1.0", ENVIRONMENT)
SHOP = """
import torch
from torch import nn

def load_sorter():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 7)).eval()

def data():
    inputs = torch.randn(3000, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return inputs, load_sorter()(inputs).argmax(1)
"""
RECIPES = ("int8-dynamic", "low-rank(ratio=0.01)", "fold-batchnorm", "bf16")


@pytest.mark.slow
def test_candidates_measured_elsewhere_are_those_measured_here(
    pytester: pytest.Pytester,
    capsys: pytest.CaptureFixture[str],
    one_thread: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    pytester.makepyfile(sorter_shop=SHOP)
    engines: list[EngineHere] = []
    here: list[str] = []
    measure = GateGauge.measure

    def connect(cluster: Cluster, project: Project) -> EngineHere:
        kinds = (platform.machine(), platform.machine(), "mips")
        engines.append(EngineHere(tmp_path / f"copy{len(engines)}", project, {("job 1", 1): 1}, architectures=kinds))
        return engines[-1]

    def measured_here(gauge: GateGauge, recipe: Expression, goes_on: Any) -> Case:
        here.append(recipe.text)
        return measure(gauge, recipe, goes_on)

    monkeypatch.setattr(Cluster, "connect", connect)
    monkeypatch.setattr(GateGauge, "measure", measured_here)
    asked = [argument for recipe in RECIPES for argument in ("--recipe", recipe)]
    call = ["explore", "sorter_shop:load_sorter", "--data", "sorter_shop:data", "--max-accuracy-drop", "10pp", *asked]
    call += ["--aim", "size", "--time", "5min"]
    assert main([*call, "--ray", "10.0.0.1:6379"]) == 0
    told = capsys.readouterr().out
    assert "fleet: 2 machines of this one's kind, 1 of other kinds are left out; times are taken here\n" in told
    said = "fleet: job 1: lost on machine x86_64 (its machine was switched off); left to measure again: 1 recipe\n"
    assert said.replace("x86_64", platform.machine()) in told
    assert here == ["fold-batchnorm"], "an error elsewhere may be none here"
    jobs = [job.items for job, _ in engines[0].submitted]
    assert jobs == [RECIPES[0::2], RECIPES[1::2], RECIPES[2::2]]
    elsewhere = table(told)

    here.clear()
    assert main([*call, "--fresh"]) == 0
    assert here == list(RECIPES)
    assert table(capsys.readouterr().out) == elsewhere
    assert main([*call, "--ray", "10.0.0.1:6379"]) == 0
    unknown = [job.items for job, _ in engines[1].submitted]
    assert unknown == [("low-rank(ratio=0.01)",), ("fold-batchnorm",)], "what is whole is known from before"


def table(told: str) -> list[list[str]]:
    """What each recipe came to, without what tells of the moment: times, and whether it was known from before."""
    moment = re.compile(r" \(earlier\)|\S+x \[[^]]*\]")
    lines = [moment.sub("", line).split() for line in told.splitlines()]
    return [line for line in lines if line and any(recipe in line[0:2] for recipe in RECIPES)]


# --- jobs that tell otherwise ----------------------------------------------------------------------------------------


@dataclass
class Scripted:
    """An engine whose jobs tell what is given for them, each attempt its own."""

    tells: list[list[dict[str, Any] | str]]
    """Events of each job that is submitted, in order; text is why it is lost."""
    submitted: list[tuple[Job, Machine | None]] = field(default_factory=list)
    is_closed: bool = False
    name: str = "scripted"
    refuses: int = 0
    """The number of the submission that it refuses, from 1."""
    others: tuple[Callable[[Fingerprint], Fingerprint], ...] = ()

    def machines(self, ask: Callable[[], Fingerprint]) -> list[tuple[Machine, Fingerprint]]:
        return [(Machine(str(number), f"node {number}"), other(ask())) for number, other in enumerate(self.others)]

    def submit(self, job: Job, avoid: Machine | None = None) -> None:
        self.submitted.append((job, avoid))
        if len(self.submitted) == self.refuses:
            raise EngineError("the partition is full")

    def told(self, wait_s: float) -> Iterator[Told]:
        for number, events in enumerate(self.tells[: len(self.submitted)]):
            if events:
                event, machine = events.pop(0), Machine(str(number), f"node {number}")
                job = self.submitted[number][0]
                yield Told(job, {}, machine, event) if isinstance(event, str) else Told(job, event, machine)

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    made = Cache(tmp_path / "explore", "m")
    made.open()
    made.use(KEY, ENVIRONMENT)
    yield made
    made.close()


def trial(case: Case, why: str = "", *, is_out_early: bool = False) -> dict[str, Any]:
    return to_event(Trial(parse(case.recipe), 0, case, why, is_out_early=is_out_early))


def fleet(cache: Cache, *items: str, tells: list[list[dict[str, Any] | str]]) -> tuple[Fleet, Scripted]:
    engine = Scripted(tells)
    made = Fleet(Watch(float("inf")), cache, engine)
    made.submit(Job("job 1", items, (), ".", {}))
    return made, engine


def test_what_a_job_tells_is_taken_and_kept_for_the_next_call(cache: Cache) -> None:
    good = replace(candidate(A, memory=2, lost=1), verdicts=(), limits=())
    events: list[dict[str, Any] | str] = [
        {"hello": {}},
        {"key": KEY},
        trial(good),
        trial(failed(B, "no kernel")),
        {"end": 0, "output": ""},
    ]
    made, _ = fleet(cache, A, B, tells=[events])
    found, bad = made.measured(parse(A)), made.measured(parse(B))
    assert found is not None
    assert found.case == good
    assert bad is not None
    assert bad.case is not None
    assert bad.case.error is not None
    assert bad.case.error.message == "no kernel"
    assert made.measured(parse(C)) is None
    assert cache.get(parse(A)) is not None
    assert cache.get(parse(B)) is None


def test_what_has_come_is_kept_before_its_turn_and_after_the_end(cache: Cache) -> None:
    made, engine = fleet(cache, A, B, tells=[[{"key": KEY}, trial(candidate(B, memory=2))]])
    made.watch.until = time.monotonic() + 0.05
    with pytest.raises(TimeIsUp):
        made.measured(parse(A))
    made.close()
    assert engine.is_closed
    assert cache.get(parse(B)) is not None
    assert made.found(parse(B)) is not None
    assert made.found(parse(A)) is None


def test_what_no_machine_is_free_for_is_measured_here(
    cache: Cache, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explore_fleet, "_START_S", 0.0)
    made, _ = fleet(cache, A, B, tells=[[]])
    assert made.measured(parse(A)) is None
    assert made.measured(parse(B)) is None
    said = "fleet: job 1: no machine was free within 0 s; until one is, its recipes are measured here\n"
    assert capsys.readouterr().out == said


def test_what_is_out_early_is_not_kept_as_if_all_of_it_were_known(cache: Cache) -> None:
    early = trial(candidate(A, memory=2), "its first answers", is_out_early=True)
    made, _ = fleet(cache, A, tells=[[{"key": KEY}, early]])
    found = made.measured(parse(A))
    assert found is not None
    assert (found.why, found.is_out_early) == ("its first answers", True)
    assert cache.get(parse(A)) is None


def test_of_another_machine_of_the_kind_nothing_is_kept_and_of_another_project_nothing_taken(
    cache: Cache, capsys: pytest.CaptureFixture[str]
) -> None:
    case = candidate(A, memory=2)
    made, _ = fleet(cache, A, tells=[[{"key": {**KEY, "machine": "other"}}, trial(case)]])
    assert made.measured(parse(A)) is not None
    assert cache.get(parse(A)) is None
    made, _ = fleet(cache, A, B, tells=[[{"key": {**KEY, "data": "x", "model": "y"}}, trial(case)]])
    assert made.measured(parse(A)) is None
    said = "fleet: job 1: another model and data than here on node 0; left to measure here: 2 recipes\n"
    assert capsys.readouterr().out == said


def test_a_trial_of_another_recipe_or_one_that_nobody_measured_is_not_taken(cache: Cache) -> None:
    other = trial(candidate(B, memory=2))
    other["trial"]["recipe"] = A
    made, _ = fleet(cache, A, tells=[[{"key": KEY}, other]])
    assert made.measured(parse(A)) is None
    broken = trial(candidate(A, memory=2))
    broken["trial"]["case"] = "{}"
    made, _ = fleet(cache, A, tells=[[{"key": KEY}, broken]])
    assert made.measured(parse(A)) is None


def test_a_job_that_is_lost_runs_again_twice_without_what_it_told(
    cache: Cache, capsys: pytest.CaptureFixture[str]
) -> None:
    tells: list[list[dict[str, Any] | str]] = [
        [{"key": KEY}, trial(candidate(A, memory=2)), "switched off"],
        [{"end": -9, "output": ""}],
        ["switched off"],
    ]
    made, engine = fleet(cache, A, B, tells=tells)
    assert made.measured(parse(A)) is not None
    assert made.measured(parse(B)) is None
    assert [job.items for job, _ in engine.submitted] == [(A, B), (B,), (B,)]
    assert [avoid and avoid.name for _, avoid in engine.submitted] == [None, "node 0", "node 1"]
    assert capsys.readouterr().out.splitlines() == [
        "fleet: job 1: lost on node 0 (switched off); left to measure again: 1 recipe",
        "fleet: job 1: lost on node 1 (its process was ended by signal 9); left to measure again: 1 recipe",
        "fleet: job 1: it was lost on node 2 (switched off) for the 3rd time; left to measure here: 1 recipe",
    ]


def test_what_a_cluster_does_not_take_again_is_measured_here(cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    made, engine = fleet(cache, A, B, tells=[["switched off"]])
    engine.refuses = 2
    assert made.measured(parse(A)) is None
    assert made.measured(parse(B)) is None
    last = "fleet: job 1: the partition is full; left to measure here: 2 recipes"
    assert capsys.readouterr().out.splitlines()[-1] == last


def test_a_job_that_cannot_run_says_why_and_here_it_is_measured(
    cache: Cache, capsys: pytest.CaptureFixture[str]
) -> None:
    made, _ = fleet(cache, A, tells=[[{"end": 2, "output": "...\nshop: no module named 'shop'\n"}]])
    assert made.measured(parse(A)) is None
    said = "fleet: job 1: status 2 on node 0: shop: no module named 'shop'; left to measure here: 1 recipe\n"
    assert capsys.readouterr().out == said


def test_waiting_ends_with_the_time(cache: Cache) -> None:
    made, engine = fleet(cache, A, tells=[[]])
    made.watch.until = 0.0
    with pytest.raises(TimeIsUp):
        made.measured(parse(A))
    made.close()
    assert engine.is_closed
    assert made.measured(parse(A)) is None
    assert not made.is_open


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (lambda mine: replace(mine, architecture="mips"), f"is mips and not {platform.machine()}"),
        (lambda mine: replace(mine, instructions=mine.instructions ^ {"sve"}), "differs in sve"),
        (lambda mine: replace(mine, cores=mine.cores + 1), "has [0-9]+ cores and not [0-9]+"),
        (lambda mine: replace(mine, gpu="H200"), "has H200 and not none"),
        (lambda mine: replace(mine, versions={**mine.versions, "torch": "1.0"}), "differs in its version of torch"),
    ],
)
def test_machines_of_other_kinds_are_refused_with_what_differs(
    other: Callable[[Fingerprint], Fingerprint], said: str
) -> None:
    with pytest.raises(EngineError, match=f"is of this one's kind .node 0 {said}"):
        explore_fleet._alike(Scripted([], others=(other,)))
