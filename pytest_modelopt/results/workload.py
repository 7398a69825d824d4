"""Workloads: named operating points of a model, at each of which its call is measured."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

_BETWEEN = " @ "
_PARTS = re.compile(r"(.*\S)\s+@\s+(\S.*)", re.DOTALL)

Taken = Literal["first", "all", "exactly"]
"""Which examples of `example_inputs` the call has: the first `batch_size` of them, all, whatever `batch_size` says, or
all, which must be as many as it says. Whichever of the two keys is stated closer to the workload decides."""


@dataclass(frozen=True, slots=True)
class Workload:
    """How a model is called where it is measured. Without a name: the only way."""

    name: str = ""
    batch_size: int = 1
    threads: int = 1
    device: str = "cpu"
    time_limit_s: float | None = None
    """Of timing one comparison; None: that of the run."""
    example_inputs: str | None = None
    """The function that makes the inputs, `package.module:function`; None: they are the first of the data."""
    takes: Taken = "first"

    @property
    def call(self) -> tuple[object, ...]:
        """What a figure depends on: two workloads that have it in common are the same."""
        batch_size = None if self.takes == "all" else self.batch_size
        return batch_size, self.threads, self.device, self.example_inputs, self.takes


def at_workload(recipe: str, workload: str) -> str:
    """'int8-dynamic @ night'; without a workload the recipe as it is."""
    return f"{recipe}{_BETWEEN}{workload}" if workload else recipe


def without_workload(row: str) -> tuple[str, str]:
    """The two parts of what `at_workload` gave, in any spelling: the name is empty where there is none."""
    match = _PARTS.fullmatch(row.strip())
    return (row.strip(), "") if match is None else (match[1], match[2])


def wrong_name(name: str) -> str:
    """Why a workload cannot have the name, as the end of a sentence; '' where it can."""
    if not name.strip():
        return "is empty; give it a name, for example `online`"
    if name != name.strip() or not name.isprintable():
        return "has a blank at its end or an invisible character in it; remove it"
    found = next((mark for mark in ("::", "/", "@", "#") if mark in name), "")
    if found:
        return f"contains `{found}`, which would make the test's name unclear; use `-`"
    return "is what a comparison with a base is called; choose another" if name.endswith("against base") else ""
