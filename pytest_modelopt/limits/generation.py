"""Limits of a model that generates: of the two parts of its call, and of its cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pytest_modelopt.limits.kind import ExactKind, Number
from pytest_modelopt.limits.latency import MaxLatency, MinSpeedup
from pytest_modelopt.results.case import MeasuredCase
from pytest_modelopt.results.verdicts import Limit


@dataclass(frozen=True)
class MaxCacheMemory(ExactKind):
    is_absolute: ClassVar[bool] = True

    @property
    def is_about_generation(self) -> bool:
        return True

    def figure_of(self, case: MeasuredCase) -> Number | None:
        memory = case.variant.call_memory if case.variant else None
        return memory.cache_bytes if memory else None

    def with_room(self, case: MeasuredCase, limit: Limit, end: float, measured: float | None, headroom: float) -> float:
        return end * (1 + headroom)


LIMITS = (
    MaxLatency(
        "max_first_token_latency",
        "max",
        "time",
        "prefill",
        "The longest that the prompt may take until the first new token is known.",
        call="prefill",
    ),
    MinSpeedup(
        "min_prefill_speedup",
        "min",
        "factor",
        "prefill",
        "How many times as fast as the original the variant must be with the prompt.",
        call="prefill",
    ),
    MinSpeedup(
        "min_decode_speedup",
        "min",
        "factor",
        "decode",
        "How many times as fast as the original the variant must be with the steps after the prompt.",
        call="decode",
    ),
    MaxCacheMemory(
        "max_cache_memory",
        "max",
        "bytes",
        "cache",
        "The most bytes that the cache's tensors may have once prompt and new tokens are in it.",
    ),
)
