"""A model in a file, a candidate or an original, in its worker: loaded, and held against the call that is measured."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from torch import nn

from pytest_modelopt.measuring.protocol import VariantError
from pytest_modelopt.optimizing.calling import Inputs
from pytest_modelopt.optimizing.recipe import RecipeError
from pytest_modelopt.optimizing.runtimes.exporting import refuse_other_inputs
from pytest_modelopt.optimizing.runtimes.program_file_module import ProgramFileError, load, require_content
from pytest_modelopt.results.candidate import Candidate, Provenance
from pytest_modelopt.results.files.file_sums import sha256_of
from pytest_modelopt.results.source import Carried, ProgramSource, Source

Made: TypeAlias = tuple[nn.Module, tuple[str, ...], Provenance | None]
"""A model, notes on it, and where it comes from."""
_DIGITS = 16
"""Of a sum, in a note; the record has all of it."""


def load_file(
    source: ProgramSource,
    folder: Path,
    inputs: Inputs,
    answer: Callable[[], Any],
    parameters: Sequence[str] = (),
    head: Path | None = None,
) -> Made:
    """The program, what should be known of it, and where it comes from, by paths from `folder`.

    `answer` gives what the original answers to `inputs`, of which it takes the structure: a file says neither how it is
    called nor in which structure it answers. `parameters`: as in `program_file_module.load`. `head`: of a file at the
    base, the tree into which links may lead, too.
    """
    shown = _shown(source.file, folder)
    sums: dict[str, str] = {}
    stated = {name or Path(source.file).name: each for name, each in source.sha256}

    def sums_of(files: Sequence[str]) -> dict[str, str]:
        found = {}
        for file in files:
            path = _shown(file, folder)
            if path not in sums:
                _require_inside(Path(file), path, repository_of(folder), head)
                require_content(Path(file), path)
                sums[path] = sha256_of(Path(file))
            found[_shown(file, Path(source.file).parent)] = sums[path]
        _require_same_sums(stated, found, shown)
        return found

    def check(files: Sequence[str]) -> None:
        """Before the program is loaded: a package of native code is trusted for what it was."""
        _require_all_sums(stated, sums_of(files), shown)

    try:
        refuse_other_inputs(inputs, shown)
        sums_of([source.file])  # before it is read at all
        program: Any = load(source.file, shown, inputs, answer(), dict(source.inputs), check, parameters)
    except (ProgramFileError, RecipeError) as error:
        raise VariantError(str(error)) from error
    sizes = {_shown(file, folder): Path(file).stat().st_size for file in program.files}
    note = f"it is {shown} ({program.made_by}; SHA-256 {sums[shown][:_DIGITS]}...)"
    setting = filter(None, [getattr(program, "setting", "")])
    return program, (note, *setting), Provenance(shown, sizes, sums, program.made_by)


def parameters_of(module: nn.Module) -> tuple[str, ...]:
    """The names by which its forward takes positional arguments; none where that takes any number of them."""
    try:
        found = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):  # of TorchScript
        return ()
    return tuple(each.name for each in found if each.kind is each.POSITIONAL_OR_KEYWORD)


def made_by(factory: Source) -> Provenance:
    """Of a candidate that is no file."""
    return Provenance("a live object" if isinstance(factory, Carried) else str(factory))


def left_out(candidate: Candidate) -> list[str]:
    """Notes on the limits of `budget:` that do not bind it."""
    why = "does not bind it: that is about what a recipe changes, and a candidate is a model of its own"
    return [f"`{limit}` of `budget:` {why}" for limit in candidate.left_out]


def repository_of(folder: Path) -> Path:
    """The folder of the git repository around `folder`, or itself where there is none."""
    return next((each for each in (folder, *folder.parents) if (each / ".git").exists()), folder)


def _require_inside(file: Path, shown: str, root: Path, head: Path | None) -> None:
    """That a path within the project does not lead out of it by a link: a change that names one would have the gate
    read what its author cannot."""
    absolute = Path(os.path.abspath(file))  # noqa: PTH100 -- links stay
    roots = [each.resolve() for each in (root, head) if each is not None]
    if absolute.is_relative_to(root) and not any(absolute.resolve().is_relative_to(each) for each in roots):
        raise ProgramFileError(
            f"{shown} is a link, or lies behind one, that leads out of the repository, and is not followed: put the "
            "file itself there"
        )


def _require_same_sums(stated: dict[str, str], found: dict[str, str], shown: str) -> None:
    for name, each in found.items():
        if stated.get(name, each) != each:
            raise ProgramFileError(
                f"{name} of {shown} has the SHA-256 {each}, and `sha256:` in the budgets file is {stated[name]}: it is "
                "not the file that was meant; build it again, or state the new sum once the file was looked at"
            )


def _require_all_sums(stated: dict[str, str], found: dict[str, str], shown: str) -> None:
    if stated and stated.keys() != found.keys():
        sums = ", ".join(f"{name}: '{each}'" for name, each in found.items())
        raise ProgramFileError(
            f"{shown} consists of {' and '.join(found)}, and `sha256:` in the budgets file speaks of "
            f"{' and '.join(stated)}: another one could be damaged unnoticed; once they were looked at, state "
            f"`sha256: {{{sums}}}`"
        )


def _shown(file: str, folder: Path) -> str:
    path = Path(file)
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()
