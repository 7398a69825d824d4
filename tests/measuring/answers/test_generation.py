"""A model that generates in its worker, each figure against a loop that is written by hand."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils import _pytree

from pytest_modelopt.measuring.controller.answer_comparison import compare_tokens
from pytest_modelopt.measuring.controller.runner import Runner, StepLimits
from pytest_modelopt.measuring.protocol import VariantError
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.measuring.worker.answers.generation_answers import Forced
from pytest_modelopt.measuring.worker.bench import Bench
from pytest_modelopt.measuring.worker.calls.generation import Step, TimedDecode
from pytest_modelopt.measuring.worker.memory.tensor_meter import call_peak_bytes
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.optimizing.runtimes.exported_step_module import ExportedStep
from pytest_modelopt.plugin.progress import Silent
from pytest_modelopt.results.case import PlannedCase
from pytest_modelopt.results.generation import Generation
from pytest_modelopt.results.metric import MetricSpec
from pytest_modelopt.results.workload import Workload
from tests.measuring import generating
from tests.measuring.generating import LAYERS, WIDTH, by_hand, continued_by_hand

pytestmark = pytest.mark.runtime

PROMPT, NEW = 12, 8
CONTEXT = PROMPT + NEW
IDS = generating.data()[:, :CONTEXT]
MODULE = generating.__name__
Make = Callable[..., Bench]


@pytest.fixture
def make() -> Iterator[Make]:
    """A loaded Bench in this process."""
    threads = torch.get_num_threads()

    def made(
        model: str = "gpt",
        data: str = "data",
        recipe: str | None = None,
        metric: str = "perplexity",
        prepare: str | None = None,
        new_tokens: int = NEW,
        step: str | None = None,
        batch_size: int = 2,
        calibration: str | None = None,
    ) -> Bench:
        variant = Variant(
            model=f"{MODULE}:{model}",
            recipe=parse(recipe) if recipe else None,
            data=f"{MODULE}:{data}",
            calibration=calibration,
            example_inputs=None,
            metric=MetricSpec(metric, prepare=prepare),
            import_paths=tuple(sys.path),
            working_directory=str(Path.cwd()),
            batch_size=batch_size,
            generation=Generation(new_tokens, PROMPT, step),
        )
        bench = Bench(variant)
        bench.load()
        if recipe is not None:
            bench.optimize()
        return bench

    yield made
    torch.set_num_threads(threads)


def held_bytes(value: Any) -> int:
    return sum(leaf.numel() * leaf.element_size() for leaf in _pytree.tree_leaves(value))


# --- the call --------------------------------------------------------------------------------------------------------


def test_the_steps_are_given_the_tokens_that_the_original_generates(make: Make) -> None:
    inputs: Any = make()._call_inputs()
    assert inputs.shape == (2, CONTEXT)
    assert torch.equal(inputs[:, :PROMPT], IDS[:2, :PROMPT])
    assert torch.equal(inputs[:, PROMPT:], continued_by_hand(generating.gpt(), IDS[:2, :PROMPT], NEW))


def test_recipes_see_one_forward_pass_of_the_prompts(make: Make) -> None:
    inputs: Any = make()._first_inputs()
    assert torch.equal(inputs, IDS[:2, :PROMPT])


def test_a_whole_call_answers_as_one_forward_pass_over_all_tokens(make: Make) -> None:
    bench = make()
    inputs: Any = bench._call_inputs()
    with torch.inference_mode():
        expected = generating.gpt()(inputs)[0][:, -1]
    assert torch.allclose(
        torch.tensor(bench.answer().values, dtype=torch.float64), expected.flatten().double(), atol=1e-4
    )


def test_each_timed_call_has_a_fresh_cache(make: Make) -> None:
    bench, lengths = make(), []

    def counted(model: Any, ids: torch.Tensor, cache: Any) -> Any:
        """Its cache is one object that grows, as those of transformers are."""
        cache = [] if cache is None else cache
        logits, kept = model(ids, cache[-1] if cache else None)
        cache.append(kept)
        lengths.append(kept[0][0].shape[2])
        return logits, cache

    ids: Any = bench._call_inputs()
    with torch.inference_mode():
        decode = TimedDecode(Step(bench.model, counted), ids, PROMPT)
        lengths.clear()
        call = decode.prepared(3)
        assert lengths == [], "caches are made before the clock starts, of one that is kept"
        for _ in range(3):
            call()
    assert lengths == 3 * list(range(PROMPT + 1, CONTEXT + 1))


def test_whole_call_prefill_and_decode_are_timed_apart(make: Make) -> None:
    bench = make(batch_size=1)
    steps: list[int] = []
    bench.model.register_forward_hook(lambda module, given, output: steps.append(given[0].shape[1]))
    assert bench.prepare_timing(phases=("prefill", "decode")).why_not == ""
    for call, expected in (("prefill", {PROMPT}), ("decode", {1}), ("whole", {1, PROMPT})):
        steps.clear()
        block = bench.block(call)  # type: ignore[arg-type]
        assert block.calls >= 1
        assert set(steps) == expected
    assert steps.count(1) == NEW * steps.count(PROMPT)
    assert bench.usage().threads == 1


# --- memory ----------------------------------------------------------------------------------------------------------


def test_the_cache_is_counted_to_the_byte_at_the_whole_context(make: Make) -> None:
    memory = make().memory()
    assert memory.call is not None
    key_and_value, of_float = 2, 4
    assert memory.call.cache_bytes == key_and_value * LAYERS * 2 * CONTEXT * WIDTH * of_float
    assert (memory.call.context, memory.call.sequences) == (CONTEXT, 2)


@pytest.mark.parametrize("recipe", [None, "int8-dynamic"])
def test_the_peaks_are_those_of_a_loop_by_hand(make: Make, recipe: str | None) -> None:
    bench = make(recipe=recipe)
    model, ids = bench.model, continued_ids()
    memory = bench.memory()
    assert memory.call is not None
    with torch.inference_mode():
        _, before = loop_by_hand(model, ids[:, :-1])
        peaks = [
            call_peak_bytes(lambda: loop_by_hand(model, ids)),
            call_peak_bytes(lambda: model(ids[:, :PROMPT], None)),
            call_peak_bytes(lambda: model(ids[:, -1:], before)),
        ]
        _, cache = loop_by_hand(model, ids)
    assert [memory.call_peak_bytes, memory.call.prefill_peak_bytes, memory.call.step_peak_bytes] == peaks
    assert memory.call.cache_bytes == held_bytes(cache)


def continued_ids() -> torch.Tensor:
    """Of the measured call, which starts with two prompts."""
    prompts = IDS[:2, :PROMPT]
    return torch.cat([prompts, continued_by_hand(generating.gpt(), prompts, NEW)], dim=1)


def loop_by_hand(model: Any, ids: torch.Tensor) -> Any:
    """The last logits, and the cache of all tokens."""
    logits, cache = model(ids[:, :PROMPT], None)
    for at in range(PROMPT, ids.shape[1]):
        logits, cache = model(ids[:, at : at + 1], cache)
    return logits, cache


def test_the_peak_is_that_of_prompt_and_steps_with_the_cache_in_it(make: Make) -> None:
    memory = make().memory()
    assert memory.call is not None
    assert memory.call_peak_bytes is not None
    assert memory.call.prefill_peak_bytes is not None
    assert memory.call.step_peak_bytes is not None
    cache = held_bytes(by_hand(generating.gpt(), IDS[:2], PROMPT).cache)
    assert memory.call.cache_bytes == cache
    one_token, prompt_cache = cache // CONTEXT, cache * PROMPT // CONTEXT
    assert memory.call.prefill_peak_bytes > prompt_cache
    assert memory.call.step_peak_bytes >= cache, "a new cache is made beside the old one"
    assert memory.call_peak_bytes >= max(memory.call.prefill_peak_bytes, 2 * cache - one_token)


# --- answers ---------------------------------------------------------------------------------------------------------


def test_perplexity_flips_and_divergence_are_those_of_a_loop_by_hand(make: Make, tmp_path: Path) -> None:
    original, variant = make(), make(recipe="int8-dynamic")
    before = original.score(keep=str(tmp_path / "kept"))
    after = variant.score(reference=str(tmp_path / "kept"))
    hands = [by_hand(bench.model, IDS, PROMPT) for bench in (original, variant)]
    for answers, hand in zip((before, after), hands, strict=True):
        assert answers.score == pytest.approx(math.exp(float(hand.losses.double().mean())), rel=1e-5)
        assert answers.examples == 20
        assert answers.summands is not None
        assert list(answers.summands) == pytest.approx(hand.losses.double().mean(dim=1).tolist(), rel=1e-5)
    found = compare_tokens(before, after)
    assert found is not None
    changed = (hands[0].top != hands[1].top).sum(dim=1)
    assert (found.sequences, found.positions) == (20, NEW)
    assert found.flips == int(changed.sum()) > 0
    assert found.squares == int(changed.square().sum())
    log_p, log_q = (hand.log_probabilities.double() for hand in hands)
    divergence = (log_p.exp() * (log_p - log_q)).sum(dim=-1)
    assert found.divergence is not None
    assert found.divergence.mean == pytest.approx(float(divergence.mean()), rel=1e-3)
    assert found.divergence.largest == pytest.approx(float(divergence.max()), rel=1e-3)
    assert found.divergence.positions == 20 * NEW


def test_the_interval_of_a_drop_is_by_sequence(make: Make) -> None:
    original, variant = make(), make(recipe="int8-dynamic")
    before, after = original.score(), variant.score()
    assert before.summands is not None
    assert after.summands is not None
    interval: Any = variant.interval(before.summands, after.summands, after.width)
    drawn = torch.randint(20, (4000, 20), generator=torch.Generator().manual_seed(7))
    was, now = (torch.tensor(side.summands, dtype=torch.float64)[drawn].mean(dim=1).exp() for side in (before, after))
    low, high = torch.quantile(now - was, torch.tensor([0.05, 0.95], dtype=torch.float64)).tolist()
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.15 * (high - low))


def test_a_metric_of_text_is_given_what_the_model_writes_by_itself(make: Make) -> None:
    answers = make(metric=f"{__name__}:share_as_by_hand").score()
    assert answers.score == 1.0
    assert answers.tokens is not None, "flips are known whatever is scored"


def share_as_by_hand(outputs: Any, targets: Any) -> float:
    assert torch.equal(targets, IDS[:, PROMPT:]), "without targets the data's own tokens stand beside what is written"
    expected = continued_by_hand(generating.gpt(), IDS[:, :PROMPT], NEW)
    return float((outputs == expected).double().mean())


share_as_by_hand.higher_is_better = True  # type: ignore[attr-defined]


def test_the_targets_of_the_data_go_to_a_metric_of_text(make: Make) -> None:
    assert make(data="texts", metric=f"{__name__}:number_of_targets").score().score == 20


def number_of_targets(outputs: Any, targets: Any) -> float:
    return float(targets.count("a") if outputs.shape == (20, NEW) else -1)


number_of_targets.higher_is_better = True  # type: ignore[attr-defined]


def test_a_function_of_the_project_makes_the_steps(make: Make) -> None:
    by_function = make("streaming", step=f"{MODULE}:step")
    by_forward = make()
    assert by_function.score().score == by_forward.score().score
    assert by_function.memory().call == by_forward.memory().call


def test_what_was_saved_generates_in_another_process(make: Make, tmp_path: Path) -> None:
    bench = make(recipe="int8-dynamic")
    for save, name in ((bench.save, "model"), (bench.save_inputs, "inputs")):
        save(str(tmp_path / name))
    again = Bench(bench._variant)
    again.reload(str(tmp_path / "model"), str(tmp_path / "inputs"))
    assert again.answer().is_like(bench.answer())
    assert torch.equal(again._call_inputs(), bench._call_inputs())


# --- what cannot be measured -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            {"model": "classifier"},
            "Sequential does not generate: .* needs a module of transformers with `generate`, one",
        ),
        ({"model": "streaming"}, "Streaming does not generate: .* as `step`"),
        ({"model": "no_tuple"}, r"one step returned a Tensor, not \(logits, cache\)"),
        ({"model": "short"}, r"12 \+ 8 = 20 tokens, and the model has 16 positions \(`block_size`\)"),
        ({"new_tokens": 28, "model": "short"}, r"12 \+ 28 = 40 tokens, and the model has 16 positions"),
        ({"new_tokens": 29}, r"sequence 0 of the data has 40 tokens, and prompt \+ new_tokens are 12 \+ 29 = 41"),
        ({"data": "unknown_ids"}, r"from 5\d to 9\d without a cache: IndexError.*rows of its embeddings: tokens 50"),
        ({"step": f"{MODULE}:VOCABULARY"}, f"step `{MODULE}:VOCABULARY` is a int, not a function"),
    ],
)
def test_what_cannot_generate_says_why(make: Make, arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(VariantError, match=told):
        make(**arguments)


def test_an_id_that_the_model_does_not_know_is_told_when_it_is_scored(make: Make) -> None:
    with pytest.raises(VariantError, match="the data holds the id 50, and the model gives logits of 50 tokens"):
        make(data="unknown_new_ids").score()


def test_a_model_that_is_set_to_sample_generates_greedily_and_says_so(make: Make) -> None:
    bench = make("sampling")
    (note,) = Bench(bench._variant).load().notes
    assert note.startswith("the model is set to sample (`do_sample`) and to search 4 beams (`num_beams`)")


@pytest.mark.parametrize(
    ("recipe", "model", "step", "files"),
    [
        ("onnxruntime", "nested", None, [".prompt.onnx", ".step.onnx"]),
        ("openvino", "streaming", f"{MODULE}:step", [".step.xml", ".step.bin"]),
    ],
)
def test_an_exported_step_takes_and_gives_the_cache(
    make: Make, tmp_path: Path, recipe: str, model: str, step: str | None, files: list[str]
) -> None:
    """For more sequences than it was traced with, caches of each length from none or the prompt's on; its files too."""
    if missing := parse(recipe).steps[0].missing():
        pytest.skip(missing)
    bench = make(model, recipe=recipe, step=step)
    made = bench.model
    assert isinstance(made, ExportedStep)
    assert list(made.parts()) == files
    original = getattr(generating, model)()
    hand = by_hand(original if step is None else original.inner, IDS, PROMPT)
    found = Forced(Step(made), Generation(NEW, PROMPT))(IDS)
    assert torch.allclose(found["losses"].float(), hand.losses, atol=1e-4)
    assert torch.equal(found["most_probable"], hand.top)
    memory = bench.memory().call
    assert memory is not None
    layers = len(original.inner.blocks if step else original.blocks)
    assert memory.cache_bytes == 2 * layers * 2 * CONTEXT * WIDTH * 4
    for save, name in ((bench.save, "model"), (bench.save_inputs, "inputs")):
        save(str(tmp_path / name))
    again = Bench(bench._variant)
    again.reload(str(tmp_path / "model"), str(tmp_path / "inputs"))
    assert again.answer().is_like(bench.answer())
    assert again.answer().is_like(bench.answer()), "no call has a cache of the one before it"


