"""What models of a budgets file share: `x-` keys, `defaults:` and patterns of names, and arguments of factories."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import yaml

from pytest_modelopt.baseline.loosened import loosened
from pytest_modelopt.baseline.model_matching import pairs_of
from pytest_modelopt.config.document import read_document
from pytest_modelopt.config.loader import BudgetsFile, load_budgets
from pytest_modelopt.config.problems import BudgetsError
from pytest_modelopt.config.schema import json_schema
from pytest_modelopt.results.source import Called

LAYERS = """\
version: 1
x-common: &common {max_memory: 9 MiB}
defaults:
  metric: top-5
  budget: {max_memory: 1 MiB, max_size: 1 MiB, max_flips: 1%}
  recipes:
    int8-dynamic:
      {max_size: 2 MiB, max_flips: 2%, min_speedup: 2x, regression: {max_slowdown: 20%, max_size_growth: 2%}}
models:
  "d*":
    budget: {max_size: 3 MiB}
    recipes: {int8-dynamic: {max_latency: 3 ms}, bf16: {max_flips: 3%}}
    regression: {max_slowdown: 30%}
  "dig[i]t?":
    metric: accuracy
    budget: {max_latency: 4 ms}
  digits:
    x-ours: {anything: 1}
    factory: shop:net
    data: shop:data
    budget: {max_flips: 5%}
    recipes:
      int8-dynamic: {min_speedup: {limit: 5x, level: warn}}
      fp16: *common
  other: {factory: shop:net, data: shop:data, metric: {name: accuracy}, recipes: {bf16: }}
