"""The comparison is unfair: each fault is planted by hand and found, alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_modelopt.optimizing.quantization.bf16 import Bf16
from pytest_modelopt.optimizing.registry import RECIPES
from pytest_modelopt.results.answers import Repeat
from pytest_modelopt.results.case import ORIGINAL, Case
from pytest_modelopt.results.measurement import Coverage, RecipeStep
from pytest_modelopt.results.observations import ProviderSession
from pytest_modelopt.results.timed_pairs import WorkerUse
from tests.diagnosis.cases_by_hand import (
    LAYERS,
    SETTINGS,
    only,
    original_with,
    rules,
    sound,
    told,
    variant_with,
)
from tests.reporting.records_by_hand import ENVIRONMENT, MIB, QUIET, reference_changed, timing, variant_changed

OLD = replace(ENVIRONMENT, cpu="Old CPU", cpu_flags=("avx2",))


def test_modules_that_stay_in_training_mode() -> None:
    finding = only(variant_with(training_modules=3))
    assert (finding.rule, finding.is_note) == ("training-mode", True)
    assert finding.text.startswith("3 modules of the variant stayed in training mode")
    both = only(original_with(variant_with(training_modules=1), training_modules=1))
    assert both.text.startswith("1 module of the original and the variant stayed")


def test_answers_that_vary() -> None:
    finding = only(original_with(sound(), varies=True))
    assert (finding.rule, finding.explains, finding.is_note) == ("answers-vary", ("score", "predictions"), True)
    assert finding.text.startswith("the original answered the same inputs differently")
    assert finding.text.endswith("so scores and flips are partly chance")


def test_answers_that_vary_are_told_with_their_own_flips() -> None:
    """Also where the measured call repeats itself and only the evaluation data showed it."""
    of = reference_changed(sound(), score=0.9, repeat=Repeat(450, 0.88, 45))
    one = only(of)
    assert one.text.startswith("the original answered the same inputs differently")
    assert one.text.endswith(
        ": in a second pass over the same examples 45 of 450 predictions of the original changed (10%)"
    )
    both = only(variant_changed(of, score=23.5, repeat=Repeat(450, 24.25, None)))
    assert both.text.startswith("the original and the variant answered")
    assert both.text.endswith("of the original changed (10%) and the variant scored 24.25 after 23.5")


def test_only_one_is_compiled() -> None:
    finding = only(original_with(sound(), compiled=True))
    assert (finding.rule, finding.is_note) == ("unequal-footing", True)
    assert "the original is compiled and the variant runs step by step" in finding.text
    finding = only(variant_with("int8-weight-only + compile", compiled=True))
    assert "measure the recipe `compile` alone, too, to see what int8-weight-only gains" in finding.text


def test_compiling_as_the_recipe_is_what_was_asked_for() -> None:
    assert rules(variant_with("compile", compiled=True)) == []
    assert rules(original_with(variant_with(compiled=True), compiled=True)) == []
    assert rules(variant_with(compiled=None)) == []


def test_an_original_in_double_precision() -> None:
    finding = only(original_with(sound(), float_bytes={"float64": 8000, "float32": 400}))
    assert finding.rule == "unequal-footing"
    assert "float64" in finding.text
    doubles = {"float64": 8000}
    assert rules(original_with(variant_with(float_bytes=doubles), float_bytes=doubles)) == []


def test_preparation_and_the_calls_that_pay_it_off() -> None:
    """Blocks of 2 calls in 8 ms and of 1 call in 2 ms: 4 ms and 2 ms a call. 20 s pay off after 10,000 calls."""
    of = replace(variant_with("compile", compiled=True, first_call_s=0.1), timing=timing(variant_ns=2_000_000))
    assert of.variant is not None
    of = replace(of, variant=replace(of.variant, seconds={"optimize": 20.0}))
    finding = only(of)
    assert (finding.rule, finding.explains, finding.is_note) == ("preparation", ("timing",), True)
    assert "took 20 s, which pays off after 10000 calls" in finding.text
    slower = replace(of, timing=timing(variant_ns=5_000_000))
    assert "never pays back" in only(slower).text


def test_a_slow_first_call_is_preparation_whatever_made_it() -> None:
    of = replace(variant_with(first_call_s=3.0), timing=timing())
    assert rules(of) == ["preparation"]


def test_a_long_call_is_no_preparation() -> None:
    """Three seconds, where each later call takes one."""
    of = replace(variant_with(first_call_s=3.0), timing=timing(reference_ns=10**9, variant_ns=10**9))
    assert rules(of) == []


def test_making_a_variant_that_is_only_loaded_later_is_no_preparation() -> None:
    of = replace(sound(), timing=timing())
    assert of.variant is not None
    assert rules(replace(of, variant=replace(of.variant, seconds={"optimize": 20.0}))) == []


def test_graphs_that_were_compiled_while_blocks_were_timed() -> None:
    busy = replace(QUIET, variant=WorkerUse(1, 0.0, compilations=2))
    finding = only(sound(timing=timing(conditions=busy)))
    assert (finding.rule, finding.is_note) == ("compiled-while-timed", True)
    assert "made 2 graphs of the variant" in finding.text


CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
FELL_BACK = ProviderSession("ONNX Runtime", (CUDA, CPU), (CPU,))


def test_a_session_that_asked_for_a_gpu_and_got_the_cpu() -> None:
    finding = only(variant_with(sessions=(FELL_BACK, FELL_BACK)))
    assert (finding.rule, finding.is_note) == ("fell-back-to-cpu", True)
    assert finding.text == (
        f"the variant asked ONNX Runtime for {CUDA} and runs on {CPU}: its figures are those of the CPU, and not of "
        f"what ships with {CUDA}; gate it on a machine whose device and installed runtime have the provider, or name "
        "the CPU's alone where the CPU is meant"
    )
    assert rules(variant_with(sessions=())) == []
    assert rules(variant_with(sessions=(replace(FELL_BACK, got=(CUDA, CPU)),))) == []


def test_a_session_whose_gpu_runs_none_of_its_operators() -> None:
    idle = replace(FELL_BACK, got=(CUDA, CPU), operators={CPU: 9})
    assert "and runs on the CPU: it has the provider, which runs none" in only(variant_with(sessions=(idle,))).text


def test_both_sides_are_told_where_both_fell_back_and_the_original_alone_once() -> None:
    both = original_with(variant_with(sessions=(FELL_BACK,)), sessions=(FELL_BACK,))
    assert f"the original asked ONNX Runtime for {CUDA} and runs on {CPU}; the variant asked" in only(both).text
    alone = replace(both, recipe=ORIGINAL, variant=both.reference)
    assert [found.text.count("asked") for found in told(alone) if found.rule == "fell-back-to-cpu"] == [1]


def test_settings_of_the_process_that_the_recipe_changed() -> None:
    changed = SETTINGS | {"threads": "2", "inductor freezing": "True"}
    finding = only(variant_with(settings=changed))
    assert (finding.rule, finding.is_note) == ("settings-changed", True)
    assert "(inductor freezing default -> True, threads 1 -> 2)" in finding.text
    assert rules(variant_with(settings=None)) == []


def test_more_threads_than_cores() -> None:
    finding = only(sound(timing=replace(timing(), threads=4)))
    assert finding.rule == "threads-beyond-cores"
    assert "4 threads on 2 cores" in finding.text
    assert rules(sound(timing=replace(timing(), threads=2))) == []


def sized(*, weights: int, peak: int, size: int) -> Case:
    """The original: 4 MiB of weights, 4 MiB of the call, 4 MiB saved."""
    return variant_changed(sound(), weights_bytes=weights, call_peak_bytes=peak, size_bytes=size)


def test_a_smaller_file_is_not_a_smaller_peak() -> None:
    large = reference_changed(sized(weights=MIB, peak=7 * MIB, size=MIB), call_peak_bytes=7 * MIB, weights_bytes=MIB)
    finding = only(large)
    assert (finding.rule, finding.explains) == ("size-is-not-peak", ("memory",))
    assert finding.text.startswith(
        "the saved size fell by 75% and peak memory not at all: 87.5% of the variant's peak (7 MiB) are activations"
    )
    some = only(sized(weights=MIB, peak=6 * MIB, size=MIB))
    assert some.text.endswith(
        "peak memory by 12.5% only: beside its weights a call of the variant takes 6 MiB, and one of the original "
        "4 MiB: what the recipe put in needs more in a call"
    )


def test_two_copies_that_are_alive() -> None:
    finding = only(sized(weights=5 * MIB, peak=2 * MIB, size=MIB))
    assert "it keeps 5 MiB of weights though 1 MiB are saved: a second copy is alive" in finding.text


def test_tables_that_neither_of_both_saves_are_no_second_copy() -> None:
    """A cache of 32 MiB beside a file of 80 KiB, before as after."""
    made = sized(weights=32 * MIB, peak=MIB, size=MIB // 40)
    of = reference_changed(made, weights_bytes=32 * MIB, call_peak_bytes=MIB, size_bytes=MIB // 10)
    finding = only(of)
    assert finding.rule == "size-is-not-peak"
    assert "second copy" not in finding.text
    assert (
        "both hold numbers outside of what is saved, the variant 32 MiB beside a file of 25.6 KiB, the original 32 MiB"
        in (finding.text)
    )


def test_a_peak_that_fell_with_the_size_or_by_another_meter_says_nothing() -> None:
    assert rules(sized(weights=MIB, peak=3 * MIB, size=MIB)) == []
    foreign = sized(weights=MIB, peak=7 * MIB, size=MIB)
    assert rules(variant_changed(foreign, runtime="LiteRT")) == []


def test_int8_on_a_processor_without_its_instructions() -> None:
    finding = only(variant_with(packed_modules=2), OLD)
    assert (finding.rule, finding.explains, finding.is_note) == ("int8-without-vnni", ("timing",), False)
    assert finding.text.startswith("Old CPU has no instruction for int8 products")
    assert rules(sound("onnxruntime-int8-dynamic"), OLD) == ["int8-without-vnni"]
    assert rules(sound("prune-structured(ratio=0.5)+litert-int8(batches=2)"), OLD) == ["int8-without-vnni"]
    assert rules(sound("openvino-int8(weights_only=false, batches=2)"), OLD) == ["int8-without-vnni"]
    for without in (
        "low-rank(ratio=0.5)",
        "int8-weight-only",
        "torchao-int8-weight-only+compile",
        "int8-of-our-own",
        "openvino-int8(weights_only=true)",
        "prune-structured(ratio=0.5)+openvino-int8(weights_only=true, recurrent=true)",
        "litert-int8(activations=float)",
    ):
        assert rules(sound(without), OLD) == []
    assert rules(replace(sound(), device="cuda"), OLD) == []


def test_a_recipe_of_the_project_s_own_says_that_it_multiplies_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    class OfOurOwn(Bf16):
        recipe_name = "int8-of-our-own"
        int8_products = True

    monkeypatch.setitem(RECIPES, "int8-of-our-own", OfOurOwn)
    assert rules(sound("int8-of-our-own"), OLD) == ["int8-without-vnni"]


@pytest.mark.parametrize("flags", [("avx2", "avx_vnni"), ("avx2", "amx_int8"), ("asimddp",), ()])
def test_a_processor_that_has_them_or_of_which_nothing_is_known(flags: tuple[str, ...]) -> None:
    assert rules(sound(), replace(ENVIRONMENT, cpu_flags=flags)) == []
    assert rules(sound(), None) == []


def test_a_fused_path_that_only_the_original_takes() -> None:
    finding = only(original_with(sound(), fused_layers=2))
    assert finding.rule == "fused-path"
    assert (
        "runs 2 TransformerEncoderLayers through torch's fused path for eval mode and the variant none" in finding.text
    )
    told = Coverage(LAYERS, (RecipeStep("r", 1, 1, ("the original runs 2 layers through torch's fused eval path",)),))
    assert rules(original_with(sound(coverage=told), fused_layers=2)) == [], "the recipe has said it"
    assert "fused-path" not in rules(original_with(variant_with(compiled=True, fused_layers=0), fused_layers=2))
    assert rules(original_with(variant_with(fused_layers=None), fused_layers=2)) == []
