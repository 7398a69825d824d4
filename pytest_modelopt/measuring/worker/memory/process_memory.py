"""Process memory: the peak of a fresh process that only loads a saved variant and runs it, minus what it took before.

For runtimes that bypass torch's allocator, and for limits on a whole process. The best meter is memray, which counts
every allocation from before the model is loaded until after the first call. Without it the kernel's high-water mark of
resident memory serves, which includes the pages of the libraries that the call touches, and repeats less well.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import os
import pickletools
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from pytest_modelopt import system
from pytest_modelopt.measuring.protocol import VariantError, error_text
from pytest_modelopt.measuring.worker.files import size
from pytest_modelopt.measuring.worker.memory import process_counters, unmapped_memory
from pytest_modelopt.optimizing.calling import Run, call
from pytest_modelopt.optimizing.runtimes import telemetry
from pytest_modelopt.optimizing.runtimes.runtime import runtimes
from pytest_modelopt.results.measurement import ProcessMeter

_LIBRARIES = ("torch", "torchao", "numpy", "keras", "pytest_modelopt")
"""Importing these is not what a model takes. Modules of the user's are not among them: they belong to the model."""
_FOR_PROGRAMS = ("torch.export._trace", "torch.export.pt2_archive._package", "torch._inductor.package.package")
"""What torch imports when it first loads a `.pt2`: 100 MB of pages, whatever the program is."""
_ARENA_BYTES, _ROOM_BYTES, _SMALL_BYTES = 1024**2, 8 * 1024**2, 448
_FEW_OBJECTS_BYTES = 3 * 1024**2
"""What is imported while any model is loaded leaves fewer, and not the same in each process: equal models would read
unequal."""
_MISSED = 1.25
"""malloc's own total counts the room between blocks, too."""
_STATUS = system.PROC / "self" / "status"
_CLEAR_REFS = system.PROC / "self" / "clear_refs"


def peak_bytes(model: Path, inputs: Path, runtime: str | None, run: Run = call) -> tuple[int, ProcessMeter]:
    """Peak bytes of loading the module saved in `model` and calling it once on `inputs`, and the meter that read them.

    `run`: what a call of it is.

    To be called once, in a process of its own: what a second load takes is not what the first one took.

    Raises:
        VariantError: there is no meter here, the model cannot be loaded again, or its peak is too small to be seen.
    """
    meter = _choose_meter()
    example = size.load(inputs)
    import_libraries(model, runtime)
    gc.collect()
    room = _room_for_small_objects()
    objects, pages = process_counters.small_objects(), process_counters.anonymous()
    unmapped_before, unmapped = unmapped_memory.held(), 0

    def load_and_call() -> object:
        loaded = load_saved(model, runtime)
        with torch.inference_mode():
            answer = run(loaded, example)
        nonlocal objects, pages, unmapped
        unmapped = unmapped_memory.unmapped_bytes(unmapped_before)
        objects = process_counters.small_objects() - objects
        pages = process_counters.anonymous() - pages
        return loaded, answer  # both are alive while the meter stops

    peak = _METERS[meter](load_and_call, model.parent)
    if objects > _FEW_OBJECTS_BYTES:
        peak += min(objects, _ROOM_BYTES)  # no meter sees the room
    if runtime is None and pages > peak + process_counters.room_for_pages():
        peak = pages  # an allocator that looks mmap up for itself is out of memray's reach
    del room
    peak += unmapped
    if peak <= 0:
        raise VariantError(
            f"the peak of the process did not rise above what it was before, as {meter} reads it: the model is too "
            "small for this meter"
        )
    return peak, meter


def load_saved(model: Path, runtime: str | None) -> Any:
    """The module saved in `model`. Raises VariantError where it cannot be loaded, with the way out where it held an
    object of a `runtime`."""
    try:
        return size.load(model)
    except Exception as error:
        way_out = (
            f"; a model that wraps a runtime ({runtime}) must say what of it is saved, in `__getstate__` and "
            "`__setstate__` or in `__reduce__`"
        )
        raise VariantError(
            f"the saved model cannot be loaded in a fresh process: {error_text(error, 300)}{way_out if runtime else ''}"
        ) from error


# --- what the process has before the meter starts --------------------------------------------------------------------


def import_libraries(model: Path, runtime: str | None, *, and_project: bool = False) -> None:
    """Import the libraries that the saved model needs: their own memory is there with any model. `and_project`: also
    modules of other packages and of the project, as far as the file names them and they are found."""
    named = _modules_named_in(model)
    for package in _packages(runtime, named):
        if importlib.util.find_spec(package.partition(".")[0]) is not None:
            with telemetry.off():
                importlib.import_module(package)
    if any(path.endswith(".pt2") for path in paths_named_in(model)):
        for module in _FOR_PROGRAMS:
            with contextlib.suppress(ModuleNotFoundError):  # of another version of torch
                importlib.import_module(module)
    for module in sorted(named):
        if module.partition(".")[0] in _LIBRARIES:
            importlib.import_module(module)
        elif and_project:
            with contextlib.suppress(ImportError):  # loading then says what is missing
                importlib.import_module(module)


