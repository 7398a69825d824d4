"""The process memory of a base: measured as head's is, in processes that note nothing."""

from __future__ import annotations

from pathlib import Path

from pytest_modelopt.measuring.controller.fresh_processes import RUNS, measure_process_memory
from pytest_modelopt.measuring.controller.variant_measurement import Measuring
from pytest_modelopt.measuring.controller.worker_context import Measured, StepLimits, WorkerContext
from pytest_modelopt.measuring.variant import SourceTree, Variant
from pytest_modelopt.plugin.progress import Silent
from pytest_modelopt.results.metric import MetricSpec

NOTICES = '''
import torch
from pathlib import Path
from torch import nn
from pytest_modelopt.measuring.worker.watches import opened_files

def note(where):
    """Whether this process notes the files that it opens, of which this is one."""
    with Path(__file__).with_name(where).open("a") as file:
        file.write(f"{bool(opened_files._opened)} ")

class Notices(nn.Linear):
    def __setstate__(self, state):
        super().__setstate__(state)
        note("loaded")

def model():
    note("made")
    return Notices(2048, 512).eval()

def inputs():
    return torch.zeros(1, 2048)
'''


def test_a_base_is_watched_where_it_is_made_and_not_where_its_memory_is_measured(tmp_path: Path) -> None:
    (tmp_path / "notices.py").write_text(NOTICES, encoding="utf-8")
    folder = str(tmp_path)
    tree = SourceTree(str(tmp_path / "head"), folder, 40 * "0", True)
    base = Variant("notices:model", None, None, None, "notices:inputs", MetricSpec(), (folder,), folder, tree=tree)
    context, measured = WorkerContext(StepLimits(1, 60), Silent()), Measured(base)
    try:
        Measuring(context, Silent()).measure(measured, "m")
        measure_process_memory(context, measured, "m")
    finally:
        context.discard(measured)
        context.close()
    assert measured.measurement is not None
    assert measured.measurement.process_memory is not None
    assert (tmp_path / "made").read_text(encoding="utf-8").split() == ["True"]
    assert (tmp_path / "loaded").read_text(encoding="utf-8").split() == ["True", *RUNS * ["False"]]  # the books first
