"""What `explore` finds in a time, beside exhaustive search over the same space, random search and Optuna alone.

Each way measures by the gate's own gauge, on the part of the examples that chooses, until its time is over. What it
reaches is the volume that its candidates dominate in memory, drop and time of a call (`--exact`: size instead of time),
as a share of what those of the exhaustive search dominate. Rows go to bench-results/explore-MODEL.jsonl; the same
command goes on from there. Those of the exhaustive searches that are done stand in benchmarks/explore_data.
"""

from __future__ import annotations

import argparse
import itertools
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from tabulate import tabulate
from torch import nn

from benchmarks import common, confirmed, traps
from benchmarks.common import REPOSITORY, RESULTS, Row, Store
from pytest_modelopt.cli.exploration.explore_gauge import GateGauge, Watch
from pytest_modelopt.cli.shared.model_options import loaded
from pytest_modelopt.exploring.choice import AIMS, Trial
from pytest_modelopt.exploring.confirming import confirm, finalists
from pytest_modelopt.exploring.funnel import Forgetful, Search, TimeIsUp, Tuner
from pytest_modelopt.exploring.knobs import Family, families
from pytest_modelopt.exploring.space import Space, explored, runnable, worth_trying
from pytest_modelopt.exploring.tuning import OptunaTuner, tuner_of
from pytest_modelopt.limits.catalogue import parse_value
from pytest_modelopt.limits.front import Criterion, figure
from pytest_modelopt.measuring.controller.side_by_side import GoesOn, always
from pytest_modelopt.optimizing.expression import Expression
from pytest_modelopt.plugin.options import Options
from pytest_modelopt.results.case import Case, MeasuredCase, Stage
from pytest_modelopt.results.verdicts import Limit

MODELS = """
version: 1
models:
  digits-vit:
    {factory: "example_project.vision:load_model", data: "example_project.vision:test_data",
     calibration: "example_project.vision:train_data", recipes: {bf16: }}
  spoken-digits:
    {factory: "example_project.speech:load_model", data: "example_project.speech:test_data",
     calibration: "example_project.speech:train_data", recipes: {bf16: }}
  convolutional:
    {factory: "benchmarks.zoo:convolutional", data: "benchmarks.zoo:images",
     calibration: "benchmarks.zoo:training_images", recipes: {bf16: }}
  attention:
    {factory: "benchmarks.zoo:attention", data: "benchmarks.zoo:images",
     calibration: "benchmarks.zoo:training_images", recipes: {bf16: }}
  bert-base:
    {factory: "benchmarks.explore:bert", data: "benchmarks.explore:tokens", metric: agreement, recipes: {bf16: }}
"""
WAYS = ("exhaustive", "explore", "random", "optuna", "choice", "confirmed", "traps", "show")
NAMES = tuple(re.findall(r"^  ([a-z-]+):$", MODELS, re.MULTILINE))
WORST_DROP = 0.1
"""The end of the volume: a candidate that loses more dominates nothing. Memory and time end at the original's."""
COORDINATES: tuple[Criterion, ...] = ("memory", "drop", "speedup")
EXACT: tuple[Criterion, ...] = ("memory", "drop", "size")
"""With `--exact`: figures that repeat, so other work on the machine does not matter."""
LIMITS = {"max_accuracy_drop": "1 pp", "min_memory_reduction": "40%"}
"""Of the runs that choose and confirm."""


