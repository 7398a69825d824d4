"""A model in a file, a candidate or an original, in its worker: loaded, and held against the call that is measured."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from torch import nn

from pytest_modelopt.measuring.protocol import VariantError
from pytest_modelopt.optimizing.calling import Inputs
from pytest_modelopt.optimizing.recipe import RecipeError
from pytest_modelopt.optimizing.runtimes.exporting import refuse_other_inputs
from pytest_modelopt.optimizing.runtimes.program_file_module import ProgramFileError, load, require_content
from pytest_modelopt.results.candidate import Candidate, Provenance
from pytest_modelopt.results.source import Carried, ProgramSource, Source

Made: TypeAlias = tuple[nn.Module, tuple[str, ...], Provenance | None]
"""A model, notes on it, and where it comes from."""
_DIGITS = 16
"""Of a sum, in a note; the record has all of it."""


def load_file(source: ProgramSource, folder: Path, inputs: Inputs, answer: Callable[[], Any]) -> Made:
    """The program, what should be known of it, and where it comes from, by paths from `folder`.

    `answer` gives what the original answers to `inputs`, of which it takes the structure: a file says neither how it is
    called nor in which structure it answers.
    """
    shown = _shown(source.file, folder)
    try:
        refuse_other_inputs(inputs, shown)
        require_content(Path(source.file), shown)
        digest = _sha256(Path(source.file))
        _require_same_sum(source, digest, shown)
        program: Any = load(source.file, shown, inputs, answer(), dict(source.inputs))
    except (ProgramFileError, RecipeError) as error:
        raise VariantError(str(error)) from error
    sizes = {_shown(file, folder): Path(file).stat().st_size for file in program.files}
    note = f"it is {shown} ({program.made_by}; SHA-256 {digest[:_DIGITS]}...)"
    setting = filter(None, [getattr(program, "setting", "")])
    return program, (note, *setting), Provenance(shown, sizes, digest, program.made_by)


def made_by(factory: Source) -> Provenance:
    """Of a candidate that is no file."""
    return Provenance("a live object" if isinstance(factory, Carried) else str(factory))


def left_out(candidate: Candidate) -> list[str]:
    """Notes on the limits of `budget:` that do not bind it."""
    why = "does not bind it: that is about what a recipe changes, and a candidate is a model of its own"
    return [f"`{limit}` of `budget:` {why}" for limit in candidate.left_out]


def _require_same_sum(source: ProgramSource, digest: str, shown: str) -> None:
    """Before it is loaded: a package of native code is trusted for what it was."""
    if source.sha256 and source.sha256 != digest:
        raise ProgramFileError(
            f"{shown} has the SHA-256 {digest}, and `sha256:` in the budgets file is {source.sha256}: it is not the "
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
