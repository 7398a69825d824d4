"""How the books balance on the models of the zoo: what a fresh process gains by a variant beside what is explained.

Each variant is made and saved here, and loaded and called in fresh processes from the fork server, as in a test run. A
line shows the most that each book left unexplained, with what is let pass (`measuring/worker/memory/balance.py`), and
in how many runs the tensor meter held. Weights are not trained, the encoder's aside: the books do not depend on them.
The last line is a model that hides 32 MiB, for which the tensor meter must never hold.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor, nn

from benchmarks import zoo
from benchmarks.common import origin, print_origins
from example_project import speech, vision
from pytest_modelopt.measuring.controller.preloading import PRELOAD
from pytest_modelopt.measuring.protocol import Balance
from pytest_modelopt.measuring.worker.files import size
from pytest_modelopt.measuring.worker.memory import balance
from pytest_modelopt.optimizing.apply import optimize
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.optimizing.recipe import Context, RecipeError

RUNS = 20
BOOKS = ("freed", "allocated", "pages", "objects", "files", "in a call", "unmapped")
RECIPES = (
    "int8-dynamic",
    "int8-static",
    "int8-weight-only",
    "torchao-int8-weight-only",
    "bf16",
    "prune-unstructured(ratio=0.5)",
    "prune-structured(ratio=0.3)",
    "low-rank(ratio=0.5)",
    "fold-batchnorm",
    "channels-last",
)
"""What torch's allocator runs, without a compiler."""
_HIDDEN_BYTES = 32 * 2**20


def _untrained(kind: str) -> nn.Module:
    torch.manual_seed(zoo.SEED)
    return zoo.MADE[kind][0]().eval()


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Tensor, Tensor]]]] = {
    "convolutional": (lambda: _untrained("convolutional"), zoo.images),
    "encoder": (vision.load_model, vision.test_data),
    "attention": (lambda: _untrained("attention"), zoo.images),
    "recurrent": (lambda: _untrained("recurrent"), speech.test_data),
    "plain": (lambda: _untrained("plain"), zoo.images),
}


class _InMalloc(nn.Module):
    """It allocates at its first call, in memory that is nobody's."""

    def forward(self, x: Tensor) -> Tensor:
        import ctypes

        libc = ctypes.CDLL(None)
        libc.malloc.restype = ctypes.c_void_p
        place = libc.malloc(ctypes.c_size_t(_HIDDEN_BYTES))
        ctypes.memset(place, 1, _HIDDEN_BYTES)
        return x


def _batches(examples: Tensor) -> Iterator[Tensor]:
    yield from torch.split(examples[:64], 16)


def variants(kinds: list[str], recipes: list[str]) -> Iterator[tuple[str, str, nn.Module | str, Tensor]]:
    """Model, recipe, the variant or why there is none, and the inputs of its call."""
    for kind in kinds:
        make, data = MODELS[kind]
        examples = data()[0]
        yield kind, "-", make(), examples[:1]
        for recipe in recipes:
            context = Context(examples[:1], partial(_batches, examples), seed=0)
            made: nn.Module | str
            try:
                made = optimize(make(), parse(recipe).steps, context).model
            except RecipeError as error:
                made = str(error).split(":")[0]
            yield kind, recipe, made, examples[:1]
    yield "32 MiB by malloc", "-", _InMalloc().eval(), torch.ones(1, 8)


def _child(connection: Connection, model: Path, inputs: Path) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    torch.set_num_threads(1)
    connection.send(balance.balance(model, inputs, None))


def _fresh(model: Path, inputs: Path) -> Balance:
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    ours, theirs = context.Pipe()
    process = context.Process(target=_child, args=(theirs, model, inputs))
    process.start()
    theirs.close()
    try:
        found: Balance = ours.recv()
    finally:
        process.join()
    return found


def _row(kind: str, recipe: str, runs: list[Balance]) -> list[str]:
    holds = sum(not run.hidden_bytes and not run.runtime for run in runs)
    cells = []
    for index in range(len(BOOKS)):
        most, room = max(run.books[index] for run in runs)
        cells.append(f"{most / 1024:,.0f} / {room / 1024:,.0f}")
    return [kind, recipe, f"{holds} of {len(runs)}", *cells]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=RUNS, help="fresh processes for each line (default: %(default)s)")
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=MODELS, help="default: all")
    parser.add_argument("--recipes", nargs="*", default=list(RECIPES), help="default: all that torch runs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory(prefix="books-") as folder:
        model, inputs = Path(folder) / "model.pt", Path(folder) / "inputs.pt"
        for kind, recipe, made, example in variants(arguments.models, arguments.recipes):
            if isinstance(made, str):
                continue  # the recipe is not for this model
            size.save(made, model)
            size.save(example, inputs)
            rows.append(_row(kind, recipe, [_fresh(model, inputs) for _ in range(arguments.runs)]))
            print(*rows[-1], sep=" | ", flush=True)
    print_origins([origin()])
    print(
        f"batch 1, 1 thread, {arguments.runs} fresh processes for each line; KiB that were not explained / are let pass"
    )
    headers = ["model", "recipe", "tensor meter", *BOOKS]
    print(tabulate(rows, headers, tablefmt="pipe", disable_numparse=True, colalign=("left", "left", *("right",) * 7)))


if __name__ == "__main__":
    main()
