"""`pytest-modelopt export`: write an optimized variant, or a candidate, as it is measured, to be shipped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_modelopt.cli.shared.exit_codes import PASSED
from pytest_modelopt.cli.shared.judged_records import RECORD, read_judged
from pytest_modelopt.cli.shared.printing import tell

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from pytest_modelopt.cli.shared.arguments import Commands
    from pytest_modelopt.config.loader import BudgetsFile, CaseEntry
    from pytest_modelopt.measuring.controller.runner import Runner
    from pytest_modelopt.measuring.variant import Variant
    from pytest_modelopt.results.measurement import Measurement
    from pytest_modelopt.results.record import Record


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser(
        "export",
        help="write an optimized variant as it is measured: .onnx, .xml and .bin, or .tflite for the runtimes; of "
        "torch .pt2, else .pt with the .py that loads it, else TorchScript; of a candidate that is a file, the file; "
        "prints the SHA-256 of each file, for `sha256:` of a candidate",
    )
    parser.add_argument("model", help="a model of the budgets file")
    parser.add_argument("recipe", help="a recipe, in any spelling, which the file need not state; or a candidate")
    parser.add_argument(
        "--output", type=Path, default=Path("dist"), metavar="FOLDER", help="the folder of the files (default: dist)"
    )
    parser.add_argument("--name", help="the name of the files, without a suffix (default: made of model and recipe)")
    parser.add_argument("--budgets", type=Path, help="the budgets file (default: the one that pytest would take)")
    parser.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        help="record.json of a run of the gate: only what was measured there is written (made again, the variant must "
        "hold and answer the same, bit by bit), and the SHA-256 of its files are added to the record "
        f"(default: {RECORD}, where it has figures of the recipe)",
    )
    parser.set_defaults(run=run, in_project=True)


def run(options: argparse.Namespace) -> int:
    from pytest_modelopt.cli.shared.progress_line import Shown, show
    from pytest_modelopt.config.loader import load_budgets
    from pytest_modelopt.measuring.controller.runner import Runner, StepLimits
    from pytest_modelopt.plugin.planning import variant_of
    from pytest_modelopt.results.source import ProgramSource

    stated: Path = options.budgets or options.default_budgets
    budgets = load_budgets(stated.resolve(), relative_to=Path.cwd(), root=options.root)
    entry = _entry(budgets, options.model, options.recipe)
    variant = variant_of(budgets, entry.model, entry.expression, Path.cwd(), entry.candidate)
    is_file = entry.candidate is not None and isinstance(entry.candidate.origin, ProgramSource)
    if is_file and options.name:
        raise ValueError(f"--name: {entry.recipe} is a file, and is written under its own name; leave --name out")
    name = options.name or file_name(entry.model.name, entry.recipe)
    if Path(name).name != name:
        raise ValueError(f"--name: {name!r} is no plain name of a file; give the folder by --output")
    record, recorded = _recorded(options.record, entry.name)
    runner = Runner(StepLimits(budgets.defaults.time_limit_s, budgets.defaults.step_limit_s), Shown())
    try:
        sums = write_variant(runner, variant, options.output, name, entry.name, recorded)
    finally:
        show("")
        runner.close()
    add_to_record(options.record or RECORD, record, recorded, entry.name, {} if is_file else sums)
    _tell_of_loader(variant, options.output, sums)
    return PASSED


def file_name(model: str, recipe: str) -> str:
    """Of the files of a variant, without a suffix."""
    from pytest_modelopt.plugin.collecting.selection import keyword

    return keyword(f"{model}-{recipe}").replace("/", "_")


def write_variant(
    runner: Runner, variant: Variant, folder: Path, name: str, case: str, recorded: Measurement | None
) -> dict[Path, str]:
    """Make the variant again, write its files into the folder, and print and return the SHA-256 of each.

    With `recorded` only where it is what was measured then.

    Raises:
        ValueError: it cannot be written, or is another one now.
    """
    from pytest_modelopt.cli.shared.progress_line import show
    from pytest_modelopt.measuring.controller.process import WorkerFailed
    from pytest_modelopt.results.files.file_sums import sha256_of

    folder.mkdir(parents=True, exist_ok=True)
    try:
        files = runner.export(variant, folder.resolve() / name, case, recorded)
    except WorkerFailed as failed:
        raise ValueError(f"{case}: {failed.message}" + (f"\n{failed.output}" if failed.output else "")) from None
    show("")
    if variant.is_called_otherwise:
        part = f"`{variant.optimize}`" if variant.optimize else "the model"
        tell(f"written is {part}, which recipes change; what is around it is the project's own code")
    sums = {file: sha256_of(file) for file in files}
    for file, digest in sums.items():
        tell(f"{folder / file.name}: {file.stat().st_size:,} bytes, SHA-256 {digest}")
    return sums


def _tell_of_loader(variant: Variant, folder: Path, files: Iterable[Path]) -> None:
    loader = next((file for file in files if file.suffix == ".py"), None)
    if loader is not None and not variant.is_called_otherwise:
        module = loader.stem if folder.is_absolute() else ".".join([*folder.parts, loader.stem])
        tell(
            f"{folder / loader.name} loads it by torch's weights_only, with the classes that it names; gate it as a "
            f"candidate by `factory: {module}:load`"
        )


def _entry(budgets: BudgetsFile, model: str, recipe: str) -> CaseEntry:
    """A case for the model and the recipe, stated in the file or not, or for the candidate. Raises ValueError."""
    from pytest_modelopt.config.loader import CaseEntry
    from pytest_modelopt.limits.spelling import did_you_mean, plain, shown
    from pytest_modelopt.optimizing.expression import RecipeError, parse

    models = {each.name: each for each in budgets.models}
    if model not in models:
        raise ValueError(f"{budgets.path} has no model {shown(model)}{did_you_mean(model, list(models))}")
    first = models[model].workloads[0]  # where each variant is made
    candidates = {each.recipe: each for each in budgets.cases if each.model.name == model and each.candidate}
    if recipe in candidates:
        return replace(candidates[recipe], workload=first)
    try:
        expression = parse(recipe)
    except RecipeError as error:
        told = f"; candidates of {plain(model)} are {', '.join(map(plain, candidates))}" if candidates else ""
        raise ValueError(f"{error}{told}") from None
    return CaseEntry(models[model], expression.text, (), models[model].line, expression=expression, workload=first)


def _recorded(path: Path | None, name: str) -> tuple[Record | None, Measurement | None]:
    """The record, and what it has of the variant of a case; of that of the last run, where none is named, perhaps
    nothing. Raises ValueError."""
    if path is None and not RECORD.is_file():
        return None, None
    record = read_judged(path or RECORD)
    for case in record.cases:
        if case.name == name and case.base is None and case.variant is not None and case.error is None:
            return record, case.variant
    if path is not None:
        raise ValueError(f"{path} has no figures of {name}: measure it with `pytest --modelopt` first")
    return record, None


def add_to_record(
    path: Path, record: Record | None, recorded: Measurement | None, name: str, sums: dict[Path, str]
) -> None:
    """Put the sums of the exported files into the record, or say that the record has no measurement of them.

    `sums` is empty of a candidate that is a file: its sums stand in the record since it was measured.
    """
    from pytest_modelopt.results.json import write

    if record is None or recorded is None:
        tell(
            f"nothing says that it is what the gate measured: {path} has no figures of {name}; measure it with "
            f"`pytest --modelopt --modelopt-report {path.parent}`, and export it again"
        )
        return
    if sums:
        write(_with_sums(record, recorded, {file.suffix: digest for file, digest in sums.items()}), path)
    tell(f"it is what was measured as {name}, and the record has these sums now: {path}")


def _with_sums(record: Record, measured: Measurement, sums: dict[str, str]) -> Record:
    """The record with the sums of what was written of one of its variants."""
    written = replace(measured, shipped=sums)
    cases = (replace(case, variant=written) if case.variant is measured else case for case in record.cases)
    return replace(record, cases=tuple(cases))
