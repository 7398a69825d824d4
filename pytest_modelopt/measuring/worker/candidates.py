"""A candidate in its worker: made by its factory, or loaded from its file and held against the original's call."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from pytest_modelopt.measuring.protocol import VariantError
from pytest_modelopt.measuring.worker.loading import Loader, load_model
from pytest_modelopt.optimizing.runtimes.program_file_module import ProgramFileError, load, require_content
from pytest_modelopt.results.candidate import Candidate, Provenance
from pytest_modelopt.results.source import Carried

_DIGITS = 16
"""Of a sum, in a note; the record has all of it."""


def load_candidate(
    candidate: Candidate, loader: Loader, folder: Path, answer: Callable[[], tuple[Any, Any]]
) -> tuple[nn.Module, tuple[str, ...], Provenance]:
    """The model, what had to be done to it, and where it comes from, by paths from `folder`.

    `answer` gives the inputs of one call and what the original answers to them: a file says neither how the model is
    called nor in which structure it answers.
    """
    if candidate.factory is not None:
        model, notes = load_model(loader, candidate.factory, "candidate")
        source = "a live object" if isinstance(candidate.factory, Carried) else candidate.factory
        return model, (*notes, *_left_out(candidate)), Provenance(source)
    shown = _shown(candidate.file, folder)
    try:
        require_content(Path(candidate.file), shown)
        digest = _sha256(Path(candidate.file))
        _require_same_sum(candidate, digest, shown)
        inputs, output = answer()
        program: Any = load(candidate.file, shown, inputs, output, dict(candidate.inputs))
    except ProgramFileError as error:
        raise VariantError(str(error)) from error
    sizes = {_shown(file, folder): Path(file).stat().st_size for file in program.files}
    note = f"it is {shown} ({program.made_by}; SHA-256 {digest[:_DIGITS]}...)"
    return program, (note, *_left_out(candidate)), Provenance(shown, sizes, digest, program.made_by)


def _left_out(candidate: Candidate) -> list[str]:
    why = "does not bind it: that is about what a recipe changes, and a candidate is a model of its own"
    return [f"`{limit}` of `budget:` {why}" for limit in candidate.left_out]


def _require_same_sum(candidate: Candidate, digest: str, shown: str) -> None:
    """Before it is loaded: a package of native code is trusted for what it was."""
    if candidate.sha256 and candidate.sha256 != digest:
        raise ProgramFileError(
            f"{shown} has the SHA-256 {digest}, and `sha256:` in the budgets file is {candidate.sha256}: it is not the "
            "file that was meant; build it again, or state the new sum once the file was looked at"
        )


def _shown(file: str, folder: Path) -> str:
    path = Path(file)
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while part := content.read(2**20):
            digest.update(part)
    return digest.hexdigest()
