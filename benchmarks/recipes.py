"""Every recipe on every kind of model, in real runs of the gate: the table in RECIPES.md.

`python -m benchmarks.recipes` trains the models that are missing (benchmarks/zoo.py), measures each model with all
recipes in one run of `pytest --modelopt`, and writes the table. What is measured already is not measured again, unless
by `--again`, or for single recipes by `--recipe`.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tabulate import tabulate

from benchmarks import zoo
from benchmarks.common import REPOSITORY, RESULTS, command
from pytest_modelopt.limits.latency import latencies_s, speedup_of
from pytest_modelopt.reporting.timing_conditions import disturbances
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.figures import format_bytes, format_factor, format_percentage, format_points, format_time
from pytest_modelopt.results.json import read, write
from pytest_modelopt.results.record import Record

TABLE = Path(__file__).with_name("RECIPES.md")
FOLDER = RESULTS / "recipes"
TIME_LIMIT = "4 s"

KINDS = {
    "convolutional": ("benchmarks.zoo:convolutional", "images", "residual network with batch norm, 1.2 M weights"),
    "encoder": ("example_project.vision:load_model", "digits", "`nn.TransformerEncoder`, 2.2 M weights"),
    "attention": ("benchmarks.zoo:attention", "images", "Transformer with attention of its own, 3.2 M weights"),
    "recurrent": ("benchmarks.zoo:recurrent", "speech", "two-layer LSTM, 1.3 M weights"),
    "plain": ("benchmarks.zoo:plain", "images", "three Linear layers, 6.3 M weights"),
}
"""Factory, data and description of each model."""
DATA = {
    "images": ("benchmarks.zoo:images", "benchmarks.zoo:training_images"),
    "digits": ("example_project.vision:test_data", "example_project.vision:train_data"),
    "speech": ("example_project.speech:test_data", "example_project.speech:train_data"),
}
"""What is scored, and what recipes may calibrate with."""

EXPRESSIONS = (
    "int8-dynamic",
    "int8-static",
    "int8-weight-only",
    "torchao-int8-dynamic",
    "torchao-int8-dynamic + compile",
    "torchao-int8-weight-only",
    "torchao-pt2e-int8",
    "bf16",
    "fp16",
    "prune-unstructured(ratio=0.5)",
    "prune-unstructured(ratio=0.9) + sparse-csr",
    "prune-structured(ratio=0.3)",
    "prune-structured(ratio=0.3) + int8-dynamic",
    "low-rank(ratio=0.5)",
    "fold-batchnorm",
    "channels-last",
    "fold-batchnorm + channels-last",
    "compile",
    "compile(freezing=true)",
    "onnxruntime",
    "onnxruntime-int8-dynamic",
    "onnxruntime-int8-static",
    "openvino",
    "openvino-int8",
    "litert",
    "litert-int8",
    "litert-int8(activations=static)",
)
"""Every recipe that a processor can run, and combinations that make sense."""


def budgets(kind: str, expressions: Sequence[str]) -> str:
    """A budgets file with one model, these recipes and no limits."""
    factory, data, _ = KINDS[kind]
    scored, calibration = DATA[data]
    recipes = "".join(f"      {expression!r}:\n" for expression in expressions)
    return (
        f"version: 1\nmodels:\n  {kind}:\n    factory: {factory}\n    data: {scored}\n    calibration: {calibration}\n"
        f"    recipes:\n{recipes}"
    )


def measure(kind: str, folder: Path, expressions: Sequence[str] = EXPRESSIONS) -> None:
    """One run of the gate; its record stays in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "budgets.yaml").write_text(budgets(kind, expressions), encoding="utf-8")
    file = str(folder / "budgets.yaml")
    named = ["--modelopt-budgets", file, "--modelopt-report", str(folder), "--modelopt-time-limit", TIME_LIMIT]
    gate = [sys.executable, "-m", "pytest", "--modelopt", *named, "-q", "--no-header", "--tb=no", file]
    subprocess.run(gate, cwd=REPOSITORY, check=False)  # red where a recipe does not apply: that is a row of the table


def measure_anew(kind: str, expressions: Sequence[str]) -> None:
    """These recipes only; their cases take the place of the old ones in the record of `kind`.

    Raises:
        SystemExit: the machine is another one, whose figures do not belong into one table with the old ones.
    """
    measure(kind, FOLDER / kind / "anew", expressions)
    old, new = read(record_of(kind)), read(FOLDER / kind / "anew" / "record.json")
    if old.environment != new.environment:
        raise SystemExit(f"{kind} was measured on another machine or with other versions: measure all, with --again")
    cases = {case.recipe: case for case in new.cases}
    write(replace(old, cases=tuple(cases.get(case.recipe, case) for case in old.cases)), record_of(kind))


def record_of(kind: str) -> Path:
    return FOLDER / kind / "record.json"


def is_measured(kind: str) -> bool:
    return record_of(kind).exists() and read(record_of(kind)).complete