def bert() -> nn.Module:
    """BERT-base's shape with random weights and three classes."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    made: nn.Module = BertForSequenceClassification(BertConfig(num_labels=3)).eval()
    return made


def tokens() -> dict[str, torch.Tensor]:
    return {"input_ids": torch.randint(0, 30_000, (200, 32), generator=torch.Generator().manual_seed(1))}


# --- volumes ---------------------------------------------------------------------------------------------------------

Place = tuple[float, float, float]


def volume(places: Sequence[Place], worst: Place) -> float:
    """What the places dominate of the box from the origin of smallest values to `worst`, exactly, by slices."""
    inside = [each for each in places if all(a < b for a, b in zip(each, worst, strict=True))]
    inside.sort(key=lambda place: place[2])
    total = 0.0
    for number, place in enumerate(inside):
        above = inside[number + 1][2] if number + 1 < len(inside) else worst[2]
        total += (above - place[2]) * _area([each[:2] for each in inside[: number + 1]], worst[:2])
    return total


def _area(places: Sequence[tuple[float, float]], worst: tuple[float, float]) -> float:
    total, lowest = 0.0, worst[1]
    for x, y in sorted(places):
        if y < lowest:
            total += (worst[0] - x) * (lowest - y)
            lowest = y
    return total


def place_of(row: Row) -> Place | None:
    """None for what was not measured whole. A drop below 0 is luck on these examples, and counts as 0."""
    memory, drop, third = row["memory"], row["drop"], row.get("speedup", row.get("size"))
    if memory is None or drop is None or third is None:
        return None
    return memory, max(0.0, drop), third


def reached(found: Sequence[Row], known: dict[str, Row]) -> float:
    """The share of the exhaustive search's volume, by its figures of what it has measured, too."""
    worst = (1.0, WORST_DROP, 1.0)
    places = [place for row in found if (place := place_of(known.get(row["recipe"], row))) is not None]
    of_all = [place for row in known.values() if (place := place_of(row)) is not None]
    whole = volume(of_all, worst)
    return volume(places, worst) / whole if whole else 0.0


# --- measuring -------------------------------------------------------------------------------------------------------


@dataclass
class Clocked:
    """The gauge, and a row of each candidate as soon as it is measured or timed."""

    inner: GateGauge
    keep: Callable[[Expression, Case], None]
    exact: bool
    """Whether nothing is timed."""

    def measure(self, recipe: Expression, goes_on: GoesOn) -> Case:
        def untimed(case: MeasuredCase, stage: Stage | Literal["look"]) -> bool:
            return stage != "timing" and goes_on(case, stage)

        case = self.inner.measure(recipe, untimed if self.exact else goes_on)
        self.keep(recipe, case)
        return case

    def time(self, recipe: Expression, case: Case) -> Case:
        if self.exact:
            return case
        timed = self.inner.time(recipe, case)
        self.keep(recipe, timed)
        return timed

    def judge(self, case: MeasuredCase) -> Case:
        return self.inner.judge(case)


@dataclass
class Bench:
    """One model: its gauge, its space, and the rows that are kept."""

    gauge: GateGauge
    space: Space
    families: list[Family]
    linear_bytes: int
    store: Store
    seed: int
    exact: bool

    def clocked(self, way: str, within_s: float, start: float) -> Clocked:
        return Clocked(self.gauge, self.row(way, within_s, start), self.exact)

    def row(self, way: str, within_s: float, start: float) -> Callable[[Expression, Case], None]:
        def keep(recipe: Expression, case: Case) -> None:
            found = {each: figure(case, each) for each in (EXACT if self.exact else COORDINATES)}
            self.store.append(
                {
                    "kind": "trial",
                    "way": way,
                    "within_s": within_s,
                    "seed": self.seed,
                    "at_s": round(time.monotonic() - start, 1),
                    "recipe": str(recipe),
                    "error": case.error.message if case.error is not None else "",
                    **{each: None if one is None else round(one.middle, 5) for each, one in found.items()},
                }
            )

        return keep

    def grid(self, every: int) -> list[Expression]:
        """The whole space: all recipes, and of each knob every so many settings."""
        found = {recipe.text: recipe for recipe in self.space.recipes}
        for family in self.families:
            for indices in itertools.product(*(range(0, len(knob.settings), every) for knob in family.knobs)):
                made = family.recipe(indices)
                found.setdefault(made.text, made)
        return list(found.values())


@dataclass
class Alone:
    """Optuna without a funnel: each recipe is one family, with its knobs where it has any."""

    tuner: OptunaTuner

    def proposals(self, gauge: Clocked) -> Iterator[None]:
        known: dict[str, Trial] = {}
        while True:
            recipe = self.tuner.ask()
            if recipe.text not in known:
                known[recipe.text] = Trial(recipe, len(known), gauge.measure(recipe, always))
                yield
            self.tuner.tell(known[recipe.text])


def exhaustive(bench: Bench, every: int, within_s: float) -> None:
    """The rest of the whole space, until the time is over: the next call goes on."""
    done = {row["recipe"] for row in bench.store.of_kind("trial") if row["way"] == "exhaustive"}
    left = [recipe for recipe in bench.grid(every) if str(recipe) not in done]
    run(bench, "exhaustive", within_s, lambda gauge: (gauge.measure(recipe, always) for recipe in left))


