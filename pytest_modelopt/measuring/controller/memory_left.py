"""Memory that is left for another process: a model that is certain not to fit is refused before the machine swaps."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.results.figures import format_bytes
from pytest_modelopt.results.measurement import Measurement
from pytest_modelopt.results.source import ProgramSource

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
UNCERTAIN_BYTES = 128 * 1024**2
"""What the kernel's estimate may hold back: its watermarks, and half of the page cache where that is small."""
_READ_WHOLE = (".onnx", ".pt")
"""Files of programs that their runtimes read into memory of their own; the others are mapped."""
_UNLIMITED = 2**60
_REMEDY = "give the job more memory, or leave it more (fewer processes at once, `-n`)"


def why_not(needed: int, told: str) -> str:
    """Why a process that takes `needed` bytes cannot run beside what runs now; '' where it can, or nobody knows.

    `told` is how they come about, as the beginning of the sentence.
    """
    found = min(_available(), default=None)
    if found is None or needed <= found[0] + UNCERTAIN_BYTES:
        return ""
    return f"{told}, and {format_bytes(max(0, found[0]))} are available ({found[1]}): {_REMEDY}"


def of_another_process(measurement: Measurement, label: str) -> str:
    """Why a fresh process that loads what the variant's own worker has saved has no room beside it. Files of programs,
    and what another runtime holds, may be mapped, and what is on a GPU is not here."""
    is_file = measurement.provenance is not None and bool(measurement.provenance.files)
    if is_file or measurement.runtime is not None or measurement.reserved_bytes is not None:
        return ""
    needed = min(measurement.weights_bytes or 0, measurement.size_bytes or 0)
    size = format_bytes(needed)
    return why_not(
        needed,
        f"the {label} does not fit twice: its worker holds it, and a fresh process that loads what was saved holds it "
        f"again, 2 x {size} = {format_bytes(2 * needed)} at the least; the second {size} are still to come",
    )


def of_the_same_again(original: Measurement, pid: int | None, label: str) -> str:
    """Why the worker that makes `label` of the model has no room for that beside the original's worker, `pid`, whose
    weights count where no file backs them."""
    needed = min(original.weights_bytes or 0, _anonymous_bytes(pid))
    size = format_bytes(needed)
    return why_not(
        needed,
        f"the {label} starts from the original, which its own worker holds meanwhile: 2 x {size} = "
        f"{format_bytes(2 * needed)} at the least; the second {size} are still to come",
    )


def of_its_files(variant: Variant) -> str:
    """Why the program of an original or a candidate cannot be loaded."""
    origins = (variant.model, None if variant.candidate is None else variant.candidate.origin)
    for origin in origins:
        if isinstance(origin, ProgramSource) and origin.file.endswith(_READ_WHOLE):
            with contextlib.suppress(OSError):
                needed = Path(origin.file).stat().st_size
                told = f"{Path(origin.file).name} has {format_bytes(needed)}, which its worker holds at the least"
                if why := why_not(needed, told):
                    return why
    return ""


def _available() -> Iterator[tuple[int, str]]:
    """Bytes that can still be had without swapping, by the machine and by each limited control group, and by whom."""
    if (left := _number(_text(PROC / "meminfo"), "MemAvailable:")) is not None:
        yield 1024 * left, "MemAvailable of the machine"
    for line in _text(PROC / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, files, cache = CGROUPS, ("memory.max", "memory.current"), ("active_file", "inactive_file")
        elif "memory" in controllers.split(","):
            root, files = CGROUPS / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
            cache = ("total_active_file", "total_inactive_file")
        else:
            continue
        for folder in _and_above(root, path):
            limit, used = (_number(f"{name} {_text(folder / name)}", name) for name in files)
            if limit is None or used is None or limit >= _UNLIMITED:
                continue
            stat = _text(folder / "memory.stat")
            left = limit - used + sum(_number(stat, name) or 0 for name in cache)
            yield left, f"of the {format_bytes(limit)} of its control group"


def _and_above(root: Path, path: str) -> Iterator[Path]:
    """The folder of a control group and of those it lies in; in a container the root may be its own already."""
    folder = root / path.lstrip("/")
    while folder != root:
        yield folder
        folder = folder.parent
    yield root


def _anonymous_bytes(pid: int | None) -> int:
    """What a process holds that no file backs; 0 where nobody can say."""
    return 1024 * (_number(_text(PROC / str(pid) / "status"), "RssAnon:") or 0)


def _number(text: str, name: str) -> int | None:
    found = re.search(rf"^{re.escape(name)}\s+(\d+)", text, re.MULTILINE)
    return None if found is None else int(found[1])


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        return ""
