"""What is called is the project's function: its answers, its memory, what recipes see of it, and what goes wrong."""

from __future__ import annotations

import copy
import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd.profiler import profile

from pytest_modelopt.measuring.protocol import VariantError
from pytest_modelopt.measuring.worker.bench import Bench
from pytest_modelopt.measuring.worker.calls.part import Part
from pytest_modelopt.measuring.worker.files import size
from pytest_modelopt.results.metric import MetricSpec
from tests.measuring.called_models import NAME, called  # noqa: F401

Made = Callable[..., Bench]
PIPELINE = {"call": "answer", "optimize": "encoder"}


def by_hand() -> tuple[Any, Any]:
    """The project's module, and its reader with an encoder that torch has packed."""
    user: Any = importlib.import_module(NAME)
    packed = user.reader()
    packed.encoder = torch.ao.quantization.quantize_dynamic(  # type: ignore[no-untyped-call]
        copy.deepcopy(packed.encoder), {nn.Linear}
    )
    return user, packed


def peak_bytes(call: Callable[[], object]) -> int:
    """Of what torch's allocator gives out in one call, added up by hand."""
    call()
    with torch.inference_mode(), profile(profile_memory=True, use_kineto=True) as profiler:
        call()
    assert profiler.kineto_results is not None
    events = [(event.start_ns(), event.nbytes()) for event in profiler.kineto_results.events() if event.nbytes()]
    now = peak = 0
    for _, change in sorted(events):
        now += change
        peak = max(peak, now)
    return peak


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated")
def test_a_pipeline_is_measured_from_text_to_names_while_its_encoder_is_packed(called: Made) -> None:  # noqa: F811
    made = called("reader", "texts", "int8-dynamic", batch_size=3, **PIPELINE)
    user, packed = by_hand()
    texts, targets = user.texts()
    with torch.no_grad():
        expected = torch.cat([user.answer(packed, [text])["scores"] for text in texts]).argmax(1)
        whole = user.answer(packed, texts)["scores"].argmax(1)
    found = made.score()
    assert list(found.predictions or ()) == whole.tolist()
    assert found.score == pytest.approx(float((whole == targets).float().mean()))
    assert len(expected) == found.examples == 24
    memory = made.memory()
    assert memory.call_peak_bytes == peak_bytes(lambda: user.answer(packed, texts[:3]))
    assert made.size() == size.saved_bytes(packed), "neither the function nor what holds both"
    assert made.answer().values.tolist() == pytest.approx(user.answer(packed, texts[:3])["scores"].flatten().tolist())


def test_each_timed_call_is_one_call_of_the_function(called: Made) -> None:  # noqa: F811
    made = called("reader", "texts", batch_size=2, **PIPELINE)
    user: Any = importlib.import_module(NAME)
    counted = [0]
    tokenized = user.tokenized

    def counting(texts: Any) -> Any:
        counted[0] += 1
        assert texts == user.SAID[:2]
        return tokenized(texts)

    user.tokenized = counting
    assert made.prepare_timing().why_not == ""
    counted[0] = 0
    block = made.block()
    assert counted[0] >= block.calls > 0


def test_recipes_get_the_module_and_the_names_are_those_of_the_whole(called: Made) -> None:  # noqa: F811
    made = called("reader", "texts", **PIPELINE)
    made._variant = _with_recipe(made, "int8-dynamic")
    done = made.optimize()
    assert done.coverage is not None
    assert [(layer.name, layer.weight_bytes) for layer in done.coverage.layers] == [
        ("encoder.0", 64 * 256 * 4 + 256 * 4),
        ("encoder.2", 256 * 64 * 4 + 64 * 4),
    ]
    assert any("recipes change `encoder` only" in note for note in done.notes)
    assert not isinstance(made._alone.head, torch.ao.nn.quantized.dynamic.Linear)


def test_a_pipeline_that_is_no_module_is_saved_and_loaded_with_its_call(called: Made, tmp_path: Path) -> None:  # noqa: F811
    made = called("pipeline", "texts", "int8-dynamic", call="of_pipeline", optimize="net.encoder")
    assert type(made._alone).__name__ == "Pipeline"
    before = made.answer()
    made.save(str(tmp_path / "saved"))
    made.save_inputs(str(tmp_path / "inputs"))
    again = called("pipeline", "texts", call="of_pipeline", optimize="net.encoder")
    whole = again.size()
    again.reload(str(tmp_path / "saved"), str(tmp_path / "inputs"))
    assert again.answer().is_like(before)
    assert made.size() == again.size() < whole / 2


def test_a_part_is_trained_on_what_it_gets_with_the_targets_of_the_whole_call(called: Made) -> None:  # noqa: F811
    """The function gets the module that the recipe has changed."""
    recipe = "low-rank(ratio=0.9{})"
    fields = {**PIPELINE, "calibration": f"{NAME}:held_out"}

    def apart(made: Bench) -> float:
        user: Any = importlib.import_module(NAME)
        with torch.no_grad():
            embedded = user.reader().embed(user.tokenized(user.held_out()[0]))
            return float((made._alone.encoder(embedded) - user.reader().encoder(embedded)).square().mean())

    plain = apart(called("reader", "texts", recipe.format(""), **fields))
    trained = called("reader", "texts", recipe.format(f", finetune='{NAME}:distill'"), **fields)
    assert apart(trained) < plain / 2
    user: Any = importlib.import_module(NAME)
    said, targets = user.held_out()
    assert user.distill.seen == ((len(said), 4, 64), targets.tolist())