def run(bench: Bench, way: str, within_s: float, measured: Callable[[Clocked], Iterator[Any]]) -> None:
    start = time.monotonic()
    bench.gauge.watch.until = start + within_s
    try:
        for _ in measured(bench.clocked(way, within_s, start)):
            if time.monotonic() > start + within_s:
                return
    except TimeIsUp:
        return


def by_explore(bench: Bench, within_s: float) -> None:
    start = time.monotonic()
    gauge = bench.clocked("explore", within_s, start)

    ends = {"measuring": 0.7} if bench.exact else {"measuring": 0.6, "tuning": 0.85}

    def begin(stage: str) -> None:
        bench.gauge.watch.until = start + within_s * ends.get(stage, 1.0)

    def tuner(trials: Sequence[Trial]) -> Tuner | None:
        return tuner_of(trials, bench.linear_bytes, bench.seed)

    Search(bench.space.recipes, (), "memory", gauge, Forgetful(), bench.gauge.watch.tell, begin, tuner).run()


def by_random(bench: Bench, within_s: float, every: int) -> None:
    order = bench.grid(every)
    random.Random(bench.seed).shuffle(order)
    run(bench, "random", within_s, lambda gauge: (gauge.measure(recipe, always) for recipe in order))


def by_optuna(bench: Bench, within_s: float) -> None:
    plain = [Family(recipe, ()) for recipe in bench.space.recipes]
    alone = Alone(OptunaTuner([*plain, *bench.families], (), bench.seed))
    run(bench, "optuna", within_s, alone.proposals)


def by_choice(bench: Bench, within_s: float, fresh: int) -> None:
    """What explore chooses under limits, how it was confirmed, and in how many fresh runs its limits are broken."""
    gauge, start = bench.gauge, time.monotonic()
    gauge.limits = tuple(
        Limit(name, parse_value(name, text, unit_interval=True), text, "error", "benchmark", 1)
        for name, text in LIMITS.items()
    )

    def begin(stage: str) -> None:
        gauge.watch.until = start + within_s * ({"measuring": 0.45, "tuning": 0.6}.get(stage, 0.7))

    def tuner(trials: Sequence[Trial]) -> Tuner | None:
        return tuner_of(trials, bench.linear_bytes, bench.seed)

    search = Search(bench.space.recipes, gauge.limits, "memory", gauge, Forgetful(), gauge.watch.tell, begin, tuner)
    search.run()
    gauge.watch.until = float("inf")
    chosen = finalists(search)
    done, _ = confirm(chosen, lambda trial, left: gauge.confirm(trial, chosen, left), all_of_them=False)
    for each in done:
        promised = each.trial.case.drop if each.trial.case is not None else None
        row = {"recipe": str(each.trial.recipe), "promised": promised, "confirmed": each.case.drop, "holds": each.holds}
        bench.store.append({"kind": "choice", "seed": bench.seed, **row})
        for _ in range(fresh if each.holds else 0):
            gauge.session.runner.forget_original()
            case = gauge.confirm(each.trial, chosen, 1)
            outcomes = [verdict.outcome for verdict in case.verdicts]
            bench.store.append({"kind": "fresh", "recipe": row["recipe"], "drop": case.drop, "outcomes": outcomes})


# --- the model -------------------------------------------------------------------------------------------------------


def opened(options: argparse.Namespace) -> Bench:
    budgets = loaded(MODELS, REPOSITORY / "explore-benchmark.yaml", REPOSITORY)
    model = next(each for each in budgets.models if each.name == options.model)
    settings = Options(budgets.path, False, None, False, None, None)
    gauge = GateGauge(budgets, model, (), "memory", Watch(float("inf")), settings, options.seed)
    original, layers = gauge.look()
    derived = (original.observations.derived_layers if original.observations is not None else None) or {}
    asked = options.recipe or explored()
    space = worth_trying(runnable(asked, "cpu", has_calibration=model.calibration is not None), layers, derived)
    linear = sum(each.weight_bytes for each in layers if "Linear" in (each.type, derived.get(each.type)))
    store = Store(_file(options))
    store.begin({"model": model.name, "recipes": options.recipe, "every": options.every, "exact": options.exact})
    return Bench(gauge, space, _families(space, linear), linear, store, options.seed, options.exact)


