"""What the fork server imports, once for all workers: what each of them needs, and what the project's libraries are.

A worker then starts in tenths of a second, not in seconds. Libraries are found by looking at what the first worker of a
model had to import. They are imported in the environment of that worker, and only where importing them leaves nothing
behind that workers should not share: see `pytest_modelopt.measuring.worker.preloaded`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pytest_modelopt.measuring.installation import is_installed
from pytest_modelopt.measuring.variant import Variant

COMPILER = "torch._dynamo"
"""torch's compiler takes as long to import as all the rest: the fork server does so only where workers will need it."""
METRICS = "pytest_modelopt.measuring.worker.preloaded_metrics"
"""So does torchmetrics, which imports transformers and SciPy where they are installed."""
PRELOAD = [
    "torch",
    "pytest_modelopt.measuring.worker.bench",
    "pytest_modelopt.optimizing.apply",
    "pytest_modelopt.measuring.worker.preloaded",
]
LEAST_MODULES = 150
"""Fewer are imported faster than another fork server starts."""
_MOST_CHARACTERS = 100_000
"""An environment variable holds 128 KiB."""


class Libraries:
    """Those of the project that the fork server imports."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self._environment: tuple[tuple[str, str], ...] = ()
        self._is_off = False

    def add(self, found: Sequence[str], variant: Variant) -> bool:
        """Take what a worker of `variant` had to import; whether another fork server is worth its start."""
        names = (*self.names, *found)
        if self._is_off or len(found) < LEAST_MODULES or len(" ".join(names)) > _MOST_CHARACTERS:
            return False
        self.names, self._environment = names, variant.environment
        return not self.drop_unfit(variant)

    def drop(self) -> None:
        """For good: importing them harms, or workers differ in what they would find."""
        self.names, self._is_off = (), True

    def drop_unfit(self, variant: Variant) -> bool:
        """Whether a worker of `variant` must not find them imported; then none does any more."""
        is_unfit = bool(self.names) and (
            variant.tree is not None  # another revision may have a module of that name
            or variant.environment != self._environment  # which they may have read
            or self._are_hidden_by(variant)
        )
        if is_unfit:
            self.drop()
        return is_unfit

    def _are_hidden_by(self, variant: Variant) -> bool:
        """Whether the project has a module by the name of one of them."""
        own = [Path(folder) for folder in variant.import_paths if not is_installed(str(Path(folder) / "x"))]
        packages = {name.partition(".")[0] for name in self.names}
        return any((folder / name).exists() or (folder / f"{name}.py").exists() for folder in own for name in packages)


libraries = Libraries()
