"""Memory that is left for another process: a model that is certain not to fit is refused before the machine swaps."""

from __future__ import annotations

import contextlib
from pathlib import Path

from pytest_modelopt import system
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.results.figures import format_bytes
from pytest_modelopt.results.measurement import Measurement
from pytest_modelopt.results.source import ProgramSource

UNCERTAIN_BYTES = 128 * 1024**2
"""What the kernel's estimate may hold back: its watermarks, and half of the page cache where that is small."""
_READ_WHOLE = (".onnx", ".pt")
"""Files of programs that their runtimes read into memory of their own; the others are mapped."""
_REMEDY = "give the job more memory, or leave it more (fewer processes at once, `-n`)"


def why_not(needed: int, told: str) -> str:
    """Why a process that takes `needed` bytes cannot run beside what runs now; '' where it can, or nobody knows.

    `told` is how they come about, as the beginning of the sentence.
    """
    left, limit = min(system.memory_left(), key=lambda each: each[0], default=(needed, None))
    if needed <= left + UNCERTAIN_BYTES:
        return ""
    whose = "of the machine" if limit is None else f"of the {format_bytes(limit)} of its control group"
    return f"{told}, and {format_bytes(max(0, left))} are available ({whose}): {_REMEDY}"


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
        f"again, 2 x {size} = {format_bytes(2 * needed)} at the least; the second {size} are still needed",
    )


def of_the_same_again(original: Measurement, pid: int | None, label: str) -> str:
    """Why the worker that makes `label` of the model has no room for that beside the original's worker, `pid`, whose
    weights count where no file backs them."""
    needed = min(original.weights_bytes or 0, 0 if pid is None else system.anonymous_bytes(pid))
    size = format_bytes(needed)
    return why_not(
        needed,
        f"the {label} starts from the original, which its own worker holds meanwhile: 2 x {size} = "
        f"{format_bytes(2 * needed)} at the least; the second {size} are still needed",
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
