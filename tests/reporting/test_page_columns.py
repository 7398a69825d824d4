"""Columns of the page: one unit and one number of digits in each, before beside now, and no remark twice."""

from __future__ import annotations

import re
from dataclasses import replace

from benchmarks.pictures import RECORDS
from pytest_modelopt.cli.shared.judged_records import read_judged
from pytest_modelopt.reporting import page
from pytest_modelopt.results.verdicts import Detail, Finding
from tests.reporting.page_reading import named, parsed, text_of
from tests.reporting.records_by_hand import MIB, case, limit, measurement, record, timing, verdict

KIB = 1024


def rows(html: str, caption: str) -> list[list[str]]:
    """The cells of the table with that caption."""
    (found,) = (each for each in named(parsed(html), "table") if text_of(named(each, "caption")[0]) == caption)
    return [[text_of(cell) for cell in row] for row in named(found, "tr")]


def test_a_column_has_one_unit_and_one_number_of_digits() -> None:
    """The original's 8 MiB and 8 KiB of a variant, 4 ms and 200 us."""
    small = measurement("bf16", weights=700 * KIB, peak=70 * KIB, size=1536 * KIB)
    quick = timing(reference_ns=4_000_000, variant_ns=200_000)
    slow = timing(reference_ns=4_000_000, variant_ns=3_000_000)
    html = page.render(record(case("bf16", variant=small, timing=quick), case("fp16", timing=slow)))
    _, original, one, other = rows(html, "Variants against their original")
    assert [original[2], one[2].split(" -")[0], other[2].split(" -")[0]] == ["8.000 MiB", "0.752 MiB", "2.000 MiB"]
    assert [one[4], other[4]] == ["0.2 ms", "3.0 ms"]
    assert [row[1:3] for row in rows(html, "Figures of digits-vit/bf16")[1:4]] == [
        ["8.000 MiB", "0.752 MiB"],
        ["4.0 MiB", "1.5 MiB"],
        ["4.0 ms", "0.2 ms"],
    ]


def test_of_head_against_base_both_figures_stand_together() -> None:
    """Of a record of a real run: 'memory growth 12.2%' alone says not of how much."""
    html = page.render(read_judged(RECORDS / "base.json"))
    against = rows(html, "Head against its base")
    assert against[0][2:4] == ["memory growth", "size growth"]
    assert against[1][2] == "✗ 12.2 of 2% broken 133.8 -> 150.2 KiB"
    assert against[2][2] == "✗ 12.2 of 2% broken 35.9 -> 40.3 KiB"
    figures = {row[0]: row[1:] for row in rows(html, "Figures of reader/original against c5258a60fbd7")}
    assert figures["memory"] == ["134 KiB", "150 KiB", "12.2%"]
    assert figures["size"] == ["136 KiB", "152 KiB", "11.9%"]


def test_what_two_limits_have_in_common_stands_once_and_below_both() -> None:
    """And of two findings that tell the same facts the one by name is told."""
    failed = case(
        verdicts=(
            verdict(limit("max_memory", MIB, "1 MiB"), "fail", 2.0),
            verdict(limit("max_memory_growth", 0.1, "10%"), "fail", 0.2),
        )
    )
    peak: dict[str, Detail] = {"peak_in": "`0`", "peak_own_bytes": 8, "call_peak_bytes": 16}
    peak |= {"other_peak_in": "", "other_call_peak_bytes": 8}
    weights: dict[str, Detail] = {"weights_bytes": 8, "base_weights_bytes": 8}
    weights |= {"call_peak_bytes": 16, "base_call_peak_bytes": 8}
    found = (Finding("memory-moved", weights, ("memory",)), Finding("memory-in-layer", peak, ("memory",)))
    said = text_of(parsed(page.render(record(replace(failed, findings=found)))))
    assert said.count("beside what it holds, a call takes 16 B") == 1
    assert "of its memory" not in said
    assert re.search(r"max_memory_growth 10%.*beside what it holds.*Next: ", said)


def test_an_axis_has_one_unit_and_no_figure_that_cannot_be() -> None:
    """Two records of one day, of which the days would tell nothing; a flip is a whole one, and a score ends at 100%."""
    records = [read_judged(RECORDS / f"{name}.json") for name in ("speed", "green")]
    root = parsed(page.render_history(records))
    charts = {each.get("aria-label", "").split(" over ")[0]: each for each in named(root, "svg")}
    of = {name: [text_of(word) for word in named(chart, "text")] for name, chart in charts.items()}
    assert of["flips of digits-vit/int8-dynamic"][2:] == ["0", "1"]
    assert of["score of digits-vit/int8-dynamic"][2:] == ["95%", "100%"]
    assert [each.started[11:16] for each in records[::-1]] == of["flips of digits-vit/int8-dynamic"][:2]
    for name, words in of.items():
        units = {re.sub(r"[\d.-]", "", word).strip() for word in words[2:]}
        assert len(units) == 1, name


def test_a_partial_run_is_not_drawn_as_one_that_passed() -> None:
    kept = case(verdicts=(verdict(limit("max_size", 4.0 * MIB, "4 MiB"), "pass", 1.0),))
    one = replace(record(kept), collected=(kept.id, "budgets.yaml::m::bf16"))
    header = named(parsed(page.render(one)), "header")[0]
    assert "PARTIAL" in text_of(header)
    assert header.get("class") == "unsure"
