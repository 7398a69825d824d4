"""The JSON Schema for editors: shipped up to date, and of one opinion with the checks themselves."""

from __future__ import annotations

import inspect
import json
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import BaseModel

from pytest_modelopt.config import schema
from pytest_modelopt.config.schema import SCHEMA_FILE, json_schema, schema_text
from pytest_modelopt.limits.catalogue import BUDGET_LIMITS, REGRESSION_LIMITS

VALID = [
    "{version: 1, models: {m: {factory: a:b, data: a.b:C.d, recipes: {int8-dynamic: }}}}",
    """
version: 1
defaults: {device: "cuda:0", threads: 2, batch_size: 8, time_limit: 20 s, step_limit: 10 min, inference: population}
models:
  m:
    factory: shop.vision:load_model
    data: shop.vision:test_data
    calibration: shop.vision:train_data
    example_inputs: shop.vision:one
    metric: shop.metrics:mean_error
    slices: shop.vision:camera
    inference: set
    budget: {max_memory: 6 MiB, max_size: 4096 B, min_memory_reduction: 60%, min_size_reduction: 0.5, max_flips: 0}
    recipes:
      prune-structured(ratio=0.5) + int8-dynamic:
        min_speedup: {limit: 1.5x, level: warn}
        max_latency: 250 us
        max_accuracy_drop: 1 pp
        max_slice_drop: {limit: 5 pp, level: warn}
        min_accuracy: 97%
        min_coverage: {limit: 90%}
      low-rank: {min_speedup: +30%, min_accuracy: -3.5, max_accuracy_drop: 0.01}
      int8-dynamic: {min_speedup: 2}
""",
    """
version: 1
models:
  m:
    factory: a:b
    data: a:b
    recipes:
      int8-dynamic:
        max_memory: 3 MiB
        regression: {max_slowdown: {limit: 150%, level: warn}, max_accuracy_loss: 0.5 pp}
      low-rank: {regression: }
    regression: {max_memory_growth: 2%, max_size_growth: 0.1}
waivers:
  - {case: m/int8-dynamic, limit: max_memory, until: "2027-01-31", reason: why, ceiling: 4 MiB, owner: "@ada"}
  - {case: m/original, limit: max_slowdown, until: "2027-01-31", reason: why, ceiling: 20%}
""",
    "{version: 1, models: {m: {factory: a:b, data: a:b, recipes: {int8-dynamic: }}}, waivers: []}",
]

START = "version: 1\nmodels:\n  m:\n    factory: a:b\n    data: a:b\n"
INVALID = [
    START,
    START + "    recipes: {}\n",
    START + "    recipes: {low-rank: }\nmodles: 1\n",
    START + "    recipes: {low-rank: }\nregression: {}\n",
    START + "    recipes: {low-rank: {max_memroy: 1}}\n",
    START + "    recipes: {low-rank: {max_memory: 6 Mb}}\n",
    START + "    recipes: {low-rank: {max_memory: -1 B}}\n",
    START + "    recipes: {low-rank: {max_memory: }}\n",
    START + "    recipes: {low-rank: {min_speedup: 30%}}\n",
    START + "    recipes: {low-rank: {max_accuracy_drop: 1%}}\n",
    START + "    recipes: {low-rank: {max_flips: {limit: 1%, level: warning}}}\n",
    START + "    recipes: {low-rank: {max_flips: {limit: 1%, lev: warn}}}\n",
    START + "    recipes: {low-rank: {max_latency: 5}}\n",
    START.replace("  m:", "  a/b:") + "    recipes: {low-rank: }\n",
    START.replace("a:b", "a.b") + "    recipes: {low-rank: }\n",
    START.replace("version: 1", "version: 2") + "    recipes: {low-rank: }\n",
    "defaults: {device: gpu}\n" + START + "    recipes: {low-rank: }\n",
    "defaults: {inference: sample}\n" + START + "    recipes: {low-rank: }\n",
    START + "    inference: Population\n    recipes: {low-rank: }\n",
    START + "    slices: by_camera\n    recipes: {low-rank: }\n",
    START + "    recipes: {low-rank: {max_slice_drop: 5%}}\n",
    "defaults: {treads: 1}\n" + START + "    recipes: {low-rank: }\n",
    START + "    recipes: {low-rank: {max_slowdown: 10%}}\n",
    START + "    budget: {max_size_growth: 1%}\n    recipes: {low-rank: }\n",
    START + "    regression: {max_memory: 1 MiB}\n    recipes: {low-rank: }\n",
    START + "    regression: {max_slowdown: -10%}\n    recipes: {low-rank: }\n",
    START + "    regression: {max_slowdown: 50}\n    recipes: {low-rank: }\n",
    START + "    recipes: {low-rank: {regression: {max_flips: 1%}}}\n",
    *(
        START + "    recipes: {low-rank: {max_flips: 1%}}\nwaivers: [{" + waiver + "}]\n"
        for waiver in (
            'case: m/low-rank, limit: max_flips, until: "2027-01-31"',
            'case: m/low-rank, limit: max_flips, until: "2027-01-31", reason: "  "',
            "case: m/low-rank, limit: max_flips, until: tomorrow, reason: why",
            'case: m, limit: max_flips, until: "2027-01-31", reason: why',
            'case: m/low-rank, limit: max_flip, until: "2027-01-31", reason: why',
            'case: m/low-rank, limit: max_flips, until: "2027-01-31", reason: why, ceiling: lots',
            'case: m/low-rank, limit: max_flips, until: "2027-01-31", reason: why, owners: me',
        )
    ),
]