"""


def load(folder: Path, text: str, name: str = "budgets.yaml") -> BudgetsFile:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return load_budgets(file, relative_to=folder)


def stated(budgets: BudgetsFile, case: str) -> dict[str, tuple[str, int]]:
    """Text and line of each limit."""
    (entry,) = (each for each in budgets.cases if each.name == case)
    return {limit.name: (limit.text, limit.line) for limit in (*entry.limits, *entry.regression)}


def said(folder: Path, text: str) -> list[str]:
    with pytest.raises(BudgetsError) as caught:
        load(folder, text)
    return [f"{problem.line}: {problem.message}" for problem in caught.value.problems]


def test_the_closest_statement_wins_limit_by_limit_and_keeps_its_line(tmp_path: Path) -> None:
    """Of the model, of the pattern that stands last, of another pattern, of the defaults; of recipes before budgets,
    but never before what stands closer."""
    budgets = load(tmp_path, LAYERS)
    assert [model.name for model in budgets.models] == ["digits", "other"]
    assert [str(model.metric.name) for model in budgets.models] == ["accuracy", "accuracy"]
    assert stated(budgets, "digits/int8-dynamic") == {
        "max_memory": ("1 MiB", 5),
        "max_size": ("3 MiB", 11),
        "min_speedup": ("5x", 23),
        "max_latency": ("4 ms", 16),
        "max_flips": ("5%", 21),
        "max_slowdown": ("30%", 13),
        "max_size_growth": ("2%", 8),
    }
    assert stated(budgets, "digits/fp16")["max_memory"] == ("9 MiB", 2)
    assert stated(budgets, "digits/bf16")["max_flips"] == ("5%", 21)
    assert stated(budgets, "other/int8-dynamic") == {
        "max_memory": ("1 MiB", 5),
        "max_size": ("2 MiB", 8),
        "min_speedup": ("2x", 8),
        "max_flips": ("2%", 8),
        "max_slowdown": ("20%", 8),
        "max_size_growth": ("2%", 8),
    }
    assert stated(budgets, "other/bf16")["max_flips"] == ("1%", 5)
    jsonschema.Draft202012Validator(json_schema()).validate(yaml.safe_load(LAYERS))


def test_a_mistake_in_what_is_shared_is_said_once_where_it_stands(tmp_path: Path) -> None:
    wrong = LAYERS.replace("max_size: 1 MiB", "max_size: 1").replace("bf16: {max_flips: 3%}", "bf17: {max_flip: 3%}")
    size, recipe, limit = said(tmp_path, wrong)
    assert size.startswith("5: max_size of defaults: 1 has no unit")
    assert recipe.startswith("12: recipe of d*: ")
    assert limit.startswith("12: d*/bf17: unknown limit 'max_flip'; did you mean 'max_flips'?")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('"d*"', '"x*"', "10: the pattern 'x*' matches the name of no model"),
        ('"dig[i]t?"', '"dig[a]t?"', "14: the pattern 'dig[a]t?' matches the name of no model"),
        (
            "    metric: accuracy\n",
            "    factory: a:b\n",
            "15: `factory:` belongs to one model, and 'dig[i]t?' is a pattern",
        ),
        (
            "    metric: accuracy\n",
            "    metrics: accuracy\n",
            "15: dig[i]t?: unknown key 'metrics'; did you mean 'metric'?",
        ),
        ("  metric: top-5\n", "  data: a:b\n", "4: defaults: unknown key 'data'"),
        ("x-common", "y-common", "2: the file: unknown key 'y-common'"),
        ("    x-ours", "    y-ours", "18: digits: unknown key 'y-ours'"),
        ("metric: top-5", "metric: top5", "4: metric of defaults: 'top5' is not a metric"),
        ("recipes:\n    int8", "recipes: [bf16]\n  budgets:\n    int8", "6: recipes of defaults: it is a list"),
    ],
)
def test_what_cannot_be_shared_is_an_error(tmp_path: Path, before: str, after: str, message: str) -> None:
    assert any(line.startswith(message) for line in said(tmp_path, LAYERS.replace(before, after))), said(
        tmp_path, LAYERS.replace(before, after)
    )


def test_a_limit_without_examples_is_told_of_each_model_that_shares_it(tmp_path: Path) -> None:
    told = said(tmp_path, LAYERS.replace("    data: shop:data\n", "    example_inputs: shop:data\n"))
    assert "8: max_flips of digits is about answers, and the model has no `data:`; add it" not in told
    assert "21: max_flips of digits is about answers, and the model has no `data:`; add it" in told


def test_sharing_cannot_grow_without_bounds(tmp_path: Path) -> None:
    limits = ", ".join(f"{name}: 1" for name in map("l{}".format, range(400)))
    models = "".join(f"  m{index}: {{factory: a:b}}\n" for index in range(400))
    (line,) = said(tmp_path, f"version: 1\nmodels:\n  '*': {{budget: {{{limits}}}}}\n{models}")
    assert line == "3: `defaults:` and patterns make more than 100000 values; is it the right file?"


def test_a_limit_raised_for_all_is_a_loosening_of_each_case(tmp_path: Path) -> None:
    base = load(tmp_path, LAYERS)
    raised = LAYERS.replace("max_size: 3 MiB", "max_size: 6 MiB").replace("max_memory: 1 MiB", "max_memory: 2 MiB")
    found = [(each.case, each.limit, each.line) for each in loosened(base, load(tmp_path, raised, "new.yaml"))]
    digits = [(f"digits/{recipe}", "max_size", 11) for recipe in ("bf16", "fp16", "int8-dynamic")]
    assert [each for each in found if each[1] == "max_size"] == digits
    memory = [f"digits/{recipe}" for recipe in ("bf16", "int8-dynamic")] + ["other/bf16", "other/int8-dynamic"]
    assert [each for each in found if each[1] == "max_memory"] == [(case, "max_memory", 5) for case in memory]


CALLED = """version: 1
models:
  narrow:
    factory: {name: zoo:make, arguments: {width: 64, name: "a\\e[31m"}}
    data: {name: zoo:read, arguments: {parts: [train, test]}}
    recipes: {bf16: }
    candidates: {wide: {factory: {arguments: {width: 128}, name: zoo:make}}}
