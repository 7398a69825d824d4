"""Next tokens of two sides, put side by side."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import replace

from pytest_modelopt.measuring.controller.answer_comparison import compare_tokens
from pytest_modelopt.measuring.protocol import Answers, Tokens
from pytest_modelopt.results.generation import Divergence, TokenAgreement


def answers(most_probable: Sequence[int], divergence: Divergence | None = None) -> Answers:
    return Answers(9.0, 3, "00ff", None, None, tokens=Tokens(array("q", most_probable), 4, divergence))


def test_flips_are_counted_by_sequence() -> None:
    """Three sequences of four: none, one and three flips."""
    divergence = Divergence(0.1, 0.2, 12)
    before = answers([1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9])
    after = answers([1, 2, 3, 4, 5, 0, 7, 8, 9, 1, 2, 3], divergence)
    assert compare_tokens(before, after) == TokenAgreement(3, 4, flips=4, squares=1 + 9, divergence=divergence)


def test_other_sequences_are_not_compared() -> None:
    side = answers(range(12))
    assert compare_tokens(side, replace(side, data_fingerprint="ff00")) is None
    assert compare_tokens(side, replace(side, tokens=None)) is None
