"""Planted traps: of each model one layer must not be quantized, and explore is to find it and to keep it.

A trap changes no answer in floating point. An input unit of the layer is made silent (the layer before it answers 0
there), and each of the layer's weights for it is a thousand: so the int8 steps of all other weights are far too wide.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from tabulate import tabulate
from torch import Tensor, nn

from benchmarks import zoo
from benchmarks.common import REPOSITORY, Row, Store
from example_project import speech, vision, writing
from pytest_modelopt.cli.exploration.explore_gauge import GateGauge, Watch
from pytest_modelopt.cli.shared.model_options import loaded
from pytest_modelopt.exploring.cache import Cache
from pytest_modelopt.exploring.funnel import Forgetful, Search
from pytest_modelopt.exploring.mixing import Mixing
from pytest_modelopt.exploring.sensitivity import Sensitivity
from pytest_modelopt.limits.catalogue import parse_value
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.plugin.options import Options
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.verdicts import Limit

LARGE = 1000.0
LIMIT = "2 pp"
"""What the drop may be."""
UNIT = 3
"""The input of the layer that is silent."""
WINDOW = 64
"""Characters of an example of documents-gpt, of which the next one is guessed."""


@dataclass(frozen=True)
class Trap:
    """Where it is planted: `silence` makes an input of `layer` zero; recipes are those that change the layer."""

    load: Callable[[], nn.Module]
    data: str
    layer: str
    silence: Callable[[nn.Module], None]
    recipes: tuple[str, ...]
    calibration: str = ""
    metric: str = "accuracy"


def silent(name: str) -> Callable[[nn.Module], None]:
    """Of a Linear before ReLU or GELU: the unit answers a number far below zero."""

    def silence(model: nn.Module) -> None:
        layer = model.get_submodule(name)
        layer.get_parameter("weight")[UNIT] = 0
        layer.get_parameter("bias")[UNIT] = -100

    return silence


def _silent_in_block(model: nn.Module) -> None:
    """Of a residual block of convolutions: both ways that lead to the channel answer zero or less."""
    block = model.get_submodule("blocks.0")
    for part in ("norm2.weight", "norm2.bias", "shortcut.weight"):
        block.get_parameter(part)[UNIT] = 0
    block.get_parameter("shortcut.bias")[UNIT] = -1


def _silent_in_lstm(model: nn.Module) -> None:
    """Of the last layer of an LSTM: the output gate of the unit is shut."""
    lstm = model.get_submodule("lstm")
    gate = 3 * 320 + UNIT
    for part in ("weight_ih_l1", "weight_hh_l1"):
        lstm.get_parameter(part)[gate] = 0
    lstm.get_parameter("bias_ih_l1")[gate] = -1000


class NextCharacter(nn.Module):
    """documents-gpt without its cache: logits [batch, 96] of what comes behind the ids [batch, characters]."""

    def __init__(self) -> None:
        super().__init__()
        self.gpt = writing.load_model()

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.gpt(ids)[0][:, -1]
        return logits


def texts() -> Tensor:
    """Ids [examples, 64] of the held-out end of the documents, none of which shares a character with another."""
    return writing.spread(writing.encode(writing.DATA_PATH.read_text(encoding="utf-8"))[-60_000:], 400)[:, :WINDOW]


INT8 = ("int8-dynamic", "int8-weight-only")
TRAPS = {
    "digits-vit": Trap(
        vision.load_model,
        "example_project.vision:test_data",
        "encoder.layers.0.linear2",
        silent("encoder.layers.0.linear1"),
        INT8,
    ),
    "student": Trap(
        vision.load_student,
        "example_project.vision:test_data",
        "encoder.layers.0.linear2",
        silent("encoder.layers.0.linear1"),
        INT8,
    ),
    "spoken-digits": Trap(
        speech.load_model, "example_project.speech:test_data", "classifier.4", silent("classifier.1"), INT8
    ),
    "documents-gpt": Trap(
        NextCharacter,
        "benchmarks.traps:texts",
        "gpt.blocks.2.contract",
        silent("gpt.blocks.2.expand"),
        INT8,
        metric="agreement",
    ),
    "convolutional": Trap(
        zoo.convolutional,
        "benchmarks.zoo:images",
        "blocks.1.conv1",
        _silent_in_block,
        ("int8-static", "int8-weight-only"),
        "benchmarks.zoo:training_images",
    ),
    "attention": Trap(zoo.attention, "benchmarks.zoo:images", "blocks.0.narrow", silent("blocks.0.wide"), INT8),
    "recurrent": Trap(zoo.recurrent, "example_project.speech:test_data", "head", _silent_in_lstm, INT8),
    "plain": Trap(zoo.plain, "benchmarks.zoo:images", "3", silent("1"), INT8),
}


def planted(name: str) -> nn.Module:
    trap = TRAPS[name]
    model = copy.deepcopy(trap.load())  # those of the zoo are kept
    with torch.no_grad():
        trap.silence(model)
        model.get_submodule(trap.layer).get_parameter("weight")[:, UNIT] = LARGE
    return model.eval()


def __getattr__(name: str) -> Callable[[], nn.Module]:
    """`planted_digits_vit` and so on: the factories that a budgets file names."""
    key = name.removeprefix("planted_").replace("_", "-")
    if not name.startswith("planted_") or key not in TRAPS:
        raise AttributeError(name)
    return lambda: planted(key)


# --- what explore makes of it ----------------------------------------------------------------------------------------


def run(name: str, seed: int, path: Path) -> None:
    """Explore each recipe alone on the planted model, keep what it found, and print what is known of all models."""
    trap, store = TRAPS[name], Store(path)
    done = {(row["model"], row["recipe"]) for row in store.of_kind("trap")}
    store.begin({"limit": LIMIT, "large": LARGE, "seed": seed})
    keys = {"data": trap.data, "calibration": trap.calibration, "metric": trap.metric}
    lines = [f"    {key}: {value}" for key, value in keys.items() if value]
    factory = f"benchmarks.traps:planted_{name.replace('-', '_')}"
    text = "\n".join(
        ["version: 1", "models:", f"  {name}:", f"    factory: {factory}", *lines, "    recipes: {bf16: }"]
    )
    budgets = loaded(f"{text}\n", REPOSITORY / "explore-benchmark.yaml", REPOSITORY)
    limit = Limit("max_accuracy_drop", parse_value("max_accuracy_drop", LIMIT), LIMIT, "error", "benchmark", 1)
    settings = Options(budgets.path, False, None, False, None, None)
    gauge = GateGauge(budgets, budgets.models[0], (limit,), "size", Watch(float("inf")), settings, seed)
    try:
        gauge.look()
        for recipe in (each for each in trap.recipes if (name, each) not in done):
            store.append({"kind": "trap", "model": name, "layer": trap.layer, **_explored(gauge, recipe)})
    finally:
        gauge.close()
        show(store)


def _explored(gauge: GateGauge, text: str) -> Row:
    recipe, forgotten = parse(text), Cache(Path(), "")
    search = Search([recipe], gauge.limits, gauge.aim, gauge, Forgetful(), mix=Mixing(gauge, forgotten))
    search.run()
    with gauge.layer_trials(recipe) as trials:
        found = Sensitivity(recipe, forgotten, trials.groups)
        found.measure(trials)
        ranked = found.told(gauge.model.name, unit_interval=True).ranked
    worst = [(cost.group.name, round(cost.harm, 4)) for cost in ranked if not cost.why][:2]
    best = next(iter(search.holding), None)
    return {
        "recipe": text,
        "plain_drop": _drop(search.trials[0].case),
        "worst": worst,
        "found": str(best.recipe) if best is not None else "",
        "drop": _drop(best.case) if best is not None else None,
    }


def _drop(case: Case | None) -> float | None:
    return None if case is None else case.drop


def show(store: Store) -> None:
    rows = []
    for row in store.of_kind("trap"):
        (first, harm), *others = row["worst"]
        rows.append(
            (
                row["model"],
                row["recipe"],
                row["layer"],
                _points(row["plain_drop"]),
                f"{first} ({harm:.1%})",
                ", ".join(f"{name} ({each:.1%})" for name, each in others),
                row["found"],
                _points(row["drop"]),
                "yes" if first == row["layer"] and row["layer"] in _kept(row["found"]) else "no",
            )
        )
    headers = ("model", "recipe", "trap", "drop", "worst layer", "the next", "explore keeps", "drop then", "found")
    print(tabulate(rows, headers))


def _kept(recipe: str) -> list[str]:
    return [name for step in parse(recipe).steps for name in getattr(step, "keep", "").split(",")] if recipe else []


def _points(drop: float | None) -> str:
    return "-" if drop is None else f"{100 * drop:.2f} pp"
