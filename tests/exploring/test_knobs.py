"""Knobs: which an expression has, what their settings make, and which recipes belong to a family."""

from __future__ import annotations

import pytest

from pytest_modelopt.exploring.knobs import families
from pytest_modelopt.optimizing.expression import parse

LINEAR_BYTES = 1_000_000


def knobs_of(text: str) -> list[list[str]]:
    return [[knob.text for knob in family.knobs] for family in families(parse(text), LINEAR_BYTES)]


@pytest.mark.parametrize(
    ("text", "knobs"),
    [
        ("int8-dynamic", []),
        ("prune-structured(ratio=0.3)", [["0.ratio"]]),  # its `batches` need calibration data only with taylor
        ("prune-structured(ratio=0.3, importance=taylor)", [["0.ratio", "0.batches"]]),
        ("int8-static", [["0.batches"]]),
        ("low-rank(ratio=0.5)", [["0.ratio"], ["0.energy"], ["0.bytes"]]),
        ("low-rank(energy=0.9)", [["0.energy"], ["0.ratio"], ["0.bytes"]]),
        ("prune-structured(ratio=0.3) + int8-static", [["0.ratio", "1.batches"]]),
        ("low-rank(ratio=0.5) + int8-dynamic", [["0.ratio"], ["0.energy"], ["0.bytes"]]),
    ],
)
def test_what_may_stand_instead_is_a_family_of_its_own(text: str, knobs: list[list[str]]) -> None:
    assert knobs_of(text) == knobs


def test_every_setting_is_a_recipe_that_a_file_can_state() -> None:
    for text in ("low-rank(ratio=0.5) + int8-dynamic", "prune-structured(ratio=0.3, round_to=4) + int8-static"):
        for family in families(parse(text), LINEAR_BYTES):
            for number in range(7):
                indices = tuple(number * (len(knob.settings) - 1) // 6 for knob in family.knobs)
                made = family.recipe(indices)
                assert parse(str(made)) == made
                assert family.indices(made) == indices
                assert ("round_to=4" in made.text) == ("round_to" in text)


def test_settings_go_from_much_to_little_and_are_distinct() -> None:
    ratio, energy, of_bytes = (family.knobs[0].settings for family in families(parse("low-rank"), LINEAR_BYTES))
    assert (ratio[0], ratio[-1], len(ratio)) == (0.05, 0.95, 91)
    assert energy[0] == 0.5
    assert energy[-1] == pytest.approx(0.999, abs=0.001)
    assert (of_bytes[-1], 40_000 < of_bytes[0] < 60_000) == (950_000, True)
    for settings in (ratio, energy, of_bytes):
        assert list(settings) == sorted(set(settings))


def test_a_recipe_of_another_kind_is_of_another_family() -> None:
    (family,) = families(parse("prune-structured(ratio=0.3)"), LINEAR_BYTES)
    same = family.indices(parse("prune-structured(ratio=0.5)"))
    assert same is not None
    assert family.recipe(same).text == "prune-structured(ratio=0.5)"
    for other in ("prune-structured(ratio=0.3) + int8-dynamic", "prune-structured(ratio=0.3, heads=true)", "bf16"):
        assert family.indices(parse(other)) is None
