"""Rows of workloads in the table, in JUnit's properties and in OpenMetrics, from records made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pytest_modelopt.reporting.detail_columns import legend
from pytest_modelopt.reporting.files.metrics import render
from pytest_modelopt.reporting.junit import properties
from pytest_modelopt.reporting.notes import model_notes
from pytest_modelopt.reporting.table import blocks
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.consistency.contradictions import disagreement
from pytest_modelopt.results.measurement import ProcessMemory
from pytest_modelopt.results.merge_info import Merged
from tests.reporting.drawn_tables import details, table
from tests.reporting.records_by_hand import MIB, case, measurement, record, timing


def at(workload: str, peak: int, batch_size: int, threads: int = 1, recipe: str = "int8-dynamic") -> Case:
    found = case(
        recipe,
        reference=measurement(None, weights=4 * MIB, peak=peak),
        variant=measurement(recipe, weights=MIB, peak=peak),
        timing=replace(timing(), threads=threads),
    )
    name = f"{recipe} @ {workload}"
    shapes = ((batch_size, 3, 8), (batch_size, 3, 8), (batch_size,))
    found = replace(found, id=f"budgets.yaml::{found.model}::{name}", workload=workload, batch_size=batch_size)
    return replace(found, threads=threads, input_shapes=shapes)


BOTH = (at("online", MIB, 1), at("night", 4 * MIB, 32, threads=2))


def test_each_point_has_a_row_of_each_variant_in_one_table() -> None:
    told = record(*BOTH, at("online", MIB, 1, recipe="bf16"))
    (block,) = blocks(told)
    assert list(zip(table(told)["recipe"], table(told)["memory"], strict=True)) == [
        ("original @ online", "5 MiB"),
        ("original @ night", "8 MiB"),
        ("int8-dynamic @ online", "2 MiB"),
        ("int8-dynamic @ night", "5 MiB"),
        ("bf16 @ online", "2 MiB"),
    ]
    assert block.conditions == (
        "accuracy on 360 examples; memory and latency of batch 1 (1x3x8, 1), 1 thread @ online; batch 32 (32x3x8, 32), "
        "2 threads @ night"
    )
    assert details(told)["latency"][1] == "4 -> 5 ms (6400/s)"
    assert "latency: with examples a second of the variant" in legend(block)


def test_what_all_points_have_in_common_is_told_once() -> None:
    (block,) = blocks(record(BOTH[0], at("night", MIB, 32)))
    assert block.conditions.endswith("of batch 1 (1x3x8, 1) @ online; batch 32 (32x3x8, 32) @ night, 1 thread")
    (block,) = blocks(record(BOTH[0], at("night", MIB, 1)))
    assert block.conditions.endswith("memory and latency of batch 1 (1x3x8, 1), 1 thread")


def test_files_for_machines_name_the_workload() -> None:
    assert dict(properties(BOTH[1]))["modelopt.workload"] == "night"
    assert "modelopt.workload" not in dict(properties(case()))
    text = render(record(*BOTH))
    for recipe, workload, figure in (("int8-dynamic", "night", 5), ("original", "night", 8), ("original", "online", 5)):
        labels = f'model="digits-vit",recipe="{recipe}",workload="{workload}"'
        assert f"modelopt_memory_bytes{{{labels}}} {figure * MIB}\n" in text


def test_process_memory_is_told_of_each_row() -> None:
    def measured(of: Case, peak: int) -> Case:
        assert of.variant is not None
        return replace(of, variant=replace(of.variant, process_memory=ProcessMemory((peak,), "memray")))

    told = [item.text for item in model_notes(record(measured(BOTH[0], MIB), measured(BOTH[1], 2 * MIB)))]
    assert any("int8-dynamic @ online 1 MiB within 0 B, int8-dynamic @ night 2 MiB within 0 B" in text for text in told)


@pytest.mark.parametrize("figure", [{"size_bytes": 9 * MIB}, {"score": 0.5}, {"data_fingerprint": "other"}])
def test_a_record_in_which_a_figure_changes_with_the_point_that_does_not_depend_on_it_is_refused(
    figure: dict[str, Any],
) -> None:
    assert disagreement(record(*BOTH)) == ""
    night = BOTH[1]
    assert night.variant is not None
    assert night.reference is not None
    for other in (
        replace(night, variant=replace(night.variant, **figure)),
        replace(night, reference=replace(night.reference, **figure)),
    ):
        changed = replace(other, agreement=None)
        told = disagreement(record(BOTH[0], changed))
        assert told.startswith(
            "digits-vit/int8-dynamic @ night: its figures contradict those of digits-vit/int8-dynamic @ o"
        )
        merged = replace(record(BOTH[0], changed), merged=Merged(2, ()))
        assert disagreement(merged) == "", "its jobs may have run on other days"
        of_test = replace(changed, id="tests/test_a.py::test_b")
        assert disagreement(record(BOTH[0], of_test)) == "", "a test may measure other data under the name"
