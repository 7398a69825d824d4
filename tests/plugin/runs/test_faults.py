"""A fault in one case takes no other case with it: the small form of `benchmarks/faults.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import faults
from pytest_modelopt.results.json import read
from tests.plugin.small_project import one_case

FAULTS = [
    faults.Fault("temporary folder vanishes", "factory"),
    faults.Fault("temporary folder vanishes", "forward"),
    faults.Fault("temporary folder vanishes", "data"),
    faults.Fault("fork server killed", "forward"),
    faults.Fault("exit status 0", "import"),
    faults.Fault("closed streams", "data"),
    faults.Fault("daemon", "forward"),
    faults.Fault("closed files", "metric"),
    faults.Fault("TMPDIR vanishes", "metric"),
]


@pytest.mark.slow
def test_no_other_case_is_lost() -> None:
    """In one run, since each takes seconds to start."""
    found = faults.run(FAULTS)
    assert (found.lost, found.unnoticed, found.left) == ([], [], [])
    assert sorted(found.said) == sorted(fault.name for fault in FAULTS)


def test_a_folder_that_vanishes_once_costs_nothing(pytester: pytest.Pytester) -> None:
    """As by a cleaner of the machine: what it took is made again."""
    pytester.makepyfile(
        healthy=faults.HEALTHY,
        cleaned="import glob, os, shutil\nfrom pathlib import Path\nimport healthy\nfrom healthy import model\n"
        "def data():\n    done = Path(__file__).with_name('done')\n    if not done.exists():\n        done.touch()\n"
        "        for path in glob.glob(os.environ['TMPDIR'] + '/*'):\n"
        "            shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)\n"
        "    return healthy.data()\n",
    )
    (pytester.path / "budgets.yaml").write_text(
        one_case("{max_size: 1 MB}", recipe="low-rank(ratio=0.5)", factory="cleaned:model", data="cleaned:data")
    )
    temporary = pytester.mkdir("temporary")
    run_pytest(pytester.path, temporary)
    assert (pytester.path / "done").exists()
    assert list(temporary.iterdir()) == [], "and nothing is left"


def test_a_run_with_onnx_runtime_leaves_nothing_in_the_temporary_folder_or_the_home(pytester: pytest.Pytester) -> None:
    pytest.importorskip("onnxruntime")
    pytester.makepyfile(healthy=faults.HEALTHY)
    (pytester.path / "budgets.yaml").write_text(
        one_case("{max_size: 1 MB}", recipe="onnxruntime", factory="healthy:model", data="healthy:data")
    )
    temporary, home = pytester.mkdir("temporary"), pytester.mkdir("home")
    run_pytest(pytester.path, temporary, HOME=str(home), XDG_CACHE_HOME=str(home))
    left = [path.name for path in (*temporary.iterdir(), *home.rglob("*"))]
    assert [name for name in left if not name.startswith(("torchinductor", "pytest-modelopt", "canary"))] == []


def run_pytest(folder: Path, temporary: Path, **environment: str) -> None:
    command = [sys.executable, "-m", "pytest", "--modelopt", "--modelopt-time-limit", "1 ms", "-p", "no:cacheprovider"]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "TMPDIR": str(temporary), **environment},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_processes_that_a_case_leaves_are_named_and_cost_it_nothing(pytester: pytest.Pytester) -> None:
    started = "def {what}():\n    subprocess.Popen(['sleep', '{time}'], start_new_session=True)\n    return {made}\n"
    leaves = "import subprocess\nimport healthy\n"
    leaves += started.format(what="model", time=601, made="healthy.model()")
    leaves += started.format(what="data", time=602, made="healthy.data()")
    pytester.makepyfile(healthy=faults.HEALTHY, leaves=leaves)
    (pytester.path / "budgets.yaml").write_text(
        one_case("{max_size: 1 MB}", factory="leaves:model", data="leaves:data")
    )
    result = pytester.runpytest("--modelopt", "--modelopt-report=r", "--modelopt-time-limit=1ms")
    result.assert_outcomes(passed=1)
    (case,) = read(pytester.path / "r" / "record.json").cases
    assert case.reference is not None
    assert case.variant is not None
    told = "processes that it has started and not ended are ended with its worker: "
    assert case.reference.notes[-1] == f"{told}`sleep 602`, `sleep 601`"
    assert case.variant.notes[-1] == f"{told}`sleep 601`"
    assert told in (pytester.path / "r" / "summary.md").read_text(encoding="utf-8")
    assert not any(command.startswith("sleep") for command in faults.processes_in(pytester.path, 0).values())
