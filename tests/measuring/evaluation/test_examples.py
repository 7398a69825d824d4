"""The evaluation data: read once into a file, hashed example by example, sliced, and compared with a second reading."""

from __future__ import annotations

import hashlib
import random
import re
from array import array
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from pytest_modelopt.measuring.protocol import VariantError
from pytest_modelopt.measuring.worker.data import batches
from pytest_modelopt.measuring.worker.data.examples import (
    _LENGTH,
    Pass,
    Positions,
    Slices,
    _packed,
    _unpacked,
    compare_with_first,
    read,
    read_batches,
)
from pytest_modelopt.measuring.worker.data.hashing import Fingerprint, hashes_of_inputs
from pytest_modelopt.measuring.worker.metrics.scorer import Batch
from pytest_modelopt.optimizing.modules import nested_values

INPUTS = torch.arange(300.0).reshape(100, 3)
TARGETS = torch.arange(100) % 3


def cut(inputs: Any, targets: Any, size: int) -> Iterator[Batch]:
    for start in range(0, len(targets), size):
        yield Batch(nested_values.cut(inputs, slice(start, start + size)), targets[start : start + size], start)


def fingerprint(inputs: Any, targets: Any, size: int = 64) -> str:
    found = Fingerprint()
    for batch in cut(inputs, targets, size):
        found.add(batch)
    return found.hexdigest()


# --- hashes ----------------------------------------------------------------------------------------------------------


def test_the_fingerprint_does_not_depend_on_how_the_examples_are_cut_into_batches() -> None:
    words = [f"word {index}" for index in range(100)]
    for inputs, targets in ((INPUTS, TARGETS), ((INPUTS, INPUTS + 1), TARGETS), ({"x": INPUTS}, words)):
        assert len({fingerprint(inputs, targets, size) for size in (1, 7, 64, 100)}) == 1


def test_the_fingerprint_tells_other_orders_values_types_shapes_and_names_apart() -> None:
    other_value = INPUTS.clone()
    other_value[99, 2] += 1
    negative_zero = INPUTS.clone()
    negative_zero[0, 0] = -0.0
    words = [f"{index}" for index in range(100)]
    found = [
        fingerprint(INPUTS, TARGETS),
        fingerprint(INPUTS.flip(0), TARGETS),
        fingerprint(other_value, TARGETS),
        fingerprint(negative_zero, TARGETS),
        fingerprint(INPUTS.double(), TARGETS),
        fingerprint(INPUTS.to(torch.bfloat16), TARGETS),
        fingerprint(INPUTS.reshape(100, 3, 1), TARGETS),
        fingerprint(INPUTS, TARGETS.flip(0)),
        fingerprint(INPUTS, TARGETS.int()),
        fingerprint({"x": INPUTS}, TARGETS),
        fingerprint({"y": INPUTS}, TARGETS),
        fingerprint((INPUTS, INPUTS + 1), TARGETS),
        fingerprint((INPUTS + 1, INPUTS), TARGETS),
        fingerprint(INPUTS, words),
        fingerprint(INPUTS, list(range(100))),
        fingerprint(INPUTS, [[word] for word in words]),
        fingerprint(INPUTS, [["1", "23"]] * 100),
        fingerprint(INPUTS, [["12", "3"]] * 100),
        fingerprint(INPUTS, [{"a": "b"}] * 100),
        fingerprint(INPUTS, [{"b": "a"}] * 100),
        fingerprint(INPUTS, [torch.arange(index) for index in range(100)]),
        fingerprint(INPUTS, [torch.arange(index).int() for index in range(100)]),
        fingerprint(INPUTS[:99], TARGETS[:99]),
    ]
    assert len(set(found)) == len(found)
    assert fingerprint({"a": INPUTS, "b": INPUTS + 1}, TARGETS) == fingerprint({"b": INPUTS + 1, "a": INPUTS}, TARGETS)


