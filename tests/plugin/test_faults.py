"""A fault in one case takes no other case with it: the small form of `benchmarks/faults.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import faults
from tests.plugin.conftest import one_case

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
    command = [sys.executable, "-m", "pytest", "--modelopt", "--modelopt-time-limit", "1s", "-p", "no:cacheprovider"]
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
