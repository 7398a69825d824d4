"""Figures that are better when they are bigger, for github-action-benchmark's tool `customBiggerIsBetter`."""

from __future__ import annotations

from pytest_modelopt.reporting.formats.github_action_benchmark import entries
from pytest_modelopt.results.record import Record


def render(record: Record) -> str:
    return entries(record, bigger=True)
