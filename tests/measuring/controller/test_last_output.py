"""Of a worker's output is told what its owner can use: own lines of stacks, and no library's talk about itself."""

from __future__ import annotations

import io
import sysconfig
from pathlib import Path
from types import FunctionType

import pytest

from pytest_modelopt.measuring.controller import process
from pytest_modelopt.measuring.protocol import VariantError, error_text
from pytest_modelopt.measuring.worker.main import _print_cause
from pytest_modelopt.measuring.worker_output import last_lines

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
    assert last_lines(STACK).splitlines() == [
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
    assert last_lines(text).splitlines()[1:] == [f'  File "{TORCH}", line 1 in f']


def test_of_a_stack_in_installed_packages_all_but_torch_is_told() -> None:
    own = sysconfig.get_path("purelib") + "/our_models/net.py"
    frames = "".join(f'  File "{file}", line 1 in f\n' for file in (TORCH, own, TORCH, OURS))
    shown = last_lines(f"Thread 0x1 (most recent call first):\n{frames}").splitlines()
    assert shown[1:] == [f'  File "{own}", line 1 in f']


@pytest.mark.parametrize("place", ["/usr/src/app/model.py", OURS.replace("pytest_modelopt/", "pytest_modelopt_x/")])
def test_a_project_beside_what_is_installed_is_the_users(place: str) -> None:
    text = f'Thread 0x1 (most recent call first):\n  File "{place}", line 1 in f'
    assert last_lines(text) == text


def test_of_a_line_that_is_written_over_the_last_state_is_told() -> None:
    assert last_lines("loading\r\n 10%|#   |\r 20%|##  |\r\x1b[K 30%|### |\nkilled") == "loading\n 30%|### |\nkilled"


def test_frames_of_a_traceback_that_the_user_printed_stay() -> None:
    text = f'Traceback (most recent call last):\n  File "{TORCH}", line 1, in f\n    return g()\nKeyError: 1\n'
    assert last_lines(text) == text.rstrip()


def test_what_libraries_say_of_themselves_or_raise_as_well_is_no_output() -> None:
    code = "  WeightNorm.apply(module, name, dim)\n"
    graph = """\
def forward(self, arg0_1: "f32[64, 64]", arg1_1: "f32[s77, 64]"):
    # File: /project/model.py:20 in forward, code: if float(x.sum()) > 1: return x
    sum_1: "f32[]" = torch.ops.aten.sum.default(arg1_1);  arg1_1 = None
"""
    assert last_lines(
        f"epoch 1\n{TORCH}:365: DeprecationWarning: `torch.jit.script` is deprecated.\n  warnings.warn(\n"
        f"{TORCH}:144: FutureWarning: `torch.nn.utils.weight_norm` is deprecated\n{code}"
        "2026-11-29 16:50:09.884197821 [E:onnxruntime:, sequential_executor.cc:677 ExecuteKernel] Non-zero status\n"
        f"{graph}  indented\n/project/model.py:3: FutureWarning: mine\n  mine()\n"
        f"{TORCH}:9: UserWarning: LSTM with projections is not supported\n"
    ).splitlines() == [
        "epoch 1",
        "  indented",
        "/project/model.py:3: FutureWarning: mine",
        "  mine()",
        f"{TORCH}:9: UserWarning: LSTM with projections is not supported",
    ]


@pytest.mark.parametrize(
    ("file", "sentence", "expected"),
    [
        ("/project/model.py", "not traceable (model.py:1: `fail()`): ValueError", ""),
        ("/project/model.py", "not traceable: ValueError", "/project/model.py"),
        ("/project/model.py", "not traceable (other.py:1: `fail()`): ValueError", "/project/model.py"),
        (TORCH.replace("/torch/", "/torchao/"), "not traceable: ValueError", ""),
        (TORCH.replace("/torch/", "/litert_torch/"), "not traceable: ValueError", ""),
        (TORCH.replace("/torch/", "/our_models/"), "not traceable: ValueError", "/our_models/"),
    ],
)
def test_a_line_that_the_sentence_names_is_not_told_again(file: str, sentence: str, expected: str) -> None:
    log, error = io.StringIO(), VariantError(sentence)
    with pytest.raises(ZeroDivisionError) as caught:
        FunctionType(compile("1 / 0", file, "exec"), {})()
    assert caught.tb.tb_next is not None
    error.__cause__ = caught.value.with_traceback(caught.tb.tb_next)  # of that file alone
    _print_cause(error, log, (VariantError,), is_explained=True)
    assert expected in log.getvalue()
    assert bool(log.getvalue()) == bool(expected)


def test_a_profilers_talk_is_no_output() -> None:
    assert last_lines(
        "[W1129 05:00:00.123456789 CPUAllocator.cpp:249] Memory block of unknown size was allocated before it\n"
        "STAGE:2026-11-29 05:00:00 12:12 ActivityProfilerController.cpp:314] Completed Stage: Warm Up\n"
        "ERROR:2026-11-29 05:00:00 12:12 DynoConfigLoader.cpp:10] no daemon\n"
        "epoch 3 of 5\n"
    ) == "epoch 3 of 5"  # fmt: skip


def test_not_without_end() -> None:
    assert last_lines("\n".join(map(str, range(100)))).splitlines() == [str(n) for n in range(80, 100)]
    assert len(last_lines("x" * 10_000)) < 600


def test_a_long_message_keeps_its_beginning_and_its_end() -> None:
    told = error_text(RuntimeError("begin " + "x y " * 1000 + "the end of it"))
    assert told.startswith("RuntimeError: begin x y")
    assert told.endswith("the end of it")
    assert len(told) < 1100