def _file(options: argparse.Namespace) -> Path:
    found: Path = options.out or RESULTS / f"explore-{options.model}{'-exact' if options.exact else ''}.jsonl"
    return found


def _families(space: Space, linear_bytes: int) -> list[Family]:
    found: list[Family] = []
    for recipe in space.recipes:
        if not any(family.indices(recipe) is not None for family in found):
            found += families(recipe, linear_bytes)
    return found


# --- the tables ------------------------------------------------------------------------------------------------------


def show(store: Store) -> None:
    common.print_origins(store.of_kind("run"))
    trials = store.of_kind("trial")
    known = {row["recipe"]: row for row in trials if row["way"] == "exhaustive"}
    took = sum(run[-1]["at_s"] for run in _runs([row for row in trials if row["way"] == "exhaustive"]))
    print(f"\nexhaustive: {len(known)} recipes in {took:.0f} s")
    rows = []
    for way, within_s in dict.fromkeys((row["way"], row["within_s"]) for row in trials if row["way"] != "exhaustive"):
        found = [row for row in trials if (row["way"], row["within_s"]) == (way, within_s)]
        for seed in dict.fromkeys(row["seed"] for row in found):
            of = [row for row in found if row["seed"] == seed]
            rows.append((way, f"{within_s:g} s", seed, len({row["recipe"] for row in of}), f"{reached(of, known):.1%}"))
    print(tabulate(rows, ("way", "time", "seed", "recipes", "dominated volume")))
    choices = [row for row in store.of_kind("choice") if None not in (row["promised"], row["confirmed"])]
    if choices:
        worse = [row["confirmed"] - row["promised"] for row in choices]
        mean = 100 * sum(worse) / len(worse)
        print(f"\n{len(choices)} finalists: measured anew, the drop was {mean:+.2f} pp beyond what had been promised")
    fresh = store.of_kind("fresh")
    broken = sum("fail" in row["outcomes"] for row in fresh)
    print(f"confirmed limits broken in fresh runs: {common.share_text(broken, len(fresh))} of {len(fresh)}")


def _runs(rows: Sequence[Row]) -> list[list[Row]]:
    """Split where the clock begins anew."""
    runs: list[list[Row]] = []
    for row in rows:
        if not runs or row["at_s"] < runs[-1][-1]["at_s"]:
            runs.append([])
        runs[-1].append(row)
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=dict.fromkeys((*NAMES, *traps.TRAPS)))
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("--time", type=float, default=120.0, metavar="SECONDS", help="of this call (120)")
    parser.add_argument("--every", type=int, default=6, metavar="N", help="settings of the grid that count (6)")
    parser.add_argument("--recipe", action="append", default=[], help="of the space (default: all)")
    parser.add_argument("--fresh", type=int, default=0, metavar="N", help="fresh runs of what was confirmed")
    parser.add_argument("--timed", action="store_true", help="`confirmed` gates timed limits, too: on an idle machine")
    parser.add_argument("--aim", choices=AIMS, default="memory", help="of `confirmed` (memory)")
    parser.add_argument("--exact", action="store_true", help="nothing is timed: memory, size and drop")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.way == "traps":
        traps.run(options.model, options.seed, options.out or RESULTS / "explore-traps.jsonl")
        return
    if options.way == "confirmed":
        given = {"time_s": options.time, "recipes": options.recipe, "fresh": options.fresh, "timed": options.timed}
        confirmed.run(options.model, MODELS, options.aim, **given)
        return
    if options.way == "show":
        show(Store(_file(options)))
        return
    bench = opened(options)
    try:
        if options.way == "exhaustive":
            exhaustive(bench, options.every, options.time)
        elif options.way == "explore":
            by_explore(bench, options.time)
        elif options.way == "random":
            by_random(bench, options.time, options.every)
        elif options.way == "optuna":
            by_optuna(bench, options.time)
        else:
            by_choice(bench, options.time, options.fresh)
    finally:
        bench.gauge.close()
        show(bench.store)


if __name__ == "__main__":
    main()