@pytest.mark.parametrize(
    ("model", "recipe", "told"),
    [
        ("counting", "onnxruntime", r"a value that is no tensor and changes with the step \(from 12 to 13\)"),
        ("tokens_first", "openvino", r"a tensor of shape \(12, 2, 4, 8\) whose first dimension is not that of 2 seq"),
        ("growing", "onnxruntime", "this cache holds 2 tensors after the prompt and 4 one token later"),
        ("gpt", "litert", "litert converts for fixed sizes, and the cache of a model that generates grows"),
    ],
)
def test_a_cache_that_no_program_takes_is_refused_at_once(make: Make, model: str, recipe: str, told: str) -> None:
    if missing := parse(recipe).steps[0].missing():
        pytest.skip(missing)
    with pytest.raises(VariantError, match=told):
        make(model, recipe=recipe)


def test_a_part_of_a_model_that_generates_is_not_exported(make: Make) -> None:
    bench = make()
    recipe = parse("onnxruntime")
    bench._variant = replace(bench._variant, recipe=recipe, optimize="blocks")
    with pytest.raises(VariantError, match="`optimize: blocks` names a part of it, whose sizes differ from step to"):
        bench.optimize()


def test_a_recipe_trains_by_the_projects_function_on_whole_sequences(make: Make) -> None:
    finetune = f"low-rank(ratio=0.9, finetune='{MODULE}:train')"
    plain, trained = (
        make(recipe=recipe, calibration=f"{MODULE}:held_out").score().score
        for recipe in ("low-rank(ratio=0.9)", finetune)
    )
    assert plain is not None
    assert trained is not None
    assert trained < plain * 0.9, "a head that is sure of itself unlearns that on random tokens"