def validator() -> Any:
    return jsonschema.Draft202012Validator(json_schema())


def test_the_shipped_schema_is_up_to_date() -> None:
    assert SCHEMA_FILE.read_text(encoding="utf-8") == schema_text(), "run python -m pytest_modelopt.config.schema"


def test_no_default_depends_on_other_fields() -> None:
    """pydantic before 2.10 calls each factory without them, and later versions tell a second error, of a default."""
    forms: list[type[BaseModel]] = [each for each in vars(schema).values() if isinstance(each, type(BaseModel))]
    factories = [field.default_factory for form in forms for field in form.model_fields.values()]
    assert len(forms) > 5
    assert not [factory for factory in factories if factory and has_parameters(factory)]


def has_parameters(factory: Any) -> bool:
    return factory not in (dict, list, tuple) and bool(inspect.signature(factory).parameters)


def test_the_schema_is_itself_a_valid_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(SCHEMA_FILE.read_text(encoding="utf-8")))


@pytest.mark.parametrize("text", VALID)
def test_the_schema_accepts_correct_files(text: str) -> None:
    validator().validate(yaml.safe_load(text))


@pytest.mark.parametrize("text", INVALID)
def test_the_schema_rejects_wrong_files(text: str) -> None:
    assert not validator().is_valid(yaml.safe_load(text))


def test_editors_get_a_sentence_for_every_limit() -> None:
    described = json_schema()["$defs"]["Budget"]["properties"]
    assert {name: field["description"] for name, field in described.items()} == {
        name: kind.meaning for name, kind in BUDGET_LIMITS.items()
    }
    described = json_schema()["$defs"]["Regression"]["properties"]
    assert {name: field["description"] for name, field in described.items()} == {
        name: kind.meaning for name, kind in REGRESSION_LIMITS.items()
    }
    assert set(json_schema()["$defs"]["Recipe"]["properties"]) == {*BUDGET_LIMITS, "regression", "workloads", "targets"}


def nodes(value: Any) -> list[dict[str, Any]]:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [value] * isinstance(value, dict) + [node for child in children for node in nodes(child)]


def test_every_object_of_the_schema_refuses_unknown_keys() -> None:
    objects = [node for node in nodes(json_schema()) if node.get("type") == "object"]
    named = [node for node in objects if "properties" in node]
    assert len(named) >= 4 + len(BUDGET_LIMITS)
    assert all(node["additionalProperties"] is False for node in named)


def test_the_examples_of_the_schema_satisfy_their_own_pattern() -> None:
    texts = [node for node in nodes(json_schema()) if node.get("type") == "string" and "examples" in node]
    assert texts
    for node in texts:
        for example in node["examples"]:
            jsonschema.Draft202012Validator(node).validate(example)
