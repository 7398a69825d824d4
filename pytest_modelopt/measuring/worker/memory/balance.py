"""Whether the books balance: what a fresh process gains by a saved variant, and what the tensor meter can explain.

The walk and the allocator's events see what the instance and the code of the project lead to, and what the calling
thread asks of torch. Whatever allocates for itself, in threads or in other libraries, shows in the counters of the
process only. What they read beyond the tolerances below means that the tensor meter does not hold for this variant.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.fx import GraphModule

from pytest_modelopt.measuring.installation import is_installed
from pytest_modelopt.measuring.protocol import Balance
from pytest_modelopt.measuring.worker.files import size
from pytest_modelopt.measuring.worker.memory import process_counters, process_memory, tensor_meter, unmapped_memory
from pytest_modelopt.measuring.worker.watches import opened_files
from pytest_modelopt.measuring.worker.watches.other_processes import OtherProcesses
from pytest_modelopt.optimizing.calling import Inputs, Run, call
from pytest_modelopt.optimizing.modules.uncompiled import is_dynamo_here, step_by_step

# Measured on models of 3 to 50 modules; see the test of the ordinary models.
KIB, MIB = 1024, 1024**2
OF_INSTANCE, OF_MODULE = 96 * KIB, 2 * KIB  # of each module, and of each node of a traced graph
"""What freeing the instance gives back beside its numbers: objects, kernels' bookkeeping, alignment."""
OF_PROCESS = 3 * MIB
"""What the first calls of operators leave behind: generated kernels, caches."""
OF_IMPORTS_PAGES, OF_IMPORTS_SHARE = 12 * MIB, 0.25
"""Of pages of no file that malloc does not know of, beside `process_counters.room_for_pages`, where installed packages
were imported meanwhile: at most, and as a share of what those took. Where the objects of both lie on the same pages,
nobody can tell them apart."""
OF_OBJECTS, OF_MODULES_OBJECTS = MIB, 8 * KIB  # of each module
OF_GRAPHS_OBJECTS, OF_NODES_OBJECTS = 2 * MIB, 16 * KIB  # where there is a traced graph, and of each node of it
"""Of Python's small objects: attributes, kernels' bookkeeping, caches."""
OF_SOURCE = 3
"""Bytes of small objects for each byte of the project's source that is imported: functions and classes."""
OF_READS, OF_READS_OF_RUNTIME = 64 * KIB, 256 * KIB  # where it starts a runtime of its own
"""Of what is read from files that no hook sees: settings of the system, what the counters themselves are read from."""
OF_FILES = 64 * KIB
"""Of files that are mapped: headers, and the rest of the last page."""
OF_CALL = 4 * MIB
"""What a call needs beside torch's allocator: scratch memory of MKL, fbgemm and oneDNN."""
_NO_COMPILER = "TORCH_COMPILE_DISABLE"
_SETTINGS = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "0"}
"""What oneDNN keeps for the next model is nobody's: it reads this before it first works."""
_OF_PACKED = 96 * KIB  # of each packed weight
"""What its kernel generates and keeps for its calls, beside the weight."""


def balance(model: Path, inputs: Path, runtime: str | None, shipped: Sequence[str] = (), run: Run = call) -> Balance:
    """Load the saved module and call it on the saved inputs. To be called once, in a process of its own.

    `shipped`: files that the variant consists of, and whose size is known. `run`: what a call of it is.
    """
    os.environ.update(_SETTINGS)
    example = size.load(inputs)
    process_memory.import_libraries(model, runtime)
    gc.collect()
    mapped = set(opened_files.mapped())
    opened_files.watch(process_memory.paths_named_in(model), _folders_of_project())
    others = OtherProcesses()
    # Compiling takes seconds, and megabytes that are nobody's numbers; the weights are the same without it.
    with torch.inference_mode(), _without_compiler():
        look = _balance if process_counters.are_here() else _uncounted
        found = look(model, example, others, runtime, run)
    own = {os.path.realpath(file) for file in (str(model), str(inputs), *shipped)}
    unnamed = opened_files.unexplained_bytes()
    return replace(
        found,
        files=opened_files.shipped_with(own, mapped),
        other_processes=others.named(),
        unnamed_bytes=unnamed if unnamed > (OF_READS_OF_RUNTIME if runtime or found.runtime else OF_READS) else 0,
    )


def _folders_of_project() -> list[str]:
    """Where Python looks for the project's modules, and where its relative names begin."""
    places = (os.path.abspath(place) for place in (os.getcwd(), *sys.path))  # noqa: PTH100, PTH109
    return [place for place in dict.fromkeys(places) if os.path.isdir(place) and not is_installed(f"{place}/file")]  # noqa: PTH112


@contextlib.contextmanager
def _without_compiler() -> Iterator[None]:
    if is_dynamo_here():
        with step_by_step():
            yield
        return
    before = os.environ.get(_NO_COMPILER)
    os.environ[_NO_COMPILER] = "1"  # torch reads it where it imports the compiler, which takes seconds
    try:
        yield
    finally:
        del os.environ[_NO_COMPILER]
        if before is not None:
            os.environ[_NO_COMPILER] = before
        if is_dynamo_here():
            torch._dynamo.config.disable = before == "1"


