"""How budgets.yaml and tests say that a model generates, and what is wrong where they do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_modelopt.config.errors import parse_call
from pytest_modelopt.config.loader import BudgetsFile, load_budgets
from pytest_modelopt.config.problems import BudgetsError
from pytest_modelopt.results.generation import Generation
from pytest_modelopt.results.source import Carried

pytestmark = pytest.mark.unit

BUDGETS = """\
version: 1
models:
  writer:
    factory: shop.text:writer
    data: shop.text:sequences
    call: {generate: {new_tokens: 64, prompt: 512}}
    budget: {min_decode_speedup: 1.2x, max_flips: 2%, max_accuracy_drop: 0.1}
    original: {max_first_token_latency: 80 ms, max_cache_memory: 24 MiB}
    recipes: {int8-dynamic: {min_prefill_speedup: 1.1x}}
"""


def load(folder: Path, text: str) -> BudgetsFile:
    path = folder / "budgets.yaml"
    path.write_text(text, encoding="utf-8")
    return load_budgets(path, relative_to=folder)


def problems(folder: Path, old: str, new: str) -> list[str]:
    assert old in BUDGETS
    with pytest.raises(BudgetsError) as raised:
        load(folder, BUDGETS.replace(old, new))
    return [f"{problem.line}: {problem.message}" for problem in raised.value.problems]


def test_a_model_that_generates_is_scored_by_perplexity(tmp_path: Path) -> None:
    (model,) = load(tmp_path, BUDGETS).models
    assert model.generation == Generation(new_tokens=64, prompt=512)
    assert model.generation.context == 576
    assert model.metric.name == "perplexity"
    assert model.metric.known_direction is False


def test_its_step_may_be_a_function_and_its_metric_another_one(tmp_path: Path) -> None:
    text = BUDGETS.replace("prompt: 512", 'prompt: 512, step: "shop.text:step"')
    text = text.replace(
        "    budget", "    metric: {name: torchmetrics.text.ROUGEScore, prepare: 'shop.text:decode'}\n    budget"
    )
    (model,) = load(tmp_path, text).models
    assert model.generation == Generation(64, 512, "shop.text:step")
    assert model.metric.prepare == "shop.text:decode"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "new_tokens: 64",
            "new_tokens: 0",
            "6: new_tokens of generate of call of writer: 0 is not a number of tokens from 1",
        ),
        (
            "prompt: 512",
            "prompt: many",
            "6: prompt of generate of call of writer: 'many' is not a number of tokens from 1",
        ),
        (
            ", prompt: 512",
            "",
            "6: generate of call of writer has no `prompt`; add `prompt:` with the number of its tokens",
        ),
        ("prompt: 512", "prompt: 512, promt: 3", "unknown key 'promt'; did you mean 'prompt'?"),
        (
            "prompt: 512",
            "prompt: 512, step: step",
            "step of generate of call of writer: 'step' does not name a function",
        ),
        (
            "{generate: {new_tokens: 64, prompt: 512}}",
            "{generates: {}}",
            "there is no call 'generates'; did you mean 'generate'?",
        ),
        (
            "{generate: {new_tokens: 64, prompt: 512}}",
            "{generate: 64}",
            "`generate` needs `new_tokens` and `prompt`; write",
        ),
        (
            "    budget",
            "    metric: accuracy\n    budget",
            "7: metric of writer: `accuracy` scores one answer to each example, and a model that generates",
        ),
    ],
)
def test_a_mistake_has_its_line_and_a_way_out(tmp_path: Path, old: str, new: str, told: str) -> None:
    (problem,) = problems(tmp_path, old, new)
    assert told in problem


def test_limits_and_metrics_of_generation_need_the_call(tmp_path: Path) -> None:
    found = problems(tmp_path, "    call: {generate: {new_tokens: 64, prompt: 512}}\n", "    metric: perplexity\n")
    way_out = "add `call: {generate: {new_tokens: 64, prompt: 512}}` to the model"
    about = "is about models that generate"
    assert found == [
        f"6: metric of writer: `perplexity` is of models that generate; {way_out}",
        f"7: min_decode_speedup of writer {about}; {way_out}",
        f"8: max_first_token_latency of writer {about}; {way_out}",
        f"8: max_cache_memory of writer {about}; {way_out}",
        f"9: min_prefill_speedup of writer {about}; {way_out}",
    ]


def test_so_do_those_at_a_workload(tmp_path: Path) -> None:
    points = "    workloads: {night: {batch_size: 8, min_decode_speedup: 1x}}\n"
    plain = f"""\
version: 1
models:
  reader:
    factory: shop:net
    data: shop:data
{points}    recipes: {{int8-dynamic: {{workloads: {{night: {{max_cache_memory: 1 MiB}}}}}}}}
"""
    path = tmp_path / "budgets.yaml"
    path.write_text(plain, encoding="utf-8")
    with pytest.raises(BudgetsError) as raised:
        load_budgets(path, relative_to=tmp_path)
    told = [problem.message.partition(" is about")[0] for problem in raised.value.problems]
    assert told == ["min_decode_speedup of reader", "max_cache_memory of reader"]


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ({"generate": {"new_tokens": 0, "prompt": 4}}, "new_tokens of generate of call: 0 is not a number of tokens"),
        ({"generate": {"new_tokens": 1}}, "generate of call has no `prompt`"),
        ("generate", "call: 'generate' does not say how the model is called; write"),
    ],
)
def test_a_test_is_told_the_same(call: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse_call(call, Carried)


def test_a_test_may_give_a_live_step() -> None:
    found = parse_call({"generate": {"new_tokens": 8, "prompt": 4, "step": Carried("step")}}, Carried)
    assert found == Generation(8, 4), "the variant carries it"
