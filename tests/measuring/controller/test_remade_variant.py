"""Whether a variant that is made again is the one that a record tells of, by what both are known by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_modelopt.measuring.controller.remade_variant import unlike
from pytest_modelopt.measuring.protocol import Loaded
from pytest_modelopt.results.candidate import Provenance
from pytest_modelopt.results.json import read, write
from pytest_modelopt.results.measurement import Measurement
from pytest_modelopt.results.observations import Observations
from tests.reporting.records_by_hand import measurement, realistic, variant_changed

SUMS = {".xml": "f6" * 32, ".bin": "a1" * 32}


def recorded(folder: Path, shipped: dict[str, str], digest: str | None) -> Measurement:
    """As the file of a record gives it back."""
    seen = Observations(digest=digest, unobserved={} if digest else {"digest": "it is compiled"})
    record = realistic()
    case = variant_changed(record.cases[0], shipped=shipped, observations=seen)
    write(replace(record, cases=(case, *record.cases[1:])), folder / "record.json")
    variant = read(folder / "record.json").cases[0].variant
    assert variant is not None
    return variant


def made(shipped: dict[str, str], digest: str | None) -> Loaded:
    return Loaded((), None, "", True, shipped=shipped, digest=digest)


def test_a_variant_of_several_files_is_known_by_the_sum_of_each(tmp_path: Path) -> None:
    """A record has them in another order than the runtime."""
    before = recorded(tmp_path, SUMS, "00" * 32)
    assert list(before.shipped) != list(SUMS)
    assert unlike(before, made(SUMS, None)) == ""
    for suffix in SUMS:
        told = unlike(before, made({**SUMS, suffix: "00" * 32}, "00" * 32))
        assert told.startswith("made again, the variant is not what was measured: its sum is ")
    swapped = {".bin": SUMS[".xml"], ".xml": SUMS[".bin"]}
    assert "is not what was measured" in unlike(before, made(swapped, "00" * 32))


def test_a_candidate_in_a_file_is_known_by_the_sums_of_its_files() -> None:
    sums = {"dist/a.onnx": "f6" * 32, "dist/a.data": "a1" * 32}
    before = replace(measurement(None), provenance=Provenance("dist/a.onnx", {}, sums))
    same, other = (
        replace(made({}, None), provenance=Provenance("dist/a.onnx", {}, each))
        for each in (dict(reversed(sums.items())), sums | {"dist/a.data": "00" * 32})
    )
    assert unlike(before, same) == ""
    assert unlike(before, other).startswith("made again, the variant is not what was measured: its sum is dist/a.onnx ")


def test_a_variant_of_torch_is_known_by_what_it_holds(tmp_path: Path) -> None:
    """Whatever files of it were written before."""
    before = recorded(tmp_path, {".pt2": "12" * 32}, "34" * 32)
    assert unlike(before, made({}, "34" * 32)) == ""
    assert unlike(before, made({}, "12" * 32)) == (
        f"made again, the variant is not what was measured: its sum is {'12' * 32}, and that of the record {'34' * 32}"
    )


@pytest.mark.parametrize("digest", [None, "34" * 32])
def test_what_has_no_sum_is_not_taken_for_the_same(tmp_path: Path, digest: str | None) -> None:
    told = unlike(recorded(tmp_path, {}, None), made({}, digest))
    assert told == "it is not known whether the variant is what was measured: it has no sum (it is compiled)"
    assert "(not looked at)" in unlike(replace(measurement(None), observations=None), made({}, digest))