def _uncounted(model: Path, example: Inputs, others: OtherProcesses, runtime: str | None, run: Run) -> Balance:
    run(_load_and_call(model, example, others, runtime, run), example)
    return Balance(0, why_not="this system does not tell what a process holds")


def _load_and_call(model: Path, example: Inputs, others: OtherProcesses, runtime: str | None, run: Run) -> nn.Module:
    with opened_files.counting(model):
        loaded: nn.Module = process_memory.load_saved(model, runtime)
        run(loaded, example)
    others.note_first_call()
    return loaded


def _balance(model: Path, example: Inputs, others: OtherProcesses, runtime: str | None, run: Run) -> Balance:
    files_before, imported_before = process_counters.mapped_files(), set(sys.modules)
    process_counters.keep_no_freed_blocks()
    process_counters.give_back_free_memory()  # else what was freed before would look like the model's, or hide it
    unmapped_before = unmapped_memory.held()
    before, imports_before = process_counters.read(), process_counters.pages_of_imports()
    with process_counters.without_imports():
        loaded = _load_and_call(model, example, others, runtime, run)
        gc.collect()
        run(loaded, example)
        gc.collect()
        process_counters.free_buffers_of_libraries()
        process_counters.give_back_free_memory()
        after = process_counters.read()
        try:
            walk = tensor_meter.Walk(loaded)
        except tensor_meter.ForeignRuntime as foreign:
            return Balance(0, foreign.runtime)
        total, own, modules = walk.total_bytes(), walk.own_bytes, sum(map(_parts, loaded.modules()))
        objects = _room_for_objects(list(loaded.modules()), imported_before)
        padding, packed = sum(map(_packing_bytes, walk.packed)), _OF_PACKED * len(walk.packed)
        files = _unexplained_files(walk.ranges(), files_before)
        unmapped = unmapped_memory.unmapped_bytes(unmapped_before)
        in_call = _unexplained_in_call(partial(run, loaded, example))
        del walk  # it keeps what it unpacked
        gc.collect()
        held = process_counters.allocated()
        del loaded
        gc.collect()
        freed = held - process_counters.allocated()
    allocated = after.allocated - before.allocated
    pages = process_counters.room_for_pages() + 4 * OF_MODULE * modules + packed
    pages += _room_for_pages_of_imports(process_counters.pages_of_imports() - imports_before)
    books = (
        (freed - own - padding, OF_INSTANCE + OF_MODULE * modules + packed),
        (allocated - total - padding, OF_PROCESS + OF_MODULE * modules + packed),
        # What malloc has beyond the total stands in the line before.
        (after.anonymous - before.anonymous - max(total, allocated), pages),
        (after.objects - before.objects, objects),
        (files, OF_FILES),
        (in_call, OF_CALL),
        (unmapped, OF_FILES),
    )
    hidden = max((unexplained for unexplained, room in books if unexplained > room), default=0)
    return Balance(hidden, books=books, packing_bytes=padding)


def _parts(module: nn.Module) -> int:
    """Objects of Python beside its numbers: itself, and the nodes of its graph."""
    return 1 + (len(module.graph.nodes) if isinstance(module, GraphModule) else 0)


def _room_for_pages_of_imports(taken: int) -> int:
    return min(OF_IMPORTS_PAGES, int(OF_IMPORTS_SHARE * taken))


def _room_for_objects(modules: list[nn.Module], imported_before: set[str]) -> int:
    nodes = sum(map(_parts, modules)) - len(modules)
    graphs = OF_GRAPHS_OBJECTS + nodes * OF_NODES_OBJECTS if nodes else 0
    return OF_OBJECTS + len(modules) * OF_MODULES_OBJECTS + graphs + OF_SOURCE * _source_bytes(imported_before)


def _source_bytes(imported_before: set[str]) -> int:
    """Of the project's modules that were imported since."""
    found = 0
    for name in sys.modules.keys() - imported_before:
        file = getattr(sys.modules[name], "__file__", None)
        if file and file.endswith(".py") and not is_installed(file):
            with contextlib.suppress(OSError):
                found += Path(file).stat().st_size
    return found


def _packing_bytes(packed: torch.ScriptObject) -> int:
    """What packed weights take beyond the numbers in them, by packing them once more: fbgemm pads rows and columns to
    whole blocks, oneDNN keeps the weights as they were beside those that its kernels read."""
    before = process_counters.allocated_bytes()
    again = copy.deepcopy(packed)
    taken = process_counters.allocated_bytes() - before
    return max(0, taken - tensor_meter.Walk(again).total_bytes())


def _unexplained_files(ranges: list[tuple[int, int]], before: dict[tuple[int, int], int]) -> int:
    """Resident bytes of files that were mapped since, without what the walk has found in them."""
    unexplained = 0
    for (start, stop), resident in process_counters.mapped_files().items():
        if (start, stop) not in before:
            known = tensor_meter.union_bytes((max(start, a), min(stop, b)) for a, b in ranges if a < stop and b > start)
            unexplained += max(0, resident - known)
    return unexplained


def _unexplained_in_call(run: Callable[[], object]) -> int:
    """By how much more than torch's allocator knows of the process grows within a call, at its peak."""
    run()
    known = tensor_meter.call_peak_bytes(run)
    gc.collect()
    process_counters.give_back_free_memory()
    with process_counters.without_holes():
        growth = process_memory.resident_growth(run)
    return 0 if growth is None else growth - known
