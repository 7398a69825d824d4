"""Candidates: optimized models that the project made itself, by a factory of its own or as a file."""

from __future__ import annotations

from dataclasses import dataclass, field

from pytest_modelopt.results.source import ProgramSource, Source


@dataclass(frozen=True, slots=True)
class Candidate:
    """An optimized model that the project has made itself."""

    name: str
    origin: Source | ProgramSource
    left_out: tuple[str, ...] = ()
    """Limits of `budget:` that do not bind it."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """What is known of the candidate, or of the file of an original, that was measured."""

    source: str
    """'shop.models:load_student', 'dist/reader.onnx'."""
    files: dict[str, int] = field(default_factory=dict)
    """Bytes of each file that belongs to it, by its path from the folder of the budgets file."""
    sums: dict[str, str] = field(default_factory=dict)
    """SHA-256 of each of them, in hexadecimal, under the same paths; empty for a factory."""
    made_by: str = ""
    """'ONNX opset 18, by pytorch 2.13.0'; empty where the file does not say."""
