"""What is refused for want of memory: by files as the kernel writes them, made by hand."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from pytest_modelopt import system
from pytest_modelopt.measuring.controller import memory_left
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.results.candidate import Provenance
from pytest_modelopt.results.metric import MetricSpec
from pytest_modelopt.results.source import ProgramSource
from tests.reporting.records_by_hand import measurement

MIB, GIB = 1024**2, 1024**3
MARGIN = 128 * MIB


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 8 GiB available, in no control group."""
    monkeypatch.setattr(system, "PROC", tmp_path / "proc")
    monkeypatch.setattr(system, "CGROUPS", tmp_path / "cgroup")
    write(tmp_path / "proc" / "self" / "stat", "")
    machine_has(monkeypatch, 8 * GIB)
    return tmp_path


def machine_has(monkeypatch: pytest.MonkeyPatch, available: int) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=available))


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def group(folder: Path, limit: str, used: int, files: int) -> None:
    """A control group of version 2."""
    write(folder / "memory.max", f"{limit}\n")
    write(folder / "memory.current", f"{used}\n")
    write(
        folder / "memory.stat",
        f"anon {used - files}\nfile {files}\ninactive_file {files // 2}\nactive_file {files // 2}\n",
    )


def left(kernel: Path) -> int:
    """By asking from where on it is refused, to the byte."""
    del kernel
    low, high = 0, 2**50
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (low, middle - 1) if memory_left.why_not(middle, "") else (middle, high)
    return low - MARGIN


def test_the_least_of_the_machine_and_of_all_groups_above_is_left(kernel: Path) -> None:
    assert left(kernel) == 8 * GIB
    write(kernel / "proc" / "self" / "cgroup", "0::/jobs/one\n")
    assert left(kernel) == 8 * GIB
    group(kernel / "cgroup" / "jobs" / "one", "max", 3 * GIB, 0)
    assert left(kernel) == 8 * GIB
    group(kernel / "cgroup" / "jobs", str(6 * GIB), 5 * GIB, 2 * GIB)  # of which the kernel can drop two
    assert left(kernel) == 3 * GIB
    group(kernel / "cgroup" / "jobs" / "one", str(4 * GIB), 3 * GIB, 0)
    assert left(kernel) == GIB


def test_version_1_and_a_container_that_sees_its_own_group_as_the_root(kernel: Path) -> None:
    write(kernel / "proc" / "self" / "cgroup", "3:cpuset:/\n4:memory:/docker/0f3a\n0::/\n")
    root = kernel / "cgroup" / "memory"
    write(root / "memory.limit_in_bytes", "9223372036854771712\n")
    write(root / "memory.usage_in_bytes", f"{GIB}\n")
    assert left(kernel) == 8 * GIB
    write(root / "memory.limit_in_bytes", f"{2 * GIB}\n")
    write(root / "memory.stat", f"active_file 7\ntotal_inactive_file {MIB}\ntotal_active_file {2 * MIB}\n")
    assert left(kernel) == GIB + 3 * MIB


def test_where_nobody_can_say_nothing_is_refused(kernel: Path) -> None:
    (kernel / "proc" / "self" / "stat").unlink()
    assert memory_left.why_not(2**60, "it is large") == ""


def test_a_saved_model_that_does_not_fit_beside_its_worker_is_told_with_the_arithmetic(kernel: Path) -> None:
    write(kernel / "proc" / "self" / "cgroup", "0::/\n")
    group(kernel / "cgroup", str(6 * GIB), 5 * GIB, 0)
    large = measurement(None, weights=4 * GIB + 205 * MIB, size=5 * GIB)
    assert memory_left.of_another_process(large, "original") == (
        "the original does not fit twice: its worker holds it, and a fresh process that loads what was saved holds it "
        "again, 2 x 4.2 GiB = 8.4 GiB at the least; the second 4.2 GiB are still needed, and 1 GiB are available (of "
        "the 6 GiB of its control group): give the job more memory, or leave it more (fewer processes at once, `-n`)"
    )
    assert memory_left.of_another_process(measurement(None, weights=GIB + MARGIN, size=5 * GIB), "r") == ""
    assert memory_left.of_another_process(measurement(None, weights=GIB + MARGIN + 1, size=5 * GIB), "r") != ""


@pytest.mark.usefixtures("kernel")
def test_what_a_fresh_process_may_not_hold_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that are mapped from a file of the model's own are not in what is saved; programs may be mapped, too."""
    machine_has(monkeypatch, 0)
    large = measurement(None, weights=4 * GIB, size=4 * GIB)
    assert memory_left.of_another_process(large, "r") != ""
    for other in (
        replace(large, size_bytes=MIB),
        replace(large, size_bytes=None),
        replace(large, weights_bytes=None),
        replace(large, runtime="ONNX Runtime"),
        replace(large, reserved_bytes=GIB),
        replace(large, provenance=Provenance("a.pt2", {"a.pt2": 4 * GIB})),
    ):
        assert memory_left.of_another_process(other, "r") == ""


def test_a_variant_of_an_original_whose_weights_no_file_backs(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = torch.ones(200 * MIB // 4)
    group(kernel / "cgroup", str(GIB), GIB, 0)
    write(kernel / "proc" / "self" / "cgroup", "0::/\n")
    of_its_own = measurement(None, weights=held.nbytes)
    assert memory_left.of_the_same_again(of_its_own, 2**30, "int8-dynamic") == ""  # nobody says what it holds
    assert memory_left.of_the_same_again(of_its_own, os.getpid(), "int8-dynamic") == (
        "the int8-dynamic starts from the original, which its own worker holds meanwhile: 2 x 200 MiB = 400 MiB at the "
        "least; the second 200 MiB are still needed, and 0 B are available (of the 1 GiB of its control group): give "
        "the job more memory, or leave it more (fewer processes at once, `-n`)"
    )
    mapped = SimpleNamespace(rss=264 * MIB, shared=200 * MIB)
    monkeypatch.setattr(psutil.Process, "memory_info", lambda process: mapped)
    assert memory_left.of_the_same_again(of_its_own, os.getpid(), "int8-dynamic") == ""


def test_a_program_that_its_runtime_reads_whole(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine_has(monkeypatch, MIB)
    for suffix, told in (
        (".onnx", "reader.onnx has 1 GiB, which its worker holds at the least, and 1 MiB are"),
        (".xml", ""),
    ):
        file = kernel / f"reader{suffix}"
        with file.open("wb") as sparse:
            sparse.truncate(GIB)
        source = ProgramSource(str(file))
        variant = Variant(source, None, None, None, None, MetricSpec("accuracy"), (), "")
        assert memory_left.of_its_files(variant).startswith(told)
        assert (memory_left.of_its_files(variant) == "") == (told == "")
    assert memory_left.of_its_files(replace(variant, model=ProgramSource("gone.onnx"))) == ""
