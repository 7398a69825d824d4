"""Spelling: the nearest correct word is found, and values are shown on one short line."""

from __future__ import annotations

import pytest

from pytest_modelopt.limits.spelling import did_you_mean, nearest, plain, shown

LIMITS = ["max_memory", "min_memory_reduction", "min_speedup"]


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("max-memory", "max_memory"),
        ("MAX MEMORY", "max_memory"),
        ("max_memroy", "max_memory"),
        ("speedup", "min_speedup"),
        ("colour", None),
        ("", None),
    ],
)
def test_the_nearest_word_is_found_whatever_its_case_and_its_dashes(word: str, meant: str | None) -> None:
    assert nearest(word, LIMITS) == meant


def test_a_guess_is_offered_where_one_is_near_and_else_all_words() -> None:
    assert did_you_mean("max-memory", LIMITS) == "; did you mean 'max_memory'?"
    assert did_you_mean("colour", LIMITS) == "; the valid ones are max_memory, min_memory_reduction, min_speedup"
    assert did_you_mean("colour", []) == ""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "nothing"),
        (True, "true"),
        (6, "6"),
        ("a\nb\x1b", r"'a\nb\x1b'"),
        ([1], "a list"),
        ({}, "a mapping"),
        (object(), "a object"),
    ],
)
def test_any_value_is_shown_on_one_line(value: object, expected: str) -> None:
    assert shown(value) == expected


def test_long_text_is_shortened() -> None:
    assert len(shown("x" * 1000)) < 80
    assert len(shown(10**100)) < 80
    assert shown(10**5000) == "a number of thousands of digits"
    assert len(plain("x" * 1000)) < 120
