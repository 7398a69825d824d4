"""Columns of figures: one unit and one number of digits in each, and tables that fit beside each other or below."""

from __future__ import annotations

import pytest

from pytest_modelopt.limits.kind import Unit
from pytest_modelopt.reporting.columns import Column, Shown, drawn, figure_column, side_by_side

KIB, MIB, GIB = 1024, 1024**2, 1024**3


@pytest.mark.parametrize(
    ("unit", "figures", "cells"),
    [
        ("bytes", [8 * MIB, 2 * MIB], ("8 MiB", "2 MiB")),
        ("bytes", [8.85 * MIB, 3.08 * MIB], ("8.85 MiB", "3.08 MiB")),
        ("bytes", [1.5 * GIB, 300 * MIB], ("1.500 GiB", "0.293 GiB")),
        ("bytes", [64 * MIB, 6 * KIB], ("64.000 MiB", "0.006 MiB")),
        ("bytes", [16 * GIB, 16 * GIB + MIB], ("16 GiB", "16 GiB")),
        ("bytes", [512, 0], ("512 B", "0 B")),
        ("bytes", [512, 8 * MIB], ("0.5 KiB", "8192.0 KiB")),
        ("time", [0.0021, 0.00093], ("2.10 ms", "0.93 ms")),
        ("time", [12.5, 0.004], ("12.500 s", "0.004 s")),
        ("factor", [1.73, 0.5], ("1.73x", "0.50x")),
        ("percentage", [0.125, -0.5], ("12.5%", "-50.0%")),
    ],
)
def test_the_figures_of_a_column_have_one_unit_and_one_number_of_digits(
    unit: Unit, figures: list[float], cells: tuple[str, ...]
) -> None:
    assert figure_column("x", unit, [Shown(figure) for figure in figures]).cells == cells


def test_a_score_from_0_to_1_is_a_percentage_of_four_digits_and_a_drop_has_points() -> None:
    scores = [Shown(0.975), Shown(350 / 360)]
    assert figure_column("accuracy", "score", scores, in_points=True).cells == ("97.50%", "97.22%")
    assert figure_column("mine", "score", [Shown(12.34567), Shown(12.5)]).cells == ("12.35", "12.50")
    assert figure_column("drop", "points", [Shown(0.0028, limit=0.01)], in_points=True).cells == ("0.28 of 1 pp",)
    assert figure_column("drop", "points", [Shown(-1e-9)], in_points=True).cells == ("0 pp",)


def test_a_limit_stands_behind_its_figure_and_what_is_not_kept_is_marked() -> None:
    shown = [
        None,
        Shown(8 * MIB),
        Shown(2 * MIB, limit=3 * MIB),
        Shown(3.41 * MIB, limit=3 * MIB, mark="✗"),
        Shown(3.5 * MIB, limit=3 * MIB, is_waived=True),
        Shown(3.2 * MIB, limit=3 * MIB, mark="!"),
        Shown(None, limit=3 * MIB, mark="✗"),
        Shown(None),
    ]
    assert figure_column("memory", "bytes", shown).cells == (
        "",
        "8.00 MiB",
        "2.00 of 3 MiB",
        "✗ 3.41 of 3 MiB",
        "3.50 of 3 MiB waived",
        "! 3.20 of 3 MiB",
        "✗ - of 3 MiB",
        "-",
    )


def test_a_limit_far_away_has_the_unit_of_the_figures() -> None:
    assert figure_column("size", "bytes", [Shown(13 * KIB, limit=1e9)]).cells == ("13 of 976562 KiB",)


def test_a_small_limit_has_a_unit_in_which_it_can_be_read() -> None:
    """Neither 0.09766 nor 0.3086 MiB."""
    assert figure_column("size", "bytes", [Shown(1170 * KIB), Shown(301 * KIB, limit=316 * KIB)]).cells[1] == (
        "301 of 316 KiB"
    )
    figures = [Shown(1170 * KIB), Shown(301 * KIB, limit=100 * KIB, mark="✗")]
    assert figure_column("size", "bytes", figures).cells == ("1170 KiB", "✗ 301 of 100 KiB")


def test_what_belongs_together_stands_as_before_and_after() -> None:
    shown = [Shown(0.00117, before=0.00203), Shown(0.005, before=0.004, limit=0.0045, mark="✗")]
    slower = figure_column("size", "bytes", [Shown(16 * GIB + MIB, before=16 * GIB)])
    assert slower.cells == ("16.000 -> 16.001 GiB",)
    for more, told in ((4, "64 MiB (+4 B)"), (-12, "64 MiB (-12 B)"), (0, "64 MiB")):
        assert figure_column("size", "bytes", [Shown(64 * MIB + more, before=64 * MIB)]).cells == (told,)
    noise = [Shown(0.004001, before=0.004)]
    assert figure_column("latency", "time", noise, is_timed=True).cells == ("4 -> 4 ms",)
    assert figure_column("latency", "time", shown).cells == ("2.03 -> 1.17 ms", "✗ 4.00 -> 5.00 of 4.5 ms")


def test_a_broken_figure_does_not_look_like_its_limit() -> None:
    by_a_little = [Shown(MIB * 1.0002, limit=MIB, mark="✗"), Shown(8 * MIB)]
    assert figure_column("memory", "bytes", by_a_little).cells == ("✗ 1.0002 of 1 MiB", "8.0000 MiB")
    by_a_byte = figure_column("memory", "bytes", [Shown(GIB + 1, limit=GIB, mark="✗")])
    assert by_a_byte.cells == ("✗ 1 of 1 GiB",), "its mark and its sentence say it"


# --- what fits -------------------------------------------------------------------------------------------------------

COLUMNS = [
    Column("verdict", ("", "pass"), "left"),
    Column("recipe", ("original", "r"), "left"),
    Column("memory", ("8 MiB", "2 MiB")),
    Column("speedup", ("", "2x"), is_timed=True),
    Column("size", ("4 MiB", "1 MiB")),
]


def _names(tables: list[list[Column]]) -> list[list[str]]:
    return [[column.name for column in table] for table in tables]


def test_a_table_that_fits_stays_one() -> None:
    assert side_by_side(COLUMNS, lambda _: True) == [COLUMNS]


def test_one_that_does_not_is_split_exact_figures_above_timed_ones_and_nothing_is_lost() -> None:
    tables = side_by_side(COLUMNS, lambda some: len(some) <= 4)
    assert _names(tables) == [["verdict", "recipe", "memory", "size"], ["verdict", "recipe", "speedup"]]
    assert tables[1][1].cells == ("r",), "the original has no figure there"
    narrow = side_by_side(COLUMNS, lambda _: False)
    assert [names[2:] for names in _names(narrow)] == [["memory"], ["size"], ["speedup"]]
    assert _names(side_by_side(COLUMNS[:2], lambda _: False)) == [["verdict", "recipe"]]


def test_a_table_is_drawn_as_tabulate_does() -> None:
    assert drawn(COLUMNS[1:3], "pipe").split("\n") == [
        "| recipe   |   memory |",
        "|:---------|---------:|",
        "| original |    8 MiB |",
        "| r        |    2 MiB |",
    ]
