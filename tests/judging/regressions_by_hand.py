"""Cases against a base, and their verdicts: head is the variant, the base's measurement is the original."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pytest_modelopt.results.answers import Agreement
from pytest_modelopt.results.base import Base
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.verdicts import Limit
from tests.judging.judged import Judged, judged
from tests.reporting.records_by_hand import case, measurement, reference_changed, timing, variant_changed

COMMIT = "1a2b3c4d5e6f"
COMPARED = Base(COMMIT, "compared")
NAMES = ("max_memory_growth", "max_size_growth", "max_accuracy_loss", "max_slowdown")


def limit(name: str, value: float, text: str = "L") -> Limit:
    return Limit(name, value, text, "error", "budgets.yaml", 31)


def against(base: Base = COMPARED, **changes: Any) -> Case:
    """Head and base alike: 1 MB saved, 1.5 MB of memory, 90% of 1,000 examples, 4 ms a call in 200 pairs."""
    side = replace(
        measurement("int8-dynamic", size=1_000_000, weights=1_000_000, peak=500_000, score=0.9), examples=1000
    )
    timed = timing(reference_ns=4_000_000, variant_ns=4_000_000)
    made = case(reference=side, variant=side, agreement=Agreement(1000, 0, 0, 0), timing=timed)
    return replace(made, base=base, **changes)


def head(**changes: Any) -> Case:
    """A head that differs from its base in these figures."""
    return variant_changed(against(), **changes)


def base(**changes: Any) -> Case:
    return reference_changed(against(), **changes)


def verdict(of: Case, name: str, value: float, text: str = "L") -> Judged:
    return judged(of, limit(name, value, text), timed_limits=1)


def told(of: Case, name: str, value: float, text: str = "L") -> str:
    """What the verdict says between the limit and the place that states it."""
    said = verdict(of, name, value, text).sentence
    beginning, end = f"digits-vit/int8-dynamic: {name} {text} ", ". (budgets.yaml:31)"
    assert said.startswith(beginning)
    assert said.endswith(end)
    return said[len(beginning) : -len(end)]


def slower(head_ns: int | list[int], base_ns: int | list[int] = 4_000_000, pairs: int = 200) -> Case:
    """The base takes `base_ns` for a call, head `head_ns`."""
    return against(timing=timing(pairs, base_ns, head_ns))
