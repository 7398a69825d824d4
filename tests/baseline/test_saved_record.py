"""A saved record as the base: which of its figures may be compared, and what is said of the others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pytest_modelopt.baseline.saved_record import SavedBase
from pytest_modelopt.results.case import ORIGINAL, Case, MeasuredCase
from pytest_modelopt.results.generation import Generation
from pytest_modelopt.results.measurement import Measurement
from pytest_modelopt.results.record import Environment
from tests.reporting.records_by_hand import ENVIRONMENT, MIB, case, measurement, record

FIGURES = ("size", "memory", "score")


def in_file(recipe: str = "int8-dynamic", model: str = "m", **changes: Any) -> Case:
    """A case of budgets.yaml, as it is collected."""
    return replace(case(recipe, model), id=f"budgets.yaml::{model}::{recipe}", **{"threads": 1, **changes})


SAVED = in_file(reference=measurement(None, size=5 * MIB), variant=measurement("int8-dynamic", size=2 * MIB))


def compared(
    of: Case | None = None, environment: Environment | None = ENVIRONMENT, saved: Case = SAVED
) -> MeasuredCase:
    base = SavedBase(record(saved), "runs/saved.json")
    head = of or in_file(reference=None, variant=measurement("int8-dynamic", size=3 * MIB))
    return base.compared(head, environment)


def of_base(done: MeasuredCase) -> Measurement:
    assert done.reference is not None
    return done.reference


def missing(done: MeasuredCase) -> set[str]:
    """The exact figures that may not be compared."""
    side = of_base(done)
    values = {"size": side.size_bytes, "memory": side.memory_bytes, "score": side.score}
    gone = {name for name in FIGURES if values[name] is None}
    assert gone == {name for name in FIGURES if name in side.unmeasured}
    return gone


def test_the_same_machine_compares_every_exact_figure_and_no_time() -> None:
    done = compared()
    assert missing(done) == set()
    assert of_base(done).size_bytes == 2 * MIB
    assert of_base(done).unmeasured["timing"].startswith("time is not compared with a saved record")
    assert done.base is not None
    assert (done.base.name, done.base.status, done.base.notes) == ("saved.json", "compared", ())
    assert done.variant is not None
    assert done.variant.size_bytes == 3 * MIB


def test_the_original_is_that_of_any_case_of_its_model() -> None:
    done = compared(in_file(ORIGINAL, reference=None, variant=measurement(None)))
    assert of_base(done).size_bytes == 5 * MIB


@pytest.mark.parametrize(
    "head",
    [
        in_file("bf16", reference=None),
        in_file(model="another", reference=None),
        in_file(ORIGINAL, model="another", reference=None),
    ],
    ids=["recipe", "model", "original"],
)
def test_what_the_record_lacks_is_new(head: Case) -> None:
    done = compared(head)
    assert done.base is not None
    assert (done.base.status, done.base.why) == ("new", f"{head.name} is new: saved.json does not have it")
    assert done.reference is None


@pytest.mark.parametrize(
    "saved", [replace(SAVED, id="test_it.py::test_m"), replace(SAVED, base=compared().base)], ids=["test", "against"]
)
def test_measurements_of_tests_and_against_a_base_are_no_base(saved: Case) -> None:
    done = compared(saved=saved)
    assert done.base is not None
    assert done.base.status == "new"


@pytest.mark.parametrize(
    ("changes", "gone", "told"),
    [
        ({"torch": "2.12.0"}, set(FIGURES), "torch 2.13.0 then, 2.12.0 now"),
        ({"packages": {}}, set(FIGURES), "torchao 0.14.0 then, none now"),
        ({"quantized_engine": "onednn"}, set(FIGURES), "quantized engine x86 then, onednn now"),
        ({"cpu_flags": ("avx2",)}, {"memory", "score"}, "CPU flags avx2 avx512_vnni then, avx2 now"),
        ({"cpu_capability": "AVX2"}, {"memory", "score"}, "kernels AVX512 then, AVX2 now"),
        ({"gpu": "H100"}, {"memory", "score"}, "GPU none then, H100 now"),
        ({"cpu": "Another CPU", "cpu_count": 64, "python": "3.13.0", "platform": "Darwin"}, set(), ""),
    ],
)
def test_another_machine_takes_the_figures_that_depend_on_it(
    changes: dict[str, Any], gone: set[str], told: str
) -> None:
    done = compared(environment=replace(ENVIRONMENT, **changes))
    assert missing(done) == gone
    assert {of_base(done).unmeasured[name] for name in gone} <= {f"not comparable: {told}"}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"device": "cuda"}, "device cpu then, cuda now"),
        ({"batch_size": 8}, "batch size 1 then, 8 now"),
        ({"threads": 2}, "threads 1 then, 2 now"),
        ({"metric": "top-5"}, "metric accuracy then, top-5 now"),
        ({"call": "shop:cheap"}, "call once then, shop:cheap now"),
        ({"generation": Generation(8, 4)}, "call once then, {generate: {new_tokens: 8, prompt: 4}} now"),
        ({"optimize": "encoder"}, "optimized module all then, encoder now"),
        ({"input_shapes": ((1, 16),)}, "sizes of the inputs unknown then, 1x16 now"),
    ],
)
def test_another_call_has_another_memory_and_score_but_the_same_size(changes: dict[str, Any], told: str) -> None:
    done = compared(in_file(reference=None, **changes))
    assert missing(done) == {"memory", "score"}
    assert of_base(done).unmeasured["score"] == f"not comparable: {told}"


def test_an_unknown_machine_compares_nothing() -> None:
    assert missing(compared(environment=None)) == set(FIGURES)


def test_other_data_takes_the_score_alone_and_is_said() -> None:
    done = compared(in_file(reference=None, variant=replace(measurement("int8-dynamic"), data_fingerprint="beef")))
    assert missing(done) == {"score"}
    assert done.base is not None
    assert done.base.notes == (
        "the evaluation data has changed since the record was saved, so scores cannot be compared",
    )
