"""A decoder of transformers, against its own `generate` and its own forward pass."""

from __future__ import annotations

import inspect
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pytest_modelopt.measuring.protocol import VariantError
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.measuring.worker.bench import Bench
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.optimizing.runtimes.exported_step_module import ExportedStep
from pytest_modelopt.results.generation import Generation
from pytest_modelopt.results.metric import MetricSpec
from tests.measuring import generating

transformers: Any = pytest.importorskip("transformers")
pytestmark = pytest.mark.runtime

PROMPT, NEW, LAYERS, WIDTH = 12, 8, 2, 32
IDS = generating.data()[:, : PROMPT + NEW]


def gpt2() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=generating.VOCABULARY, n_positions=24, n_embd=WIDTH, n_layer=LAYERS, n_head=4, bos_token_id=0
    )
    model: nn.Module = transformers.GPT2LMHeadModel(config).eval()
    model.generation_config.eos_token_id = None  # type: ignore[union-attr]
    model.generation_config.do_sample = True  # type: ignore[union-attr]
    return model


def t5() -> nn.Module:
    config = transformers.T5Config(vocab_size=50, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=4)
    model: nn.Module = transformers.T5ForConditionalGeneration(config).eval()
    return model


def step_with_encoder(model: Any, ids: torch.Tensor, cache: Any) -> Any:
    """The prompt goes to the encoder, whose answer stands in the cache; the first token of the text is 0."""
    encoded, kept = (model.encoder(ids)[0], None) if cache is None else cache
    ids = torch.zeros_like(ids[:, :1]) if cache is None else ids
    names = inspect.signature(model.forward).parameters
    given = {"cache" if "cache" in names else "past_key_values": kept}
    output = model(encoder_outputs=(encoded,), decoder_input_ids=ids, use_cache=True, **given)
    return output.logits, (encoded, output.past_key_values)


def bench(model: str = "gpt2", recipe: str | None = None, new_tokens: int = NEW, step: str | None = None) -> Bench:
    variant = Variant(
        model=f"{__name__}:{model}",
        recipe=parse(recipe) if recipe else None,
        data=f"{generating.__name__}:data",
        calibration=None,
        example_inputs=None,
        metric=MetricSpec("perplexity"),
        import_paths=tuple(sys.path),
        working_directory=str(Path.cwd()),
        batch_size=2,
        generation=Generation(new_tokens, PROMPT, step),
    )
    made = Bench(variant)
    notes = made.load().notes
    if recipe is None and model == "gpt2":
        assert notes[0].startswith("the model is set to sample (`do_sample`), and generates greedily here")
    if recipe is not None:
        made.optimize()
    return made


def test_the_tokens_are_those_of_generate() -> None:
    model: Any = gpt2()
    expected = model.generate(
        IDS[:2, :PROMPT], do_sample=False, min_new_tokens=NEW, max_new_tokens=NEW, pad_token_id=0, eos_token_id=None
    )
    inputs: Any = bench()._call_inputs()
    assert torch.equal(inputs, expected)


def test_perplexity_is_that_of_one_forward_pass() -> None:
    model: Any = gpt2()
    with torch.inference_mode():
        log = model(IDS).logits[:, PROMPT - 1 : -1].double().log_softmax(dim=-1)
    losses = -log.gather(2, IDS[:, PROMPT:, None])
    assert bench().score().score == pytest.approx(math.exp(float(losses.mean())), rel=1e-5)


@pytest.mark.parametrize(("recipe", "of_number"), [(None, 4), ("bf16", 2)])
def test_the_cache_is_counted_in_the_form_in_which_the_model_keeps_it(recipe: str | None, of_number: int) -> None:
    memory = bench(recipe=recipe).memory()
    assert memory.call is not None
    assert memory.call.cache_bytes == 2 * LAYERS * 2 * (PROMPT + NEW) * WIDTH * of_number


def test_a_step_is_exported_once_with_its_cache_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One program makes the prompt, too, with an empty cache; int8 changes little of so small a model."""
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    made = bench(recipe="onnxruntime-int8-dynamic")
    assert isinstance(made.model, ExportedStep)
    assert list(made.model.programs()) == ["step"]
    assert not list(tmp_path.iterdir()), "ONNX Runtime leaves a file where its shape inference fails"
    with torch.inference_mode():
        log = gpt2()(IDS).logits[:, PROMPT - 1 : -1].double().log_softmax(dim=-1)
    losses = -log.gather(2, IDS[:, PROMPT:, None])
    assert made.score().score == pytest.approx(math.exp(float(losses.mean())), rel=0.01)


def test_recipes_take_a_model_with_an_encoder_as_its_step_calls_it() -> None:
    """Its forward does not run on the prompts alone."""
    original = bench("t5", step=f"{__name__}:step_with_encoder")
    packed = bench("t5", "int8-dynamic", step=f"{__name__}:step_with_encoder")
    kinds = {type(module) for name, module in packed.model.named_modules() if name.endswith("SelfAttention.q")}
    assert kinds == {torch.ao.nn.quantized.dynamic.Linear}
    assert packed.score().score == pytest.approx(original.score().score, rel=0.05)


def test_a_cache_is_not_the_next_calls() -> None:
    made = bench()
    assert made.prepare_timing(phases=("prefill", "decode")).why_not == ""
    first, second = (made.block("decode").calls for _ in range(2))
    assert first >= 1 <= second, "a cache that grew from call to call would be longer than the 24 positions"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            {"new_tokens": 28},
            r"= 40 tokens, and the model has 24 positions \(`config.max_position_embeddings`",
        ),
        ({"model": "t5"}, "T5ForConditionalGeneration has an encoder, whose answer its steps need: give a function"),
    ],
)
def test_what_cannot_be_called_says_why(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(VariantError, match=told):
        bench(**arguments)
