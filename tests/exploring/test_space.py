"""The space: what is tried in which order, and what cannot pay, before anything is tried."""

from __future__ import annotations

import pytest

from pytest_modelopt.exploring.makeup_text import lines
from pytest_modelopt.exploring.space import Space, explored, runnable, too_small, worth_trying
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.results.measurement import LayerCoverage
from tests.reporting.records_by_hand import measurement

CONVOLUTIONS = (
    LayerCoverage("body.0", "Conv2d", 900, 0, 8000),
    LayerCoverage("body.1", "MyConv", 60, 0, 1500),
    LayerCoverage("head", "Linear", 40, 0, 500),
)
DERIVED = {"MyConv": "Conv2d"}


def test_chains_come_after_the_steps_that_they_are_made_of() -> None:
    order = [parse(text) for text in explored()]
    assert len({each.text for each in order}) == len(order)
    alone = [each.steps[0].recipe_name if len(each.steps) == 1 else "" for each in order]
    for place, chain in enumerate(order):
        names = {step.recipe_name for step in chain.steps}
        assert len(names) == 1 or names & set(alone) <= set(alone[:place])


def test_what_cannot_run_here_is_told_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    from pytest_modelopt.optimizing.registry import RECIPES

    monkeypatch.setattr(RECIPES["onnxruntime"], "requires", ("absent_module",))
    space = runnable(("int8-static", "onnxruntime", "int8-dynamic", "int8-dynamic()"), "cpu", has_calibration=False)
    assert [str(each) for each in space.recipes] == ["int8-dynamic"]
    why = dict(space.impossible)
    assert why["int8-static"] == "there is no --calibration"
    assert "onnxruntime needs absent_module" in why["onnxruntime"]


def test_a_recipe_whose_layers_are_a_small_part_cannot_pay() -> None:
    """Linear has 40 of 1000 bytes and 500 of 10,000 multiply-adds: without them a call takes 0.95 of the time."""
    assert too_small(parse("int8-dynamic"), CONVOLUTIONS, DERIVED) == (
        "the layers that it changes have 4% of the weights, and without them a call would be 1.05x as fast at the most"
    )
    assert too_small(parse("channels-last"), CONVOLUTIONS, DERIVED) == ""
    assert too_small(parse("onnxruntime"), CONVOLUTIONS, DERIVED) == ""  # takes the model as a whole
    assert too_small(parse("bf16"), CONVOLUTIONS, DERIVED) == ""  # says in words what it changes
    assert too_small(parse("prune-structured(ratio=0.3) + int8-dynamic"), CONVOLUTIONS, DERIVED) == ""
    assert (
        too_small(parse("int8-dynamic"), tuple(LayerCoverage(each.name, each.type, 9, 0) for each in CONVOLUTIONS), {})
        == ""
    )


def test_a_layer_counts_as_the_class_of_torch_that_it_is_derived_from() -> None:
    only_own = (LayerCoverage("a", "MyConv", 500, 0, 500), LayerCoverage("b", "Embedding", 500, 0, 500))
    assert too_small(parse("channels-last"), only_own, DERIVED) == ""
    space = worth_trying(Space((parse("channels-last"),)), only_own, DERIVED)
    assert [str(each) for each in space.recipes] == ["channels-last"]
    assert worth_trying(Space((parse("channels-last"),)), only_own[1:], {}).impossible == (
        ("channels-last", "the model has no layer that they change"),
    )


def test_the_makeup_tells_kinds_layers_and_where_memory_lies() -> None:
    original = measurement(None, weights=1000, peak=3000)
    told = list(
        lines("net", original, CONVOLUTIONS, worth_trying(Space((parse("int8-dynamic"),)), CONVOLUTIONS, DERIVED))
    )
    assert told[0] == "net: 1000 B of weights, 0.01 million multiply-adds a call"
    assert "  kind Conv2d: 90% of the weights, 80% of the multiply-adds" in told
    assert (
        "  memory of a call 3.91 KiB, mostly activations: 1000 B of weights, and up to 2.93 KiB that the call asks for"
        in told
    )
    assert told[-2] == "0 recipes can pay and are tried"
    assert told[-1].endswith("1.05x as fast at the most: int8-dynamic")


def test_the_makeup_tells_what_each_runtime_takes() -> None:
    recipes = ("onnxruntime", "onnxruntime-int8-dynamic", "int8-dynamic", "prune-structured + onnxruntime")
    layers = (*CONVOLUTIONS, LayerCoverage("norm", "LayerNorm", 1000, 0, 0))
    told = list(lines("net", measurement(None), layers, Space(tuple(map(parse, recipes))), DERIVED))
    assert [line for line in told if "onnxruntime" in line] == [  # of chains their steps say it
        "  onnxruntime takes the model as a whole, in float",
        "  onnxruntime-int8-dynamic changes Conv2d, Linear, MyConv: 50% of the weights",
    ]
