"""Of a worker's output is told what its owner can use: own lines of stacks, and no library's talk about itself."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

from pytest_modelopt.measuring.controller import process
from pytest_modelopt.measuring.worker_output import told

TORCH = sysconfig.get_path("purelib") + "/torch/nn/modules/module.py"
OURS = str(Path(process.__file__))
STACK = f"""\
last words
Fatal Python error: Segmentation fault

Thread 0x00007f0000000001 (most recent call first):
  File "{TORCH}", line 5 in idle

Current thread 0x00007f0000000002 (most recent call first):
  File "{TORCH}", line 1787 in _call_impl
  File "/project/model.py", line 12 in forward
  File "{TORCH}", line 1776 in _call_impl
  File "/project/model.py", line 30 in embed
  File "{OURS}", line 3 in load
  ...

Extension modules: torch._C, numpy (total: 2)
"""


def test_of_a_stack_the_users_own_lines_are_told() -> None:
    assert told(STACK).splitlines() == [
        "last words",
        "Fatal Python error: Segmentation fault",
        "Current thread 0x00007f0000000002 (most recent call first):",
        '  File "/project/model.py", line 12 in forward',
        '  File "/project/model.py", line 30 in embed',
    ]


def test_of_a_stack_without_own_lines_the_innermost_one_is_told() -> None:
    text = (
        f'Current thread 0x1 (most recent call first):\n  File "{TORCH}", line 1 in f\n  File "{OURS}", line 2 in g\n'
    )
    assert told(text).splitlines()[1:] == [f'  File "{TORCH}", line 1 in f']


def test_of_a_stack_in_installed_packages_all_but_torch_is_told() -> None:
    own = sysconfig.get_path("purelib") + "/our_models/net.py"
    frames = "".join(f'  File "{file}", line 1 in f\n' for file in (TORCH, own, TORCH, OURS))
    assert told(f"Thread 0x1 (most recent call first):\n{frames}").splitlines()[1:] == [f'  File "{own}", line 1 in f']


@pytest.mark.parametrize("place", ["/usr/src/app/model.py", OURS.replace("pytest_modelopt/", "pytest_modelopt_x/")])
def test_a_project_beside_what_is_installed_is_the_users(place: str) -> None:
    text = f'Thread 0x1 (most recent call first):\n  File "{place}", line 1 in f'
    assert told(text) == text


def test_of_a_line_that_is_written_over_the_last_state_is_told() -> None:
    assert told("loading\r\n 10%|#   |\r 20%|##  |\r\x1b[K 30%|### |\nkilled") == "loading\n 30%|### |\nkilled"


def test_frames_of_a_traceback_that_the_user_printed_stay() -> None:
    text = f'Traceback (most recent call last):\n  File "{TORCH}", line 1, in f\n    return g()\nKeyError: 1\n'
    assert told(text) == text.rstrip()


def test_a_profilers_talk_is_no_output() -> None:
    assert told(
        "[W1129 05:00:00.123456789 CPUAllocator.cpp:249] Memory block of unknown size was allocated before it\n"
        "STAGE:2026-11-29 05:00:00 12:12 ActivityProfilerController.cpp:314] Completed Stage: Warm Up\n"
        "ERROR:2026-11-29 05:00:00 12:12 DynoConfigLoader.cpp:10] no daemon\n"
        "epoch 3 of 5\n"
    ) == "epoch 3 of 5"  # fmt: skip


def test_not_without_end() -> None:
    assert told("\n".join(map(str, range(100)))).splitlines() == [str(n) for n in range(80, 100)]
    assert len(told("x" * 10_000)) < 600