# --- the table -------------------------------------------------------------------------------------------------------

HEADERS = ("recipe", "speedup", "memory", "size", "accuracy drop", "changed: bytes / work", "made in")


def table(record: Record, kind: str) -> Iterator[str]:
    original = next(case.reference for case in record.cases if case.reference is not None)
    latency = statistics.median(
        latencies_s(case.timing)[0] for case in record.cases if case.timing and case.timing.pairs
    )
    yield f"## {kind}: {KINDS[kind][2]}"
    yield ""
    yield (
        f"The original: accuracy {format_percentage(original.score or 0, digits=4)} on {original.examples} examples, "
        f"{format_time(latency)} a call of one example, {format_bytes(original.memory_bytes or 0)} peak memory, "
        f"{format_bytes(original.size_bytes or 0)} saved."
    )
    yield ""
    rows = [_row(case) for case in record.cases if case.error is None]
    yield tabulate(rows, HEADERS, tablefmt="github", disable_numparse=True)
    refused = [case for case in record.cases if case.error is not None]
    if refused:
        yield ""
        yield "Does not apply:"
        yield ""
        yield from (f"* `{case.recipe}`: {_reason(case)}" for case in refused)
    yield ""


def _row(case: Case) -> tuple[str, ...]:
    variant, original, coverage = case.variant, case.reference, case.coverage
    assert variant is not None
    assert original is not None
    assert coverage is not None
    speedup = format_factor(speedup_of(case.timing).figure) if case.timing and case.timing.pairs else "-"
    work = coverage.multiply_adds_share
    return (
        f"`{case.recipe}`",
        speedup,
        _change(case.memory_bytes(original), case.memory_bytes(variant)) + ("*" if case.foreign_runtimes else ""),
        _change(original.size_bytes, variant.size_bytes),
        format_points(case.drop) if case.drop is not None else "-",
        f"{format_percentage(coverage.share, digits=3)} / {'-' if work is None else format_percentage(work, digits=3)}",
        format_time(variant.seconds.get("optimize", 0.0), digits=2),
    )


def _change(before: int | None, after: int | None) -> str:
    if not before or after is None:
        return "-"
    change = round(100 * (after / before - 1))
    return f"{change:+d}%" if change else "0%"


def _reason(case: Case) -> str:
    assert case.error is not None
    text = " ".join(case.error.message.split())
    return text if len(text) <= 400 else text[:397] + "..."


def document(records: dict[str, Record]) -> str:
    environment = next(iter(records.values())).environment
    assert environment is not None
    flags = ", ".join(environment.cpu_flags)
    lines = [
        "# Recipes on kinds of models",
        "",
        f"Made by `{command()}` from runs of the gate: {environment.cpu} ({environment.cpu_capability}; {flags}), "
        f"{environment.cpu_count} cores, one thread, batches of one example, torch {environment.torch}. Another "
        "machine gives other figures, above all one without VNNI or AVX512: measure on yours.",
        "",
        "Speedups are medians of paired ratios of one launch, which alone can be off by 2% or more. `changed` is the "
        "share of the weight bytes that the recipe reached, and of the multiply-adds that these weights do. `made in` "
        "is what the recipe takes, once. Memory with * is that of fresh processes, of both sides. A drop below 0.5 "
        "points of a few hundred examples means little.",
        "",
        "On a processor without VNNI the int8 program of `torchao-pt2e-int8` answers the two Transformers wrongly, and "
        "so does any float model in the same process from its first call on. The recipe looks for that now and "
        "refuses, so a row with such a drop was measured before.",
        "",
        *_disturbed(records),
    ]
    for kind, record in records.items():
        lines += table(record, kind)
    return "\n".join(lines).rstrip() + "\n"


def _disturbed(records: dict[str, Record]) -> list[str]:
    cases = [case for record in records.values() for case in record.cases if case.timing]
    disturbed = sum(bool(disturbances(case.timing)) for case in cases if case.timing)
    return [f"{disturbed} of {len(cases)} comparisons were timed on a disturbed machine.", ""] if disturbed else []


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", choices=[*KINDS, []], help="only these models")
    parser.add_argument("--again", action="store_true", help="measure what is measured already, too")
    parser.add_argument("--recipe", action="append", choices=EXPRESSIONS, help="measure this recipe again, no other")
    parser.add_argument("--tables-only", action="store_true", help="only write the table of what is there")
    options = parser.parse_args(arguments)
    zoo.main()
    for kind in options.kinds or KINDS:
        if options.tables_only:
            continue
        if options.again or not is_measured(kind):
            measure(kind, FOLDER / kind)
        elif options.recipe:
            measure_anew(kind, options.recipe)
    records = {kind: read(record_of(kind)) for kind in KINDS if record_of(kind).exists()}
    TABLE.write_text(document(records), encoding="utf-8")
    print(f"wrote {TABLE.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    main()