"""


def test_arguments_belong_to_the_identity_of_a_model(tmp_path: Path) -> None:
    budgets = load(tmp_path, CALLED)
    (model,) = budgets.models
    assert model.origin == Called.of("zoo:make", {"name": "a\x1b[31m", "width": 64})
    assert isinstance(model.data, Called)
    assert model.data.values == {"parts": ["train", "test"]}
    assert str(model.origin) == "zoo:make(name='a\\x1b[31m', width=64)"
    assert model.origin != budgets.cases[1].candidate.origin  # type: ignore[union-attr]
    other = load(tmp_path, CALLED.replace("narrow:", "thin:").replace("width: 64", "width: 65"), "new.yaml")
    assert dict(pairs_of(budgets, other).models) == {"thin": "narrow"}, "by the data"
    neither = CALLED.replace("narrow:", "thin:").replace("width: 64", "width: 65").replace("test]", "dev]")
    assert dict(pairs_of(budgets, load(tmp_path, neither, "new.yaml")).models) == {}
    jsonschema.Draft202012Validator(json_schema()).validate(yaml.safe_load(CALLED))


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("arguments: {width: 64", "argument: {width: 64", "unknown key 'argument'; did you mean 'arguments'?"),
        ("width: 64", "1width: 64", "'1width' is not the name of an argument"),
        ("width: 64", "width: .nan", "width is not a number"),
        ("{name: zoo:read, ", "{", "there is no value; write `package.module:function`"),
        ("{parts: [train, test]}", "[train]", "is not a mapping of names to values"),
    ],
)
def test_arguments_are_plain_values_by_name(tmp_path: Path, before: str, after: str, message: str) -> None:
    assert any(message in line for line in said(tmp_path, CALLED.replace(before, after)))


def test_aliases_of_x_keys_have_the_line_of_their_anchor(tmp_path: Path) -> None:
    file = tmp_path / "budgets.yaml"
    file.write_text(LAYERS.replace("fp16: *common", "fp16: {<<: *common, max_size: 7 MiB}"), encoding="utf-8")
    document = read_document(file, "budgets.yaml")
    at = ("models", "digits", "recipes", "fp16")
    assert (document.line((*at, "max_memory")), document.line((*at, "max_size"))) == (2, 24)
    assert "x-common" not in document.data


AT_WORKLOADS = """\
version: 1
models:
  "r-*":
    workloads:
      online: {batch_size: 1}
      night: {batch_size: 32, max_size: 9 MiB}
    original: {max_memory: 8 MiB, workloads: {night: {max_memory: 20 MiB}}}
    recipes: {int8-dynamic: {workloads: {night: {max_memory: 10 MiB, max_flips: 1%}}}}
  r-a: {factory: shop:net, data: shop:data, budget: {max_memory: 5 MiB, max_size: 5 MiB}}
  r-b:
    factory: shop:net
    data: shop:data
    original: {workloads: {online: {max_memory: 7 MiB}}}
    recipes: {int8-dynamic: {workloads: {online: {max_memory: 3 MiB}}}}
"""


def test_limits_at_single_workloads_are_shared_limit_by_limit_too(tmp_path: Path) -> None:
    """And never before what stands closer, whichever of both is about a workload."""
    budgets = load(tmp_path, AT_WORKLOADS)
    night, online = (stated(budgets, f"r-a/int8-dynamic @ {point}") for point in ("night", "online"))
    assert night == {"max_memory": ("5 MiB", 9), "max_size": ("5 MiB", 9), "max_flips": ("1%", 8)}
    assert online == {"max_memory": ("5 MiB", 9), "max_size": ("5 MiB", 9)}
    night, online = (stated(budgets, f"r-b/int8-dynamic @ {point}") for point in ("night", "online"))
    assert night == {"max_memory": ("10 MiB", 8), "max_flips": ("1%", 8), "max_size": ("9 MiB", 6)}
    assert online == {"max_memory": ("3 MiB", 14)}
    assert stated(budgets, "r-b/original @ night") == {"max_memory": ("20 MiB", 7)}
    assert stated(budgets, "r-b/original @ online") == {"max_memory": ("7 MiB", 13)}
