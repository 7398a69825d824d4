"""Candidates: optimized models that the project made itself, by a factory of its own or as a file."""

from __future__ import annotations

from dataclasses import dataclass, field

from pytest_modelopt.results.source import Source


@dataclass(frozen=True)
class Candidate:
    """Where a candidate comes from: either `factory` or `file` is there."""

    name: str
    factory: Source | None = None
    file: str = ""
    """In a budgets file as it is written, relative to its folder; absolute in a variant."""
    sha256: str = ""
    """What the file must have, in hexadecimal; empty where nothing was said."""
    inputs: tuple[tuple[str, int | str], ...] = ()
    """Inputs of the file, each with the argument of the model's call that it gets: a position or a keyword."""
    left_out: tuple[str, ...] = ()
    """Limits of `budget:` that do not bind it."""


@dataclass(frozen=True)
class Provenance:
    """What is known of the candidate that was measured."""

    source: str
    """'shop.models:load_student', 'dist/reader.onnx'."""
    files: dict[str, int] = field(default_factory=dict)
    """Bytes of each file that belongs to it, by its path from the folder of the budgets file."""
    sha256: str = ""
    """Of the file that is named, in hexadecimal; empty for a factory."""
    made_by: str = ""
    """'ONNX opset 18, by pytorch 2.13.0'; empty where the file does not say."""
