"""The last output of a worker, without what libraries print, and with the user's own lines of each stack."""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

_LINES = 20
_LIBRARY_NOISE = re.compile(
    r"\[?[WI]\d{4} \d\d:\d\d:\d\d\.\d+ .*(\btorch/|kineto|rofiler|\.cpp:\d+\])|[WI]0000 00:00:\d+|USDT:\d{4}-"
    r"|(STAGE|INFO|WARNING|ERROR):\d{4}-\d\d-\d\d .*\.cpp:\d+\]|\S*/torch/(autograd|profiler)/\S+: \w*Warning: "
    r"|INFO: Created TensorFlow Lite|WARNING: All log messages before absl|Failed to load .*/torchao/\S+\.so"
)
"""Beginnings of lines that libraries print for any model."""
_CONTROL_SEQUENCES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")
_STACK = re.compile(r"(Current thread|Thread) 0x[0-9a-f]+.*\(most recent call first\):")
_FRAME = re.compile(r'  File "(?P<file>.*)", line (\d+|\?\?\?) in ')
_LIBRARIES = (*map(sysconfig.get_path, ("purelib", "platlib", "stdlib")), str(Path(__file__).parents[1]), "<")


def is_library(file: str) -> bool:
    """Whether a frame runs installed code, code of Python, or code of this plugin."""
    return file.startswith(_LIBRARIES)


def told(text: str) -> str:
    """The last lines of what was printed, without control sequences."""
    lines = [line.rstrip() for line in _CONTROL_SEQUENCES.sub("", text).splitlines()]
    kept = _own_lines_of_stacks(line for line in lines if line and not _LIBRARY_NOISE.match(line))
    return "\n".join(list(kept)[-_LINES:])


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
            own = [each for each in frames if not is_library(_FRAME.match(each)["file"])]  # type: ignore[index]
            shown = own or (frames[:1] if header.startswith("Current") else [])
            yield from (header, *shown) if shown else ()
            header, frames = "", []
        if _STACK.match(line):
            header = line
        elif line and not line.startswith("Extension modules: "):
            yield line
