"""Bytes that child processes read: they count where this process gets them, and only there."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from pytest_modelopt.measuring.controller.preloading import PRELOAD
from pytest_modelopt.measuring.worker.memory.balance import OF_READS
from tests.measuring import child_that_reads


def unexplained_bytes(way: str, folder: Path) -> int:
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    ours, theirs = context.Pipe()
    process = context.Process(target=child_that_reads.unexplained_bytes, args=(theirs, str(folder), way))
    process.start()
    theirs.close()
    found: int = ours.recv()
    process.join()
    return found


@pytest.mark.parametrize("way", child_that_reads.NOTHING)
def test_what_a_child_reads_for_itself_is_not_the_models(way: str, tmp_path: Path) -> None:
    assert abs(unexplained_bytes(way, tmp_path)) < OF_READS // 16


@pytest.mark.parametrize("way", child_that_reads.ALL)
def test_what_a_child_reads_and_hands_over_is_the_models(way: str, tmp_path: Path) -> None:
    """Also what this process reads itself, where no hook sees it."""
    assert unexplained_bytes(way, tmp_path) >= child_that_reads.BYTES - OF_READS // 16