def _packages(runtime: str | None, named: set[str]) -> tuple[str, ...]:
    """Of the runtime, where the saved model names these modules: a file of it needs less than a project's own class."""
    for folder, each in runtimes().items():
        if each.name == runtime:
            is_file = any(module.endswith(f".{folder}.{each.file_module}") for module in named)
            return each.engine or each.objects if is_file else each.objects
    return ()


def _room_for_small_objects() -> list[bytes]:
    """Make room for Python's small objects; what is returned keeps it from being given back.

    Python takes memory for them by the mebibyte (an arena), whenever all it has is full. How full it is depends on
    whatever the process did before, so of two that load the same model one would take a mebibyte more.
    """
    filling = [bytes(_SMALL_BYTES) for _ in range(_ROOM_BYTES // _SMALL_BYTES)]
    return filling[:: _ARENA_BYTES // 4 // _SMALL_BYTES]


def _modules_named_in(saved: Path) -> set[str]:
    """Modules whose classes and functions the file names."""
    # torch.save writes pickle's protocol 2, where each global is one opcode: "module name".
    named = (argument for name, argument in _read_as_data(saved) if name == "GLOBAL")
    return {str(argument).partition(" ")[0] for argument in named}


def paths_named_in(saved: Path) -> set[str]:
    """Files and folders that text in the file names, links and relative names included."""
    texts = {argument for name, argument in _read_as_data(saved) if name != "GLOBAL" and isinstance(argument, str)}
    return {text for text in texts if 0 < len(text) < 4096 and "\0" not in text and os.path.exists(text)}  # noqa: PTH110


def _read_as_data(saved: Path) -> Iterator[tuple[str, Any]]:
    """(opcode, argument) of each step of the pickle: nothing of the user's is imported."""
    with zipfile.ZipFile(saved) as archive:
        (name,) = (entry for entry in archive.namelist() if entry.endswith("/data.pkl"))
        content = archive.read(name)
    return ((opcode.name, argument) for opcode, argument, _ in pickletools.genops(content))


# --- the meters ------------------------------------------------------------------------------------------------------


def _choose_meter() -> ProcessMeter:
    if importlib.util.find_spec("memray") is not None:
        return "memray"
    if _resident("VmHWM") is not None:
        return "VmHWM"
    raise VariantError(
        "there is no meter for it: memray is not installed (`pip install 'pytest-modelopt[memory]'`), and "
        f"{sys.platform} has no {_STATUS} to read a peak from"
    )


def _by_memray(call_once: Callable[[], object], folder: Path) -> int:
    import memray

    # In the run's own folder, which is removed however this process ends.
    with tempfile.TemporaryDirectory(prefix="memray-", dir=folder) as name:
        file = Path(name) / "allocations.bin"
        before = _counted()
        with memray.Tracker(file):
            kept = call_once()
        gained, libraries = (now - then for now, then in zip(_counted(), before, strict=True))
        del kept
        reader = memray.FileReader(file)
        peak = int(reader.metadata.peak_memory)
        reader.close()
    # Libraries that look malloc up for themselves are out of its reach.
    return (gained if gained > _MISSED * peak else peak) + max(0, libraries)


def _counted() -> tuple[int, int]:
    """Bytes of malloc, and of libraries that are the model's own; zeros where there are no counters."""
    if not process_counters.are_here():
        return 0, 0
    return process_counters.allocated(), process_counters.own_libraries()


def _by_high_water_mark(call_once: Callable[[], object], folder: Path) -> int:
    del folder
    # Importing may have raised the mark above what is resident now. A container may forbid to reset it.
    with contextlib.suppress(OSError):
        _CLEAR_REFS.write_text("5", encoding="ascii")
    mark, before = _read_resident("VmHWM"), _read_resident("VmRSS")
    kept = call_once()
    peak = _read_resident("VmHWM")
    del kept
    if peak <= mark > before:
        raise VariantError(
            f"an earlier peak of the process hides the model's, and {_CLEAR_REFS} did not reset it: install "
            "`pytest-modelopt[memory]`"
        )
    return peak - before


def resident_growth(run: Callable[[], object]) -> int | None:
    """By how much the resident memory of this process rises within one `run()`; None where the kernel does not let its
    high-water mark be reset."""
    try:
        _CLEAR_REFS.write_text("5", encoding="ascii")
    except OSError:
        return None
    before = _read_resident("VmHWM")
    run()
    return _read_resident("VmHWM") - before


_METERS: dict[ProcessMeter, Callable[[Callable[[], object], Path], int]] = {
    "memray": _by_memray,
    "VmHWM": _by_high_water_mark,
}


def _read_resident(field: str) -> int:
    value = _resident(field)
    assert value is not None, field
    return value


def _resident(field: str) -> int | None:
    """Bytes of a field of /proc/self/status, which the kernel gives in units of 1024; None where there is none."""
    try:
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), None)
