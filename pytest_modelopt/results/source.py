"""Where a model, its data or a function comes from: a name to import, or a live object."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Carried:
    """A live object of the pytest process, under `key` in the file that `carry` wrote for the worker."""

    key: str


Source = str | Carried
"""`package.module:function`, called without arguments in the worker, or a live object that was carried there."""
