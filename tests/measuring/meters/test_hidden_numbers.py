"""Numbers that lie outside of the instance or of torch's allocator: none of them counts as nothing."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from pytest_modelopt.measuring.worker.memory.tensor_meter import weights_bytes

KIB, MIB = 1024, 1024**2

HEAD = """
import array, ctypes, dataclasses, functools, mmap, threading
import numpy
import torch
from torch import nn

@dataclasses.dataclass
class Box:
    held: object

"""
NUMBERS = {
    "tensor": "torch.zeros({n}, dtype=torch.uint8)",
    "bytes": "bytes({n})",
    "bytearray": "bytearray({n})",
    "array": "array.array('b', bytes({n}))",
    "numpy": "numpy.zeros({n}, dtype=numpy.int8)",
    "view": "numpy.zeros({n}, dtype=numpy.int8)[5:20]",
    "names": "numpy.array(['a' * ({n} // 4)])",
    "mmap": "mmap.mmap(-1, {n})",
    "memoryview": "memoryview(bytearray({n}))",
    "ctypes": "(ctypes.c_char * {n})()",
}
NESTS = ("{}", "[{}]", "({},)", "dict(a=None, b={})", "Box({})", "[[Box(dict(c={}))]]", "functools.partial(print, {})")
PLACES = {
    "instance": ("", "", "self.held_{k} = {v}", ""),
    "class": ("", "held_{k} = {v}", "", ""),
    "base": ("class Base_{k}:\n    held = {v}\n", "", "self.of_{k} = Base_{k}()", ""),
    "global": ("held_{k} = {v}\n", "", "", "held_{k}"),
    "cache": (
        "@functools.lru_cache(maxsize=None)\ndef held_{k}(n):\n    return {v}\nheld_{k}(1)\n",
        "",
        "",
        "held_{k}(1)",
    ),
    "function": ("held_{k} = {v}\ndef inner_{k}():\n    return held_{k}\n", "", "", "inner_{k}()"),
    "closure": ("def make_{k}(value):\n    return lambda: value\n", "", "self.of_{k} = make_{k}({v})", ""),
    "slots": (
        "class Slots_{k}:\n    __slots__ = ('held',)\n",
        "",
        "self.s_{k} = Slots_{k}()\nself.s_{k}.held = {v}",
        "",
    ),
    "thread": ("", "", "self.local_{k} = threading.local(); self.local_{k}.held = {v}", ""),
}


def generated(number: int) -> tuple[str, int]:
    """The source of a model with a few numbers in random places, and their bytes."""
    chance = random.Random(number)
    before: list[str] = []
    attributes, made, used, total = ["pass"], ["pass"], ["pass"], 0
    for k in range(chance.randint(1, 6)):
        size = 4 * chance.randint(10, 5000)
        value = chance.choice(NESTS).format(chance.choice(list(NUMBERS.values())).format(n=size))
        place = [part.format(k=k, v=value) for part in PLACES[chance.choice(list(PLACES))]]
        for part, lines in zip(place, (before, attributes, made, used), strict=True):
            lines += part.splitlines()
        total += size
    model = "\n".join(
        [
            "class Model(nn.Module):",
            *(f"    {line}" for line in attributes),
            "    def __init__(self):",
            "        super().__init__()",
            *(f"        {line}" for line in made),
            "    def forward(self, x):",
            *(f"        {line}" for line in used),
            "        return x",
        ]
    )
    return HEAD + "\n".join(before) + "\n" + model, total


def imported(name: str, source: str, folder: Path) -> ModuleType:
    file = folder / f"{name}.py"
    file.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("number", range(60))
def test_the_bytes_of_a_generated_model_are_found_wherever_they_lie(number: int, tmp_path: Path) -> None:
    source, expected = generated(number)
    name = f"generated_{number}"
    try:
        assert weights_bytes(imported(name, source, tmp_path).Model()) == expected, source
    finally:
        sys.modules.pop(name, None)


IMPORTS = {
    "import numbers_of_ours": "numbers_of_ours.HELD",
    "import numbers_of_ours as other": "other.HELD",
    "from numbers_of_ours import HELD": "HELD",
    "import package_of_ours.inner": "package_of_ours.inner.HELD",
    "from package_of_ours import inner": "inner.HELD",
    "from package_of_ours.inner import HELD as taken": "taken",
    "from .inner import HELD": "HELD",
    "from . import inner": "inner.HELD",
    "from ..package_of_ours.inner import HELD": "HELD",
    "import package_of_ours as outer": "outer.inner.HELD",
}


@pytest.mark.parametrize(("statement", "expression"), list(IMPORTS.items()))
def test_what_a_function_imports_itself_is_the_models(
    statement: str, expression: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = "HELD = bytearray(5000)\nOTHER = bytearray(7000)\n"
    source = (
        "from torch import nn\nclass Model(nn.Module):\n    def forward(self, x):\n"
        f"        {statement}\n        return x + {expression}[0]\n"
    )
    package = "above.package_of_ours" if ".." in statement else "package_of_ours"
    for name, text in {
        "numbers_of_ours": numbers,
        **({"above": ""} if ".." in statement else {}),
        package: "",
        f"{package}.inner": numbers,
    }.items():
        monkeypatch.setitem(sys.modules, name, imported(name, text, tmp_path))
        if "." in name:
            outer, _, inner = name.rpartition(".")
            setattr(sys.modules[outer], inner, sys.modules[name])
    model = imported(f"{package}.model", source, tmp_path).Model()
    monkeypatch.delitem(sys.modules, f"{package}.model")
    assert weights_bytes(model) == 5000


def test_what_the_models_code_does_not_name_is_not_the_models(tmp_path: Path) -> None:
    """The project's data in a global of the same file, though an attribute of the model has its name."""
    source = HEAD + (
        "data = torch.zeros(10**6)\nclass Model(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.data = None\n    def forward(self, x):\n        return x if self.data is None else self.data\n"
    )
    assert weights_bytes(imported("unnamed", source, tmp_path).Model()) == 0


def test_attributes_that_are_no_numbers_do_not_end_the_figure() -> None:
    import numpy

    model: Any = torch.nn.Linear(10, 10)
    model.names = numpy.array(["cat", "dog"])
    model.objects = numpy.array([object(), None, torch.zeros(25)], dtype=object)
    model.dates = numpy.array(["2026-01-01"], dtype="datetime64[D]")
    model.when = numpy.datetime64("2026-01-01")
    model.records = numpy.zeros(2, dtype=[("a", "i4"), ("b", "U2")])
    pointers = 3 * 8
    assert weights_bytes(model) == 4 * 110 + 2 * 3 * 4 + pointers + 100 + 8 + 2 * (4 + 2 * 4)


# --- in the process only --------------------------------------------------------------------------------------------
