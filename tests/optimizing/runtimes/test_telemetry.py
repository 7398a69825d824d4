"""No runtime reports home, or leaves a file there, because we import it."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from pytest_modelopt.measuring.controller.process import worker_environment

IMPORTS = """
import contextlib, importlib, os, sys, time
from pytest_modelopt.optimizing.runtimes import telemetry

asked = []
def note(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        asked.append((event, str(arguments)))
sys.addaudithook(note)
with telemetry.off() if "off" in sys.argv else contextlib.nullcontext():
    for name in sys.argv[2:]:
        importlib.import_module(name)
if "huggingface_hub" in sys.modules:
    assert sys.modules["huggingface_hub"].constants.HF_HUB_DISABLE_TELEMETRY
time.sleep(1)  # a reporter has a thread of its own
left = [*os.listdir(os.environ["HOME"]), *os.listdir(os.environ["TMPDIR"])]
print(asked, *(name for name in left if not name.startswith("torchinductor_")))  # the cache of torch's compiler
"""


@pytest.mark.parametrize(
    ("how", "modules"),
    [
        ("off", ("openvino", "nncf", "onnxruntime", "onnxruntime.quantization")),
        ("as it is", ("ai_edge_litert.interpreter", "torchao", "torchmetrics", "huggingface_hub")),
    ],
)
def test_an_import_reports_nothing_and_leaves_nothing(tmp_path: Path, how: str, modules: tuple[str, ...]) -> None:
    """Those of a worker, in its environment."""
    here = [name for name in modules if find_spec(name.partition(".")[0]) is not None]
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    home.mkdir()
    temporary.mkdir()
    with worker_environment():
        environment = {name: value for name, value in os.environ.items() if name not in ("CI", "XDG_CACHE_HOME")}
    environment |= {"HOME": str(home), "TMPDIR": str(temporary)}
    command = [sys.executable, "-W", "ignore", "-c", IMPORTS, how, *here]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
