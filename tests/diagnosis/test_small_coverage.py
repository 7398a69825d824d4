"""It changed less than it says: each fault is planted by hand and found, alone, with its numbers and the way out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_modelopt.results.measurement import Coverage, LayerCoverage, RecipeStep
from tests.diagnosis.cases_by_hand import LAYERS, only, original_with, rules, sound, variant_with
from tests.reporting.records_by_hand import ENVIRONMENT, MIB, limit

COSTS = ("memory", "process_memory", "size", "timing")


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    assert rules(sound()) == []


def test_masks_alone() -> None:
    finding = only(variant_with(masked_weights=3, mask_bytes=2 * MIB))
    assert (finding.rule, finding.explains, finding.is_note) == ("masks-only", COSTS, True)
    assert finding.text.startswith("3 weights are kept whole beside a mask (2 MiB of masks)")
    assert "prune.remove" in finding.text


def test_dense_zeros_change_no_cost() -> None:
    finding = only(variant_with("prune-unstructured(ratio=0.5)", zero_weights=500))
    assert (finding.rule, finding.explains, finding.is_note) == ("dense-zeros", COSTS, False)
    assert finding.text.startswith("50% of the weights in Linear layers and convolutions are zero")
    assert "0% fewer operations" in finding.text
    assert "prune-structured" in finding.text


def test_zeros_that_were_there_before_or_whose_shapes_changed_are_none_of_the_recipes() -> None:
    assert rules(original_with(variant_with(zero_weights=500), zero_weights=450)) == []
    assert rules(variant_with(zero_weights=250, matrix_weights=500)) == []
    assert rules(variant_with(zero_weights=None)) == []


def convolutions(recipe: str = "int8-dynamic") -> Coverage:
    """A CNN of which dynamic quantization reaches the head only: 4 KiB of 1 MiB + 4 KiB, 10 of 1000 multiply-adds."""
    layers = (
        *(LayerCoverage(f"block.{n}", "Conv2d", MIB // 2, 0, 495, 0) for n in range(2)),
        LayerCoverage("norm", "BatchNorm2d", 64, 0),
        LayerCoverage("head", "Linear", 4096, 4096, 10, 10),
    )
    return Coverage(layers, (RecipeStep(recipe, 4096, MIB + 4160),))


def test_types_that_hold_the_model_and_were_left_alone_are_named_with_the_recipes_that_change_them() -> None:
    finding = only(sound(coverage=convolutions()))
    assert (finding.rule, finding.explains) == ("left-alone", (*COSTS, "coverage"))
    assert finding.text.startswith(
        "2 Conv2d (1 MiB, 99.6% of the weight bytes, 99% of the multiply-adds) were left as in the original: "
        "int8-dynamic changes "
    )
    assert "Linear" in finding.text
    assert "Conv2d is changed by " in finding.text
    assert "int8-static" in finding.text
    assert "BatchNorm2d" not in finding.text


def test_what_the_recipe_can_change_but_did_not_is_for_its_own_notes() -> None:
    assert rules(sound("int8-static", coverage=convolutions("int8-static"))) == []


def test_small_types_and_unknown_recipes_are_passed_over() -> None:
    small = (*LAYERS, LayerCoverage("c", "Conv2d", 4096, 0, 100, 0))
    assert rules(sound(layers=small)) == []
    assert rules(sound("somebodys-recipe", coverage=convolutions("somebodys-recipe"))) == []


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("MultiheadAttention", "in_proj_weight"),
        ("NonDynamicallyQuantizableLinear", "output projection"),
        ("MyLinear", "MyLinear is derived from Linear and was not taken as one"),
    ],
)
def test_types_that_look_like_linear_are_explained(kind: str, told: str) -> None:
    layers = (*LAYERS, LayerCoverage("x", kind, 4 * MIB, 0, 10, 0))
    finding = only(original_with(sound(layers=layers), derived_layers={"MyLinear": "Linear"}))
    assert finding.rule == "left-alone"
    assert f"1 {kind} (4 MiB, 50% of the weight bytes" in finding.text
    assert told in finding.text


def test_a_class_derived_from_a_known_layer_gets_the_advice_of_that_layer() -> None:
    def told(kind: str) -> str:
        layers = (*LAYERS, LayerCoverage("x", kind, 4 * MIB, 0, 10, 0))
        return only(original_with(sound(layers=layers), derived_layers={"SameConv": "Conv2d"})).text

    advice = told("Conv2d").partition("; Conv2d is changed by ")[2]
    assert advice.startswith("int8-static")
    assert told("SameConv").endswith(
        f" only; SameConv is derived from Conv2d: an exact nn.Conv2d is changed by {advice}"
    )


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        (
            "int8-dynamic",
            "MyLSTM is derived from LSTM, and recipes replace exact nn.LSTM only, since a subclass may compute "
            "something else: use nn.LSTM where its forward is the same",
        ),
        ("prune-structured", "MyLSTM is derived from LSTM: an exact nn.LSTM is changed by "),
    ],
)
def test_a_derived_layer_is_to_be_replaced_only_where_the_recipe_changes_its_base(recipe: str, told: str) -> None:
    layers = (*LAYERS, LayerCoverage("x", "MyLSTM", 4 * MIB, 0, 10, 0))
    text = only(original_with(sound(recipe, layers=layers), derived_layers={"MyLSTM": "LSTM"})).text
    assert f"; {told}" in text
    assert ("use nn.LSTM" in text) == (recipe == "int8-dynamic")


def test_a_speedup_that_the_changed_work_cannot_give() -> None:
    """10 of 1000 multiply-adds gone is 1.01x at most."""
    asked = sound(coverage=convolutions(), limits=(limit("min_speedup", 1.2, "1.2x"),))
    assert rules(asked) == ["left-alone", "little-work"]
    half = (LayerCoverage("a", "Linear", MIB, MIB, 500, 500), LayerCoverage("b", "Conv2d", MIB, MIB, 500, 0))
    finding = only(sound(layers=half, limits=(limit("min_speedup", 2.5, "2.5x"),)))
    assert (finding.rule, finding.explains) == ("little-work", ("timing",))
    assert "do 50% of the multiply-adds (100% of the weight bytes)" in finding.text
    assert "the speedup would be at most 2x; take" in finding.text
    assert rules(sound(layers=half, limits=(limit("min_speedup", 1.9, "1.9x"),))) == []
    assert rules(sound(layers=half)) == []


def test_simulated_quantization() -> None:
    finding = only(variant_with(fake_quantizers=4))
    assert (finding.rule, finding.explains, finding.is_note) == ("fake-quantization", COSTS, True)
    assert finding.text.startswith("4 modules only simulate quantization")
    assert rules(variant_with(fake_quantizers=4, packed_modules=2)) == []


def test_a_graph_that_nothing_lowers() -> None:
    finding = only(variant_with(quantize_nodes=12))
    assert (finding.rule, finding.is_note) == ("not-lowered", True)
    assert "12 times" in finding.text
    assert rules(variant_with("int8-dynamic", quantize_nodes=12, compiled=None)) == []
    assert "not-lowered" not in rules(variant_with(quantize_nodes=12, compiled=True))


def test_torchao_step_by_step() -> None:
    finding = only(variant_with(torchao_tensors=1))
    assert (finding.rule, finding.explains) == ("eager-torchao", ("timing",))
    assert finding.text.startswith("1 weight is a tensor of torchao")
    assert "eager-torchao" not in rules(variant_with(torchao_tensors=1, compiled=True))


@pytest.mark.parametrize(
    ("engine", "flags", "told"),
    [
        ("none", ("avx2", "avx512_vnni"), "is not set"),
        ("qnnpack", ("avx2", "avx512_vnni"), "is qnnpack, which is made for ARM"),
        ("x86", ("asimddp",), "is x86, which is made for x86"),
    ],
)
def test_an_engine_for_another_machine(engine: str, flags: tuple[str, ...], told: str) -> None:
    settings = {"quantized engine": engine}
    of = original_with(variant_with(packed_modules=2, settings=settings), settings=settings)
    finding = only(of, replace(ENVIRONMENT, cpu_flags=flags))
    assert (finding.rule, finding.explains) == ("engine", ("timing",))
    assert told in finding.text
    floats = original_with(variant_with(settings=settings), settings=settings)
    assert rules(floats, replace(ENVIRONMENT, cpu_flags=flags)) == []


def test_a_fitting_engine_says_nothing() -> None:
    assert rules(variant_with(packed_modules=2)) == []


def test_weights_that_were_tied() -> None:
    finding = only(variant_with(untied=("embed.weight = head.weight",), untied_bytes=12_800))
    assert (finding.rule, finding.explains) == ("untied", ("memory", "process_memory", "size"))
    assert finding.text.startswith("embed.weight = head.weight shared one storage in the original and no longer do")
    assert "12.5 KiB" in finding.text