def test_a_recipe_that_loses_the_cache_is_told_as_its_doing(make: Make) -> None:
    with pytest.raises(VariantError, match=r"after bf16 the model no longer generates with a cache.*not \(logits"):
        make("forgetful", recipe="bf16")


# --- the project's own prompts, other operating points, loading ------------------------------------------------------


@pytest.mark.parametrize(("takes", "batch_size", "sequences"), [("all", 1, 3), ("first", 2, 2)])
def test_prompts_of_the_projects_own_are_taken_as_other_inputs_are(
    make: Make, takes: Any, batch_size: int, sequences: int
) -> None:
    bench = Bench(replace(make()._variant, example_inputs=f"{MODULE}:prompts", takes=takes, batch_size=batch_size))
    called = bench.load().called
    assert called is not None
    assert (called.batch_size, called.shapes) == (sequences, ((sequences, CONTEXT),))
    assert any("the call has the first 2 of the 3" in note for note in called.notes) == (takes == "first")


def test_prompts_and_a_batch_size_beside_them_agree(make: Make) -> None:
    bench = Bench(replace(make()._variant, example_inputs=f"{MODULE}:prompts", takes="exactly"))
    with pytest.raises(VariantError, match=r"`example_inputs` holds 3 sequences, and `batch_size`.* is 2"):
        bench.load()


