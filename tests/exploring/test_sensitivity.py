"""Sensitivity by layer and mixed recipes, on trials by hand: order, what is left, the cache, and what is kept."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import html5lib
import pytest

from pytest_modelopt.exploring.cache import Cache, key_of
from pytest_modelopt.exploring.funnel import Forgetful, Search, TimeIsUp
from pytest_modelopt.exploring.mixing import Mixing, kept_layers, worth_mixing
from pytest_modelopt.exploring.sensitivity import Sensitivity, cost_of, known_groups
from pytest_modelopt.measuring.controller.layer_trials import Tried
from pytest_modelopt.measuring.controller.process import WorkerFailed
from pytest_modelopt.optimizing.expression import Expression, parse
from pytest_modelopt.reporting.layer_costs_text import LayerTable, lines
from pytest_modelopt.reporting.page.layers import render_layers
from pytest_modelopt.reporting.plain_text import plain_line
from pytest_modelopt.results.answers import Agreement
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.layer_costs import LayerCost, LayerGroup
from tests.exploring.candidates_by_hand import ByHand, candidate, limits
from tests.reporting.hostile_texts import EVERYTHING
from tests.reporting.records_by_hand import ENVIRONMENT

RECIPE = parse("int8-dynamic")
LOST = {"encoder": 1, "planted": 120, "decoder": 2, "head": 0}
SIZES = {"encoder": 4000, "planted": 400, "decoder": 2000, "head": 40}
GROUPS = tuple(LayerGroup((name,), "Linear", size, 10 * size) for name, size in SIZES.items())


@dataclass
class Trials:
    """The answers lose what each layer costs that is not kept; `ends_after` may interrupt."""

    groups: tuple[LayerGroup, ...] = GROUPS
    ends_after: int = 100
    error: type[BaseException] = KeyboardInterrupt
    asked: list[tuple[str, ...]] = field(default_factory=list)

    def keep(self, groups: Sequence[LayerGroup]) -> Tried:
        if len(self.asked) >= self.ends_after:
            raise self.error
        self.asked.append(tuple(group.name for group in groups))
        changed = [group for group in self.groups if group not in groups]
        lost = min(351, sum(LOST[group.name] for group in changed))
        case = replace(candidate("int8-dynamic", lost=lost), agreement=Agreement(360, lost, 0, lost + 1))
        return Tried(case, sum(3 * group.weight_bytes // 4 for group in changed))

    def __enter__(self) -> Trials:
        return self

    def __exit__(self, *_: object) -> None:
        return None


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    made = Cache(tmp_path / "cache", "m")
    made.open()
    made.use(key_of("digest", "data", "work", "0.1.0", ENVIRONMENT), ENVIRONMENT)
    yield made
    made.close()


def test_each_layer_alone_the_worst_first_with_counted_bytes_and_bounds(cache: Cache) -> None:
    trials = Trials()
    found = Sensitivity(RECIPE, cache, trials.groups)
    found.measure(trials)
    assert trials.asked[0] == ("planted", "decoder", "head"), "the largest is tried first, and all others are kept"
    known = found.told("m", unit_interval=True)
    assert [cost.group.name for cost in known.ranked] == ["planted", "decoder", "encoder", "head"]
    worst = known.ranked[0]
    assert (worst.flips, worst.examples, worst.saved_bytes) == (121, 360, 300)
    assert worst.drop is not None
    assert worst.low is not None
    assert worst.high is not None
    assert worst.low < worst.drop == 120 / 360 < worst.high
    told = list(lines(known))
    assert told[0] == "int8-dynamic on each layer alone, all others as they are, on 360 examples; the worst first:"
    assert told[3].split()[:4] == ["planted", "Linear", "121", "33.333"]
    assert told[3].endswith("#" * 20)
    assert "300 B" in told[3]
    assert "6.211%" in told[3]  # 400 of 6,440 weights, and so of the multiply-adds
    assert "which is an estimate of the time" in told[-1]


@pytest.mark.parametrize("error", [KeyboardInterrupt, TimeIsUp])
def test_what_was_measured_before_the_end_stands_and_a_second_call_goes_on(
    cache: Cache, error: type[BaseException]
) -> None:
    trials = Trials(ends_after=2, error=error)
    found = Sensitivity(RECIPE, cache, trials.groups)
    with pytest.raises(error):
        found.measure(trials)
    assert [cost.group.name for cost in found.costs] == ["encoder", "decoder"]
    told = list(lines(found.told("m", unit_interval=True)))
    assert "not reached: planted, head; the same command goes on there" in told
    again = Trials()
    then = Sensitivity(RECIPE, cache, known_groups(cache, RECIPE))
    then.measure(again)
    assert len(again.asked) == 2
    assert not then.left
    of_another = Cache(cache.folder, "m", {**cache.key, "model": "another"}, cache.environment, cache._lock)
    assert known_groups(of_another, RECIPE) == ()


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"format": "sensitivity 1"}', '{"format": "sensitivity 1", "key": KEY, "costs": [{"group": 1}]}']
    + [
        '{"format": "sensitivity 1", "key": KEY, "costs": [{"group": {"names": NAMES, "kind": "a", "weight_bytes": 1, '
        '"multiply_adds": 1}, "saved_bytes": SAVED, "examples": 1, "flips": 1, "drop": 1, "low": 0, "high": 1, '
        '"why": ""}]}'.replace("NAMES", names).replace("SAVED", saved)
        for names, saved in (("[1]", "1"), ("[]", "1"), ('["a"]', '"1"'), ('["a"]', "true"))
    ],
)
def test_a_file_that_nobody_of_us_wrote_is_not_used(cache: Cache, text: str) -> None:
    file = cache.beside(RECIPE, "sensitivity 1")
    assert file is not None
    file.write_text(text.replace("KEY", json.dumps(cache.key)), encoding="utf-8")
    assert known_groups(cache, RECIPE) == ()


def test_what_cannot_be_scored_alone_says_why() -> None:
    cost = cost_of(GROUPS[0], Tried(candidate("int8-dynamic"), None, "int8-dynamic changed nothing"))
    assert cost == LayerCost(GROUPS[0], why="int8-dynamic changed nothing")


def test_layers_are_kept_by_what_they_cost_for_what_they_give_and_none_in_vain() -> None:
    """Alone, `head` costs most for its bytes; of the beginning that holds, it is not needed."""
    costs = [
        LayerCost(LayerGroup(("planted",), "Linear", 400, 0), 300, 100, flips=60),
        LayerCost(LayerGroup(("head",), "Linear", 4, 0), 3, 100, flips=2),
        LayerCost(LayerGroup(("body",), "Linear", 4000, 0), 3000, 100, flips=1),
        LayerCost(LayerGroup(("norm",), "BatchNorm2d", 8, 0), why="it changed nothing"),
    ]
    kept = kept_layers(costs, lambda groups: "planted" in {group.name for group in groups})
    assert kept is not None
    assert [group.name for group in kept] == ["planted"]
    assert kept_layers(costs, lambda groups: False) is None


class Gauge(ByHand):
    """Trials that lose what the layers lose, and the mixed recipe as it is measured."""

    def __init__(self, *cases: Case, refuses: bool = False) -> None:
        super().__init__(limits(max_accuracy_drop="2 pp"), *cases)
        self.refuses = refuses

    def layer_trials(self, recipe: Expression) -> Trials:
        if self.refuses:
            raise WorkerFailed("it cannot be copied", "")
        return Trials()


MIXED = "int8-dynamic(keep=planted)"


def test_a_recipe_that_breaks_a_limit_on_answers_is_mixed_and_wins(cache: Cache) -> None:
    gauge = Gauge(candidate("int8-dynamic", memory=2, lost=123), candidate(MIXED, memory=3, lost=3))
    mixing = Mixing(gauge, cache)
    search = Search([RECIPE], gauge.bounds, "memory", gauge, Forgetful(), mix=mixing)
    search.run()
    assert [str(trial.recipe) for trial in search.trials] == ["int8-dynamic", MIXED]
    assert [(str(each.recipe), len(each.costs)) for each in mixing.known(search)] == [("int8-dynamic", 4)]
    later = Mixing(gauge, cache)
    assert [each.costs for each in later.known(search)] == [each.costs for each in mixing.known(search)]
    assert [str(trial.recipe) for trial in search.holding] == [MIXED]
    assert search.end == "done"


def test_a_recipe_that_cannot_be_tried_by_layers_is_left(cache: Cache) -> None:
    gauge = Gauge(candidate("int8-dynamic", memory=2, lost=123), refuses=True)
    search = Search([RECIPE], gauge.bounds, "memory", gauge, Forgetful(), mix=Mixing(gauge, cache))
    search.run()
    assert len(search.trials) == 1


def test_only_what_is_out_for_its_answers_alone_is_mixed() -> None:
    bounds = limits(max_accuracy_drop="2 pp", max_memory="4 MiB")
    gauge = ByHand(
        bounds,
        candidate("int8-dynamic", memory=2, lost=123),
        candidate("low-rank(ratio=0.5)", memory=5, lost=123),
        candidate("prune-structured(ratio=0.5)", memory=1, lost=100),
        candidate("int8-weight-only", memory=2),
        candidate("openvino", memory=2, lost=100),
    )
    recipes = [parse(text) for text in gauge.cases]
    search = Search(recipes, bounds, "memory", gauge, Forgetful())
    search.run()
    found = [str(trial.recipe) for trial in worth_mixing(search.trials, "memory")]
    assert found == ["prune-structured(ratio=0.5)", "int8-dynamic"]


def test_the_page_holds_what_is_printed_and_a_strangers_names_as_text() -> None:
    hostile = f"a{EVERYTHING}"
    made = LayerTable("int8-dynamic on each layer", ("layer", "kind"), ((hostile, "Linear"), ("b", "x")), (1.0, 0.25))
    page = html5lib.parse(render_layers(hostile, [made, LayerTable("none", ("layer", "kind"), (), ())]), "etree")
    elements = [each.tag.rpartition("}")[2] for each in page.iter() if isinstance(each.tag, str)]
    assert [elements.count(name) for name in ("script", "img", "table", "svg")] == [1, 0, 1, 2]
    assert not [each for each in page.iter() if each.get("href", "#")[0] != "#"]
    headers = page.iter("{http://www.w3.org/1999/xhtml}th")
    cells = ["".join(each.itertext()) for each in headers if each.get("scope") == "row"]
    assert cells == [plain_line(hostile), "b"]
    lengths = [each.get("aria-label") for each in page.iter("{http://www.w3.org/2000/svg}svg")]
    assert lengths[1] == "harm of b: 25% of the worst layer's"
    assert "No layer was scored." in "".join(page.itertext())
