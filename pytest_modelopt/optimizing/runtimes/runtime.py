"""What each runtime says of itself: the folders beside this file have a `RUNTIME` in their `__init__.py`."""

from __future__ import annotations

import importlib
import pkgutil
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Runtime:
    """One engine that runs programs in a format of its own."""

    name: str
    """As messages and the record call it: 'ONNX Runtime'."""
    extra: str | None
    """The pip extra of pytest-modelopt that installs it; None where nothing has to be installed."""
    objects: tuple[str, ...]
    """Packages that define the types of its objects: of a model that holds one, torch does not allocate the weights."""
    suffix: str
    """Of its files."""
    file_module: str
    """The module of its folder with the class `File`."""
    packages: tuple[str, ...]
    """Distributions whose versions the record tells."""
    frames: tuple[str, ...]
    """Packages whose frames say nothing of a project, its converters included."""
    engine: tuple[str, ...] = ()
    """What has to be imported to run a file, where that is less than `objects`; empty where it is not."""
    alone: str = ""
    """What pip installs without dependencies where that runs files; '' where the package needs what it asks for."""

    @property
    def way_in(self) -> str:
        """How it is installed, as the end of a sentence; '' where nothing has to be."""
        if self.extra is None:
            return ""
        alone = f"; to run files, `pip install --no-deps {shlex.quote(self.alone)}` is enough" if self.alone else ""
        return f'run `pip install "pytest-modelopt[{self.extra}]"`{alone}'


LEFT_OUT = {
    ".gguf": "a model for llama.cpp, whose package llama-cpp-python has no wheel on PyPI and would have to be compiled",
}
"""By suffix: what else is shipped, and why it is not measured."""


def not_measured(suffix: str, measured: Iterable[str]) -> str:
    """Why a file with another suffix than those that are measured is not, and the way out, as the end of a sentence."""
    if suffix in LEFT_OUT:
        return f"is {LEFT_OUT[suffix]}; an `nn.Module` that runs it is measured by `factory:`"
    return (
        f"is of a format that cannot be measured: the suffixes are {', '.join(measured)}; what else Python can load is "
        "measured by `factory:`"
    )


@cache
def runtimes() -> dict[str, Runtime]:
    """All runtimes, by their folder."""
    package = __name__.rpartition(".")[0]
    folders = importlib.import_module(package).__path__
    names = sorted(module.name for module in pkgutil.iter_modules(folders) if module.ispkg)
    found = {name: importlib.import_module(f"{package}.{name}").RUNTIME for name in names}
    return {name: runtime for name, runtime in found.items() if isinstance(runtime, Runtime)}