def test_a_hash_is_of_the_values_and_not_of_how_they_lie_in_memory() -> None:
    images = torch.arange(2.0 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    last = images.to(memory_format=torch.channels_last)
    assert last.stride() != images.stride()
    assert (
        hashes_of_inputs(Batch(images, None))
        == hashes_of_inputs(Batch(last, None))
        == hashes_of_inputs(Batch(torch.cat([images, images])[:2], None))
    )
    assert len(set(hashes_of_inputs(Batch(torch.zeros(3, 0), None)))) == 1, "no numbers, all the same"


def test_a_hash_is_blake2b_of_name_type_shape_and_bytes() -> None:
    header = b":torch.float32:(3,)"
    row = numpy.array([3, 4, 5], dtype="<f4").tobytes()
    by_hand = hashlib.blake2b(len(header).to_bytes(4, "little") + header + row, digest_size=16)
    assert hashes_of_inputs(Batch(INPUTS, None))[1] == by_hand.digest()


# --- the file --------------------------------------------------------------------------------------------------------

DATA: dict[str, tuple[Any, Any]] = {
    "tensors": (INPUTS, TARGETS),
    "several inputs": ((INPUTS, INPUTS.to(torch.bfloat16)), TARGETS),
    "a dict and text": ({"x": INPUTS, "mask": INPUTS > 5}, [f"wörd {index}" for index in range(100)]),
    "detection": (INPUTS, [{"boxes": torch.ones(index % 3, 4), "name": ["a", None, 1.5]} for index in range(100)]),
}


@pytest.mark.parametrize("form", DATA)
def test_what_was_read_comes_back_in_the_same_batches(form: str, tmp_path: Path) -> None:
    inputs, targets = DATA[form]
    found = read(cut(inputs, targets, 7), tmp_path / "file")
    assert (found.count, found.fingerprint, found.notes) == (100, fingerprint(inputs, targets), ())
    again = list(read_batches(found))
    expected = list(cut(inputs, targets, 7))
    assert [batch.first for batch in again] == [batch.first for batch in expected]
    for one, other in zip(again, expected, strict=True):
        torch.testing.assert_close(one.inputs, other.inputs, rtol=0, atol=0)
        assert repr(one.targets) == repr(other.targets)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "file.hashes"}
    assert Path(found.hashes_path).read_bytes() == b"".join(hashes_of_inputs(Batch(inputs, None)))


def test_strides_come_back_too_since_kernels_are_chosen_by_them(tmp_path: Path) -> None:
    images = torch.arange(2.0 * 3 * 4 * 5).reshape(2, 3, 4, 5).to(memory_format=torch.channels_last)
    (batch,) = read_batches(read([Batch(images, None)], tmp_path / "file"))
    assert isinstance(batch.inputs, torch.Tensor)
    assert batch.inputs.stride() == images.stride()


def test_the_file_holds_each_example_once_and_not_what_it_is_a_view_of(tmp_path: Path) -> None:
    inputs = torch.randn(1000, 256)
    found = read(cut(inputs, torch.zeros(1000), 10), tmp_path / "file")
    assert found.path is not None
    assert inputs.nbytes < Path(found.path).stat().st_size < 1.5 * inputs.nbytes


