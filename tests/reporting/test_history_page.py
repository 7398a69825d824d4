"""Figures over several records: in the order of time, each with the limit of its record."""

from __future__ import annotations

import re
from dataclasses import replace

from pytest_modelopt.cli.shared.judged_records import judged_again
from pytest_modelopt.reporting import page
from pytest_modelopt.reporting.page.series import series_by_model
from pytest_modelopt.results.base import Against
from pytest_modelopt.results.record import Record
from tests.reporting.against_by_hand import AGAINST, GREW
from tests.reporting.page_reading import named, parsed, text_of
from tests.reporting.records_by_hand import ENVIRONMENT, MIB, case, limit, measurement, record, timing

SPEED = limit("min_speedup", 1.5, "1.5x")


def _night(day: int, memory: int, bound: int, against: Against | None = None) -> Record:
    """`memory` and `bound` in MiB."""
    told = case(
        limits=(limit("max_memory", bound * MIB, f"{bound} MiB"), SPEED),
        variant=measurement("int8-dynamic", weights=memory * MIB, peak=0, size=MIB),
        timing=timing(200, 4_000_000, 2_000_000),
    )
    return judged_again(record(told, started=f"2026-11-{day:02}T03:00:00Z", against=against))


NIGHTS = [_night(1, 2, 4), _night(2, 3, 4, AGAINST), _night(3, 3, 2)]


def test_each_figure_stands_at_its_record_with_the_limit_of_that_record() -> None:
    ((model, variants),) = series_by_model(NIGHTS)
    assert model == "digits-vit"
    assert [variant.name for variant in variants] == ["digits-vit/int8-dynamic", "digits-vit/original"]
    of = {series.title: series for series in variants[0].series}
    memory = of["memory"]
    assert [(each.sample.value, each.bound, each.tone) for each in memory.moments] == [
        (2 * MIB, "max_memory at most 4 MiB, pass", "good"),
        (3 * MIB, "max_memory at most 4 MiB, pass", "good"),
        (3 * MIB, "max_memory at most 2 MiB, fail", "bad"),
    ]
    assert memory.chart is not None
    bounds = [re.findall(r"[\d.]+", shape.path) for shape in memory.chart.shapes if shape.kind == "bound"]
    assert [(start, end) for start, _, end, _ in bounds] == [("88.0", "292.0"), ("292.0", "496.0"), ("496.0", "700.0")]
    assert bounds[0][1] == bounds[1][1]
    assert float(bounds[2][1]) > float(bounds[0][1])  # 2 MiB stand below 4 MiB
    dots = [(shape.kind, shape.path) for shape in memory.chart.shapes if shape.kind.startswith("dot")]
    assert [kind for kind, _ in dots] == ["dot", "dot", "dot broken"]
    assert [path.split()[0] for _, path in dots] == ["M190.0", "M394.0", "M598.0"]
    speed = of["speedup"].moments[0]
    assert speed.sample.text == "2x"
    assert re.fullmatch(r"1\.\d+x to 2\.\d+x", speed.interval)


def test_a_figure_that_one_record_lacks_stays_at_its_place() -> None:
    without = record(case("bf16"), started="2026-11-02T03:00:00Z")
    ((_, variants),) = series_by_model([NIGHTS[0], without, NIGHTS[2]])
    assert [each.place for each in variants[0].series[0].moments] == [0, 2]


def test_a_comparison_with_a_base_goes_on_when_the_base_is_another() -> None:
    other = replace(GREW, base=replace(GREW.base, name="ffff")) if GREW.base is not None else GREW
    ((_, variants),) = series_by_model([record(GREW, against=AGAINST), record(other, against=AGAINST)])
    (found,) = [variant for variant in variants if "against" in variant.name]
    assert found.name == "digits-vit/int8-dynamic against base"
    assert {len(series.moments) for series in found.series} == {2}


def test_the_page_has_revisions_dates_and_machines() -> None:
    moved = replace(NIGHTS[2], environment=replace(ENVIRONMENT, cpu="Other CPU"))
    root = parsed(page.render_history([moved, NIGHTS[1], NIGHTS[0]]))
    table = next(each for each in named(root, "table") if text_of(each[0]) == "memory of digits-vit/int8-dynamic")
    rows = [[text_of(cell) for cell in row] for row in named(table, "tr")]
    assert [row[0] for row in rows[1:]] == [night.started for night in NIGHTS]
    assert [row[1] for row in rows[1:]] == ["", "1a2b3c4d5e6f", ""]
    assert [row[2] for row in rows[1:]] == ["2 MiB", "3 MiB", "3 MiB"]
    assert [row[-1] for row in rows[1:]] == [*(2 * ["Example CPU, torch 2.13.0"]), "Other CPU, torch 2.13.0"]
