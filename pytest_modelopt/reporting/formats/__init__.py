"""The record in the forms that other programs read: `pytest-modelopt report --format NAME`.

Each module of this package is one format, by its own name, and has `render(record)`, its text.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_modelopt.results.record import Record


def names() -> list[str]:
    """Of every format, as the command line has them; nothing is imported for that."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def render(name: str, record: Record) -> str:
    """The record in the format `name`."""
    module = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
    text: str = module.render(record)
    return text