def test_nothing_is_left_of_a_reading_that_failed(tmp_path: Path) -> None:
    def broken() -> Iterator[Batch]:
        yield Batch(INPUTS, TARGETS)
        raise VariantError("no more")

    with pytest.raises(VariantError, match="no more"):
        read(broken(), tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_data_beyond_the_bound_is_not_kept_and_it_is_said(tmp_path: Path) -> None:
    found = read(cut(INPUTS, TARGETS, 7), tmp_path / "file", most_bytes=4096)
    assert (found.path, found.count, found.fingerprint) == (None, 100, fingerprint(INPUTS, TARGETS))
    assert found.notes == (
        "the batches of the data take more than 4 KiB, so every variant reads the data from its source",
    )
    assert [path.name for path in tmp_path.iterdir()] == ["file.hashes"]
    assert len(Path(found.hashes_path).read_bytes()) == 100 * 16


def test_a_full_disk_costs_the_file_and_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real one: /dev/full takes nothing."""
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    real = Path.open

    def on_a_full_disk(path: Path, *arguments: Any, **named: Any) -> Any:
        if path.name == "file.part":
            path.touch()
            return real(Path("/dev/full"), "wb", buffering=0)
        return real(path, *arguments, **named)

    monkeypatch.setattr(Path, "open", on_a_full_disk)
    found = read(cut(INPUTS, TARGETS, 7), tmp_path / "file")
    assert (found.path, found.count) == (None, 100)
    assert found.notes[0].startswith("the batches of the data could not be kept (OSError: [Errno 28] No space left")
    assert [path.name for path in tmp_path.iterdir()] == ["file.hashes"]


def test_a_file_that_lost_its_end_is_noticed(tmp_path: Path) -> None:
    found = read(cut(INPUTS, TARGETS, 50), tmp_path / "file")
    shorter = read(cut(INPUTS[:50], TARGETS[:50], 50), tmp_path / "shorter")
    with pytest.raises(VariantError, match="the file of the data holds 50 examples, and 100 were read"):
        list(read_batches(replace(found, path=shorter.path)))


def test_one_example_is_said_to_be_one(tmp_path: Path) -> None:
    found = read(cut(INPUTS[:1], TARGETS[:1], 1), tmp_path / "file")
    assert found.notes == ("the data is one single example, which says nothing about others",)


def test_a_pass_over_the_source_has_the_fingerprint_of_the_file(tmp_path: Path) -> None:
    found = read(cut(INPUTS, TARGETS, 7), tmp_path / "file", Slices(lambda x, target: int(target)))
    for one, is_from_file in ((read_batches(found), True), (cut(INPUTS, TARGETS, 9), False)):
        data = Pass(one, found, is_from_file=is_from_file)
        slices = [number for batch in data for number in batch.slices or ()]
        assert slices == TARGETS.tolist()
        assert data.fingerprint == found.fingerprint
    assert [batch.slices for batch in Pass(cut(INPUTS, TARGETS, 50), None, is_from_file=False)] == [None, None]
    longer = Pass(cut(INPUTS.repeat(2, 1), TARGETS.repeat(2), 50), found, is_from_file=False)
    with pytest.raises(VariantError, match="there are more than the 100 examples of the first time"):
        list(longer)


# --- slices ----------------------------------------------------------------------------------------------------------


def sliced(function: Callable[[Any, Any], Any], inputs: Any = INPUTS, targets: Any = TARGETS) -> Slices:
    found = Slices(function)
    for batch in cut(inputs, targets, 7):
        found.add(batch)
    return found


def test_the_slice_function_sees_one_example_without_its_batch_dimension() -> None:
    seen = []

    def look(inputs: Any, target: Any) -> str:
        seen.append((inputs, target))
        return "long" if inputs.sum() > 30 else "short"

    found = sliced(look)
    assert found.names == ("short", "long")
    # By hand: the sum of row n is 9 n + 3, which is more than 30 from n = 4 on.
    assert found.of == array("H", [0] * 4 + [1] * 96)
    assert all(torch.equal(x, INPUTS[n]) and int(target) == n % 3 for n, (x, target) in enumerate(seen))


def test_inputs_come_in_the_form_of_the_batch_and_targets_as_their_entries() -> None:
    words = [f"word {index}" for index in range(100)]
    assert sliced(lambda x, word: word[-1], INPUTS, words).names == tuple("0123456789")
    assert sliced(lambda x, _: str(tuple(x["a"].shape)), {"a": INPUTS}).names == ("(3,)",)
    assert sliced(lambda x, _: len(x), (INPUTS, INPUTS)).names == ("2",)
    found = Slices(lambda x, target: str(target))
    found.add(Batch(INPUTS, None))
    assert found.names == ("None",)


def at(index: int, value: Any) -> Callable[[Any, Any], Any]:
    """A slice function that gives `value` for one example, and does well else."""
    return lambda x, target: value if x[0] == 3 * index else "fine"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            lambda x, _: str(1 / (x[0] - 3 * 71).item()),
            "raised ZeroDivisionError: float division by zero on example 71",
        ),
        (lambda x: "a", "it is called as function(inputs, target) with one example, which has no batch dimension"),
        (at(71, None), "the slice function gave a NoneType for example 71, and must give the name of its slice"),
        (at(71, torch.tensor(1)), "gave a Tensor for example 71"),
        (at(71, torch.tensor(1)), "text or a whole number (`.item()` makes one of a tensor of one element)"),
        (at(71, 1.5), "gave a float for example 71"),
        (at(71, ""), "gave '' for example 71: a name has 1 to 100 printable characters, and this one has 0"),
        (at(71, "  "), "gave '  ' for example 71"),
        (at(71, "a" * 101), "printable characters, and this one has 101"),
        (at(71, "\x1b[31mred"), "gave '\\x1b[31mred' for example 71: a name has 1 to 100 printable characters"),
        (at(71, "two\nlines"), "gave 'two\\nlines' for example 71"),
    ],
)
def test_a_slice_function_that_gives_no_name_says_for_which_example(function: Any, message: str) -> None:
    with pytest.raises(VariantError, match=re.escape(message)):
        sliced(function)


def test_a_slice_of_each_example_is_no_slice() -> None:
    inputs = torch.arange(1200.0).reshape(1200, 1)
    message = "more than 1,000 different names up to example 1000 (the last one is '1000')"
    with pytest.raises(VariantError, match=re.escape(message)):
        sliced(lambda x, _: int(x), inputs, torch.zeros(1200))
    assert len(sliced(lambda x, _: int(x) % 1000, inputs, torch.zeros(1200)).names) == 1000


def test_what_names_slices_must_be_a_function() -> None:
    with pytest.raises(VariantError, match=re.escape("`slices` is a dict; give a function (inputs, target) -> name")):
        Slices({0: "a"})  # type: ignore[arg-type]


def test_a_slice_function_that_draws_at_random_does_not_change_the_data_behind_it(tmp_path: Path) -> None:
    def drawn() -> Iterator[Batch]:
        random.seed(1), torch.manual_seed(1), numpy.random.seed(1)
        for first in range(0, 40, 10):
            row = [random.random(), float(torch.rand(())), numpy.random.rand()]
            yield Batch(torch.tensor([row] * 10), torch.zeros(10), first)

    def draws(inputs: Any, target: Any) -> str:
        return "high" if random.random() + float(torch.rand(())) + numpy.random.rand() > 1.5 else "low"

    assert read(drawn(), tmp_path / "a").fingerprint == read(drawn(), tmp_path / "b", Slices(draws)).fingerprint


# --- a second reading ------------------------------------------------------------------------------------------------

SAID = "the data differs from one load to the next: "


def compared(first: Any, again: Any, tmp_path: Path) -> int:
    """Read both; how many examples of the second were drawn."""
    drawn = 0

    def counted() -> Iterator[Batch]:
        nonlocal drawn
        for batch in batches.batches(again):
            drawn += batch.examples
            yield batch

    compare_with_first(counted(), read(batches.batches(first), tmp_path / "file"))
    return drawn


def numbers(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(float(count)).reshape(-1, 1), torch.zeros(count)


@pytest.mark.parametrize(("count", "drawn"), [(1, 1), (100, 100), (256, 256), (257, 256), (5000, 256)])
def test_the_same_data_passes_and_only_its_beginning_is_read(count: int, drawn: int, tmp_path: Path) -> None:
    assert compared(numbers(count), numbers(count), tmp_path) == drawn


def other(index: int) -> Any:
    inputs, targets = numbers(300)
    targets[index] = 1
    return inputs, targets


def swapped() -> Any:
    inputs, targets = numbers(300)
    inputs[[7, 9]] = inputs[[9, 7]]
    return inputs, targets


@pytest.mark.parametrize(
    ("again", "message"),
    [
        (
            [],
            SAID + "the second time there was no example, and 300 the first time; the data factory must give the same",
        ),
        (numbers(250), SAID + "the second time there were 250 examples, and 300 the first time"),
        (other(41), SAID + "example 41 was another one the second time (1 of the 256 that were compared differ)"),
        (swapped(), SAID + "example 7 of the second time stood elsewhere the first time (2 of the 256 that were"),
    ],
)
def test_other_data_the_second_time_is_told_apart(again: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(VariantError, match=re.escape(message)):
        compared(numbers(300), again, tmp_path)


def test_more_data_the_second_time_is_seen_where_all_is_compared(tmp_path: Path) -> None:
    for count in (64, 256):
        folder = tmp_path / str(count)
        folder.mkdir()
        with pytest.raises(VariantError, match=re.escape(f"more than the {count} examples of the first time")):
            compared(numbers(count), numbers(count + 1), folder)
    compared(numbers(300), other(299), tmp_path)  # beyond what is compared


# --- positions -------------------------------------------------------------------------------------------------------


def test_examples_are_found_by_their_first_position(tmp_path: Path) -> None:
    inputs = torch.cat([INPUTS, INPUTS[:10]])
    found = Positions(read(cut(inputs, torch.zeros(110), 9), tmp_path / "file").hashes_path)
    wanted = torch.cat([INPUTS[5:6], INPUTS[99:], INPUTS[:1] - 1, INPUTS[:1]])
    assert found.find(hashes_of_inputs(Batch(wanted, None))) == [5, 99, None, 0]
    everything = found.find(hashes_of_inputs(Batch(inputs, None)))
    assert everything == [*range(100), *range(10)]


def test_half_a_hash_is_not_enough(tmp_path: Path) -> None:
    file = tmp_path / "hashes"
    file.write_bytes(b"a" * 16 + b"b" * 16)
    assert Positions(str(file)).find([b"a" * 8 + b"b" * 8, b"b" * 16]) == [None, 1]


def test_inputs_that_share_memory_share_it_in_the_file_and_in_the_measured_call() -> None:
    x = torch.arange(24.0).reshape(6, 4)
    batch = Batch((x, x[:, 1:]), torch.arange(6))
    written = _unpacked(_packed(batch)[_LENGTH:], 0)
    measured, _ = batches.first_examples([batch], 2, "data")
    for first, other in (written.inputs, measured):
        first.fill_(7)
        assert (other == 7).all()
    assert x[0, 0] == 0
