"""The last output of a worker, without what libraries print, and with the user's own lines of each stack."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from pytest_modelopt.measuring.installation import OUR_FOLDER, is_installed
from pytest_modelopt.measuring.protocol import cut
from pytest_modelopt.optimizing.runtimes.runtime import runtimes

_Frame = TypeVar("_Frame")
_LINES, _CHARACTERS = 20, 500
_LIBRARY_NOISE = re.compile(
    r"\[?[WI]\d{4} \d\d:\d\d:\d\d\.\d+ .*(\btorch/|kineto|rofiler|\.cpp:\d+\])|[WI]0000 00:00:\d+|USDT:\d{4}-"
    r"|(STAGE|INFO|WARNING|ERROR):\d{4}-\d\d-\d\d .*\.cpp:\d+\]|\S*/torch/(autograd|profiler)/\S+: \w*Warning: "
    r"|INFO: Created TensorFlow Lite|WARNING: All log messages before absl|Failed to load .*/torchao/\S+\.so"
    r"|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ \[([WI]:onnxruntime|E:onnxruntime.*sequential_executor\.cc)"
    r"|\S*-packages/\S+: (Pending)?(Deprecation|Future)Warning: |.*: UserWarning: .*were assigned during export"
    r"|def forward\(self, arg\d+_1: \"|    # File: .+ in \w+, code: |    \w+: \"\S+\" = torch\.ops\."
)
"""Beginnings of lines that libraries print for any model, or of what they raise as an error as well: a runtime's log of
an operator that failed, and the graph at which torch.export gave up."""
_WARNING = re.compile(r"\S+:\d+: \w*Warning: ")
_CONTROL_SEQUENCES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")
_STACK = re.compile(r"(Current thread|Thread) 0x[0-9a-f]+.*\(most recent call first\):")
_FRAME = re.compile(r'  File "(?P<file>.*)", line (\d+|\?\?\?) in ')

_OF_RECIPES = (
    *("torch", "torchao", "torch_pruning", "triton"),
    *(package for runtime in runtimes().values() for package in runtime.frames),
)
"""Packages that recipes hand a model to: their frames say nothing of a project."""


def of_the_user(frames: Sequence[_Frame], file: Callable[[_Frame], str]) -> list[_Frame]:
    """The frames of the user's code. Where there are none, its package may be installed: then those of all packages but
    this one and those of recipes."""
    own = [frame for frame in frames if not is_installed(file(frame))]
    return own or [frame for frame in frames if _is_of_another_package(file(frame))]


def last_lines(text: str) -> str:
    """The last lines of what was printed, without control sequences; of a line written over, the last state."""
    shown = (line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    lines = [_CONTROL_SEQUENCES.sub("", line).rstrip() for line in shown]
    kept = list(_own_lines_of_stacks(_without_noise(line for line in lines if line)))[-_LINES:]
    return "\n".join(cut(line, _CHARACTERS) for line in kept)


def _without_noise(lines: Iterable[str]) -> Iterator[str]:
    """With a warning goes the line of code that Python prints below it."""
    is_below = False
    for line in lines:
        if _LIBRARY_NOISE.match(line):
            is_below = bool(_WARNING.match(line))
        elif not (is_below and re.match(r"  \S", line)):
            is_below = False
            yield line
        else:
            is_below = False


def _is_of_another_package(file: str) -> bool:
    _, found, inside = file.rpartition("-packages/")
    return bool(found) and inside.partition("/")[0] not in (*_OF_RECIPES, OUR_FOLDER.name)


def _own_lines_of_stacks(lines: Iterable[str]) -> Iterator[str]:
    """Of each stack that Python dumped the frames of the user's code; of the thread at work, where there are none, the
    innermost one. Other threads without a frame of the user's are left out, and so is the list of extension modules."""
    header, frames = "", list[str]()
    for line in (*lines, ""):
        frame = _FRAME.match(line) if header else None
        if frame is not None:
            frames.append(line)
            continue
        if header and line == "  ...":
            continue
        if header:
            own = of_the_user(frames, lambda each: _FRAME.match(each)["file"])  # type: ignore[index]
            shown = own or (frames[:1] if header.startswith("Current") else [])
            yield from (header, *shown) if shown else ()
            header, frames = "", []
        if _STACK.match(line):
            header = line
        elif line and not line.startswith("Extension modules: "):
            yield line
