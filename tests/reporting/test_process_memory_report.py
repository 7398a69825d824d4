"""Where memory was measured by processes, table, sentences and JUnit name the meter; torch's figures stay unmarked."""

from __future__ import annotations

from dataclasses import replace

from pytest_modelopt.reporting import junit, markdown, terminal
from pytest_modelopt.reporting.sentences import items
from pytest_modelopt.reporting.table import blocks
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.measurement import Measurement, ProcessMemory
from tests.reporting.drawn_tables import details, table
from tests.reporting.records_by_hand import MIB, case, limit, measurement, record, verdict


def with_process(side: Measurement, *runs_mib: float, runtime: str | None = None) -> Measurement:
    memory = ProcessMemory(tuple(int(run * MIB) for run in runs_mib), "memray")
    if runtime is None:
        return replace(side, process_memory=memory)
    return replace(side, process_memory=memory, runtime=runtime, weights_bytes=None, call_peak_bytes=None)


ORIGINAL = with_process(measurement(None), 40, 40, 41)
CONVERTED = case("onnx", reference=ORIGINAL, variant=with_process(measurement("onnx"), 30, 30, 30, runtime="LiteRT"))
IN_TORCH = case("int8-dynamic", reference=measurement(None))


def test_a_foreign_variant_and_its_original_show_process_memory_and_the_table_says_so() -> None:
    told = table(record(CONVERTED))
    assert told["process memory"] == ("40 MiB", "30 MiB")
    assert "memory" not in told
    (block,) = blocks(record(CONVERTED))
    assert block.conditions.endswith("memory of batch 1; process memory: of fresh processes, by memray, for LiteRT")
    assert details(record(CONVERTED))["memory"] == ("30 MiB (-25%)*",)


def test_beside_variants_in_torch_each_meter_has_a_column_of_its_own() -> None:
    told = table(record(IN_TORCH, CONVERTED))
    assert (told["memory"], told["process memory"]) == (("8 MiB", "2 MiB", "-"), ("40 MiB", "-", "30 MiB"))


def test_a_limit_stands_in_the_column_of_the_meter_that_it_is_judged_by() -> None:
    bounds = [limit("max_memory", 20 * MIB, "20 MiB"), limit("max_process_memory", 50 * MIB, "50 MiB")]
    outcomes = (verdict(bounds[1], "pass", 30 * MIB), verdict(bounds[0], "fail", 30 * MIB))
    told = table(record(replace(CONVERTED, limits=tuple(bounds), verdicts=outcomes)))
    assert told["process memory"] == ("40 MiB", "✗ 30 of 20 MiB"), "of two limits the one that is broken"
    in_torch = case(
        "r",
        reference=ORIGINAL,
        variant=with_process(measurement("r", weights=MIB, peak=MIB), 12, 12, 12),
        verdicts=(verdict(bounds[1], "pass", 12 * MIB),),
    )
    told = table(record(in_torch))
    assert (told["memory"], told["process memory"]) == (("8 MiB", "2 MiB"), ("40 MiB", "12 of 50 MiB"))


def test_in_torch_alone_nothing_is_said_of_processes() -> None:
    measured = case("r", reference=ORIGINAL, variant=with_process(measurement("r", weights=MIB, peak=MIB), 12, 12, 12))
    told = record(measured)
    assert table(told)["memory"] == ("8 MiB", "2 MiB")
    assert "process" not in " ".join([*table(told), blocks(told)[0].conditions])


def test_a_foreign_variant_without_process_memory_shows_nothing_rather_than_torchs_share() -> None:
    variant = replace(measurement("onnx"), runtime="LiteRT", weights_bytes=None, call_peak_bytes=None)
    assert not {"memory", "process memory"} & set(table(record(case("onnx", variant=variant))))


def _told(*cases: Case) -> list[str]:
    return [item.text for item in items(record(*cases)) if "process memory" in item.text]


def test_one_note_gives_meter_runs_and_spread_of_each_variant() -> None:
    assert _told(CONVERTED) == [
        "digits-vit: process memory by memray, 3 fresh processes each: original 40 MiB within 1 MiB, "
        "onnx on LiteRT 30 MiB within 0 B"
    ]
    assert _told(IN_TORCH) == []


def test_why_it_was_not_measured_is_told_in_words() -> None:
    variant = replace(measurement("r"), unmeasured={"process_memory": "the model cannot be saved"})
    assert _told(case("r", variant=variant)) == [
        "digits-vit (r): process memory was not measured: the model cannot be saved"
    ]


def test_the_mark_is_no_emphasis_in_markdown_and_stands_in_the_terminal() -> None:
    assert "30 MiB (-25%)* |" in markdown.render(record(CONVERTED)).replace("  ", " ")
    assert any("(-25%)*" in text for text, _ in terminal.lines(record(CONVERTED), 200, verbose=True))


def test_junit_properties_name_the_meter_where_it_is_not_torchs_allocator() -> None:
    told = dict(junit.properties(CONVERTED))
    assert told["modelopt.memory_bytes"] == 30 * MIB
    assert told["modelopt.memory_reduction"] == 0.25
    assert told["modelopt.memory_meter"] == "memray"
    plain = dict(junit.properties(IN_TORCH))
    assert plain["modelopt.memory_bytes"] == 2 * MIB
    assert "modelopt.memory_meter" not in plain