def test_modules_in_slots_are_modules_of_a_pipeline(called: Made) -> None:  # noqa: F811
    made = called("slotted", "texts", call="of_pipeline", optimize="net.encoder")
    assert not made._alone.net.training
    made._variant = _with_recipe(made, "int8-weight-only")
    done = made.optimize()
    assert any("recipes change `net.encoder` only (129 KiB of 134 KiB of the weights)" in note for note in done.notes)
    new = nn.Identity()
    Part(made.model, "net.encoder").put(new, made._call_inputs(), "hand")
    assert made._alone.net.encoder is new


def test_texts_that_are_answered_from_a_cache_are_not_measured(called: Made) -> None:  # noqa: F811
    made = called("reader", "texts", call="from_cache", optimize="encoder", batch_size=2)
    with pytest.raises(VariantError, match=r"^its calls take no memory: the model recognizes inputs by their content"):
        made.memory()
    for _ in range(2):  # however often it is asked
        assert made.prepare_timing().why_not.startswith("recognizes inputs by their content, and answers from a cache")
    made._variant = _with_recipe(made, "int8-dynamic")
    with pytest.raises(VariantError, match="a call reaches no module at all, as where it answers from a cache"):
        made.optimize()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"call": "answer", "optimize": "encodr"}, "the model has no `encodr`; did you mean `encoder`?"),
        ({"call": "answer", "optimize": "training"}, "`optimize: training` is a bool, not a torch.nn.Module; modules"),
        ({"call": "answer"}, "the call never calls the model itself, so the inputs that recipes need are not known"),
        ({"call": "raises", "optimize": "encoder"}, "`call` called_user:raises raised TypeError"),
        ({"call": "raises", "optimize": "encoder"}, "(called_user.py:"),
        ({"call": "nothing"}, "call `called_user:nothing`: `called_user` has no `nothing`"),
    ],
)
def test_what_goes_wrong_is_said_in_words(called: Made, fields: dict[str, str], told: str) -> None:  # noqa: F811
    with pytest.raises(VariantError, match=re.escape(told)):
        called("reader", "texts", "int8-dynamic", **fields)


def test_gradients_of_a_part_need_targets_of_its_own(called: Made) -> None:  # noqa: F811
    pytest.importorskip("torch_pruning")
    recipe = "prune-structured(ratio=0.3, importance=taylor)"
    with pytest.raises(VariantError, match="belong to the answer of the whole call: use importance=magnitude"):
        called("reader", "texts", recipe, calibration=f"{NAME}:held_out", **PIPELINE)


def test_an_object_without_optimize_is_refused(called: Made) -> None:  # noqa: F811
    with pytest.raises(VariantError, match=r"not a torch.nn.Module \(it holds `net`: name by `call:` a function"):
        called("pipeline", "texts")
    with pytest.raises(VariantError, match=r"returned a Pipeline, not a torch.nn.Module .* `optimize:` must name"):
        called("pipeline", "texts", call="of_pipeline")


def test_a_list_of_images_is_one_argument_and_each_image_an_example(called: Made) -> None:  # noqa: F811
    metric = MetricSpec(f"{NAME}:closeness", per_example=True, higher_is_better=True)
    made = called("detector", "images", metric=metric, batch_size=3)
    found = made.score()
    assert found.examples == 10
    assert found.score == pytest.approx(1.0, abs=1e-5)
    user: Any = importlib.import_module(NAME)
    images, _ = user.images()
    assert [image.shape for image in made._first_inputs()] == [image.shape for image in images[:3]]
    assert made.memory().call_peak_bytes == peak_bytes(lambda: made.model(list(images[:3])))
    made._variant = _with_recipe(made, "onnxruntime")
    with pytest.raises(VariantError, match=r"onnxruntime takes calls with tensors only, .* `argument 1` is a list"):
        made.optimize()


def test_a_batch_with_offsets_is_used_whole_and_a_note_says_so(called: Made) -> None:  # noqa: F811
    made = called("bags", "bagged", "int8-dynamic")
    assert made.score().examples == 11
    user: Any = importlib.import_module(NAME)
    (ids, offsets), _ = next(user.bagged())
    for one, other in zip(made._first_inputs(), (ids, offsets), strict=True):
        assert torch.equal(one, other)
    original = called("bags", "bagged")
    shape = original.load().called
    assert shape is not None
    notes = shape.notes
    assert any("the timed call has the whole first one, of 4" in note for note in notes), notes


@pytest.mark.parametrize(("model", "data"), [("asking", "asked"), ("collated_model", "collated")])
def test_a_dataclass_and_a_collator_batch_come_as_they_were_given(called: Made, model: str, data: str) -> None:  # noqa: F811
    found = called(model, data, batch_size=2).score()
    assert (found.examples, found.score) == (8, 1.0)


def _with_recipe(bench: Bench, recipe: str) -> Any:
    from dataclasses import replace

    from pytest_modelopt.optimizing.expression import parse

    return replace(bench._variant, recipe=parse(recipe))