def test_another_operating_point_has_a_cache_of_its_own(make: Make) -> None:
    points = (Workload("online", batch_size=1), Workload("night", batch_size=2))
    bench = Bench(replace(make()._variant, points=points, workload="online"))
    bench.load()
    found = []
    for point in points:
        called, _ = bench.move(point)
        memory = bench.memory().call
        assert memory is not None
        found.append((called.shapes, memory.sequences, memory.cache_bytes))
    (one, single, bytes_of_one), (two, both, bytes_of_both) = found
    assert (one, two) == (((1, CONTEXT),), ((2, CONTEXT),))
    assert (single, both) == (1, 2)
    assert bytes_of_both == 2 * bytes_of_one


def test_what_is_loaded_from_its_file_makes_the_whole_call(make: Make, tmp_path: Path) -> None:
    bench = make()
    model, inputs = str(tmp_path / "model.pt"), str(tmp_path / "inputs.pt")
    bench.save(model)
    bench.save_inputs(inputs)
    first = Bench(bench._variant).first_answer(model, inputs, None, compiles=False)
    assert bench.answer().is_like(first.answer)


def test_a_case_at_another_operating_point_tells_of_its_own_cache(make: Make) -> None:
    points = (Workload("online", batch_size=1), Workload("night", batch_size=2))
    runner = Runner(StepLimits(time_limit_s=0.001, step_limit_s=60), Silent())
    found = []
    try:
        for point in points:
            of = replace(make()._variant, points=points).at(point)
            planned = PlannedCase(id="id", model="m", recipe="original", limits=(), batch_size=point.batch_size)
            case = runner.measure_original(planned, of, lambda _samples, _call: False, is_timed=False)
            assert case.error is None
            assert case.reference is not None
            found.append(case.reference.call_memory)
    finally:
        runner.close()
    assert [memory and memory.sequences for memory in found] == [1, 2]
