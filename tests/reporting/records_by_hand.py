"""Records made by hand, with figures that can be checked in the head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import cycle
from typing import Any

from pytest_modelopt.results.answers import Agreement
from pytest_modelopt.results.case import Case, CaseError
from pytest_modelopt.results.measurement import Coverage, LayerCoverage, Measurement, RecipeStep
from pytest_modelopt.results.record import Environment, Record
from pytest_modelopt.results.timed_pairs import Conditions, TimedPair, Timing, WorkerUse
from pytest_modelopt.results.verdicts import Level, Limit, Outcome, Reason, Verdict

MIB = 1024 * 1024


def limit(name: str, value: float, text: str, line: int = 23, level: Level = "error") -> Limit:
    return Limit(name=name, value=value, text=text, level=level, file="budgets.yaml", line=line)


def verdict(of: Limit, outcome: Outcome, measured: float | None = None, reason: str = "for a reason") -> Verdict:
    """`reason` stands in the sentence as it is, as the code of another version would."""
    return Verdict(of, outcome, measured, Reason(reason), waived="fail" if outcome == "waived" else None)


def measurement(
    recipe: str | None,
    *,
    weights: int | None = 4 * MIB,
    peak: int | None = 4 * MIB,
    size: int = 4 * MIB,
    score: float | None = 0.975,
    examples: int = 360,
    **fields: Any,
) -> Measurement:
    """`fields` are further ones of Measurement."""
    return Measurement(
        recipe=recipe,
        size_bytes=size,
        weights_bytes=weights,
        call_peak_bytes=peak,
        score=score,
        examples=examples,
        data_fingerprint="00ff",
        **fields,
    )


ORIGINAL = measurement(None)


QUIET = Conditions(
    cores=2,
    load=0.5,
    other_cores=0.01,
    stolen_cores=0.0,
    throttled_s=0.0,
    canary_at_best_ns=None,
    waited_s=0.0,
    reference=WorkerUse(active_threads=1, idle_cores=0.03),
    variant=WorkerUse(active_threads=1, idle_cores=0.04),
)


PAIRS_PER_SECOND = 20
Figures = int | Sequence[int]
"""Nanoseconds of a call in all pairs, or in one pair after the other, again from the start where there are more."""


def timing(
    pairs: int = 200,
    reference_ns: Figures = 4_000_000,
    variant_ns: Figures = 5_000_000,
    conditions: Conditions = QUIET,
) -> Timing:
    """Pairs of three launches, twenty a second. A launch begins with a second, so each second is a segment."""
    seconds = max(1, pairs // PAIRS_PER_SECOND)
    each = (
        _pair(index, 1 + 3 * min(index // PAIRS_PER_SECOND, seconds - 1) // seconds, one, other)
        for index, one, other in zip(range(pairs), _endless(reference_ns), _endless(variant_ns), strict=False)
    )
    return Timing(
        tuple(each),
        seed=7,
        seconds=pairs / PAIRS_PER_SECOND,
        prepare_s=0.1,
        time_limit_s=20.0,
        threads=1,
        conditions=conditions,
    )


def by_second(*figures_ns: int) -> list[int]:
    """One second of pairs with each of these figures."""
    return [figure for figure in figures_ns for _ in range(PAIRS_PER_SECOND)]


def _endless(figures_ns: Figures) -> Iterator[int]:
    return cycle([figures_ns] if isinstance(figures_ns, int) else figures_ns)


def _pair(index: int, launch: int, reference_ns: int, variant_ns: int) -> TimedPair:
    calls = [max(1, 10_000_000 // figure) for figure in (reference_ns, variant_ns)]
    return TimedPair(
        launch=launch,
        at_ms=1000 * index // PAIRS_PER_SECOND,
        variant_first=index % 2 == 0,
        reference_ns=reference_ns,
        variant_ns=variant_ns,
        reference_calls=calls[0],
        variant_calls=calls[1],
        reference_block_ns=calls[0] * reference_ns,
        variant_block_ns=calls[1] * variant_ns,
        reference_warming_ns=4_000_000,
        variant_warming_ns=4_000_000,
        canary_ns=0,
        reference_delayed_ns=0,
        variant_delayed_ns=0,
    )


def case(
    recipe: str = "int8-dynamic",
    model: str = "digits-vit",
    *,
    verdicts: tuple[Verdict, ...] = (),
    reference: Measurement | None = ORIGINAL,
    variant: Measurement | None = None,
    metric: str | None = "accuracy",
    higher_is_better: bool = True,
    error: CaseError | None = None,
    limits: tuple[Limit, ...] | None = None,
    **fields: Any,
) -> Case:
    """`fields` are further ones of Case, such as `slices`."""
    return Case(
        id=f"budgets.yaml::{model}/{recipe}",
        model=model,
        recipe=recipe,
        metric=metric,
        higher_is_better=higher_is_better,
        limits=tuple(each.limit for each in verdicts) if limits is None else limits,
        batch_size=1,
        reference=reference,
        variant=measurement(recipe, weights=MIB, peak=MIB, size=MIB) if variant is None and error is None else variant,
        error=error,
        verdicts=verdicts,
        **fields,
    )


def variant_changed(of: Case, **figures: Any) -> Case:
    """`of`, but with these fields of the variant's measurement."""
    assert of.variant is not None
    return replace(of, variant=replace(of.variant, **figures))


def reference_changed(of: Case, **figures: Any) -> Case:
    """`of`, but with these fields of the measurement that the variant is compared with."""
    assert of.reference is not None
    return replace(of, reference=replace(of.reference, **figures))


ENVIRONMENT = Environment(
    python="3.11.9",
    platform="Linux-6.8-x86_64",
    cpu="Example CPU",
    cpu_count=2,
    cpu_capability="AVX512",
    cpu_flags=("avx2", "avx512_vnni"),
    torch="2.13.0",
    quantized_engine="x86",
    packages={"torchao": "0.14.0"},
)


def record(
    *cases: Case, complete: bool = True, strict: bool = False, planned: tuple[str, ...] = (), **fields: Any
) -> Record:
    """`planned` beside the cases; `fields` are further ones of Record, or other values than those here."""
    made = Record(
        tool_version="0.1.0",
        started="2026-11-24T03:00:00Z",
        seed=7,
        strict=strict,
        timed_limits=1,
        planned=(*(each.id for each in cases), *planned),
        complete=complete,
        cases=cases,
        environment=ENVIRONMENT,
    )
    return replace(made, **fields)


def broken(recipe: str, *, line: int = 23, level: Level = "error", measured: float = 3.75 * MIB) -> Case:
    """A case that breaks max_memory 3 MiB."""
    bound = limit("max_memory", 3 * MIB, "3 MiB", line=line, level=level)
    return case(recipe, verdicts=(verdict(bound, "fail", measured, "measured"),))


def realistic() -> Record:
    """Two models and six recipes: three pass, one of them with a warning; a FAIL, an error, an inconclusive."""
    transformer = Coverage(
        layers=(
            *(LayerCoverage(f"blocks.{n}.mlp", "Linear", 3 * MIB, 3 * MIB, 750_000, 750_000) for n in range(2)),
            *(LayerCoverage(f"blocks.{n}.attention", "MultiheadAttention", MIB, 0, 250_000, 0) for n in range(2)),
            *(LayerCoverage(f"blocks.{n}.norm", "LayerNorm", 2048, 0) for n in range(4)),
        ),
        steps=(RecipeStep("int8-dynamic", 6 * MIB, 8 * MIB + 8192),),
    )
    pruned = replace(
        transformer,
        steps=(
            RecipeStep("prune-structured(ratio=0.5)", 6 * MIB, 8 * MIB + 8192, ("2 heads of each attention kept",)),
            RecipeStep("int8-dynamic", 3 * MIB, 4 * MIB + 8192),
        ),
    )
    memory = limit("max_memory", 3 * MIB, "3 MiB", 23)
    speed = limit("min_speedup", 1.5, "1.5x", 26)
    hoped = limit("min_speedup", 1.5, "1.5x", 29, "warn")
    drop = limit("max_accuracy_drop", 0.01, "1 pp", 20)
    ok = verdict(drop, "pass", 0.0028)
    original = measurement(None, notes=("was in training mode; it was put into eval mode",))
    cases = (
        case(
            "int8-dynamic",
            verdicts=(
                ok,
                verdict(
                    memory,
                    "fail",
                    3.41 * MIB,
                    "measured",
                ),
            ),
            reference=original,
            variant=measurement(
                "int8-dynamic",
                weights=2 * MIB,
                peak=int(2.4 * MIB) + int(1.01 * MIB) - 2 * MIB,
                size=2 * MIB,
                score=350 / 360,
            ),
            timing=timing(400, 3_700_000, 2_600_000),
            coverage=transformer,
            agreement=Agreement(360, 2, 1, 3),
        ),
        case(
            "prune-structured(ratio=0.5) + int8-dynamic",
            verdicts=(
                ok,
                verdict(
                    hoped,
                    "inconclusive",
                    1.46,
                    "1.46x [1.42x, 1.52x] over 400 pairs in 20 s, and the "
                    "limit lies inside that interval: estimates of one second spread by 2.4%, so no time would decide "
                    "a limit that is so near; give a limit further from what is measured, or a quieter machine",
                ),
            ),
            reference=original,
            variant=measurement("x", weights=MIB, peak=int(1.2 * MIB), size=MIB, score=349 / 360),
            timing=timing(400, 3_700_000, 2_534_000),
            coverage=pruned,
            agreement=Agreement(360, 4, 2, 7),
        ),
        case("low-rank(energy=0.9)", verdicts=(ok,), reference=original, agreement=Agreement(360, 0, 0, 0)),
        case(
            "int8-static",
            "keyword-cnn",
            verdicts=(
                verdict(
                    speed,
                    "inconclusive",
                    1.52,
                    "1.52x [1.48x, 1.58x] over 400 pairs in "
                    "20 s, and the limit lies inside that interval: estimates of one second spread by 2.4%, so no time "
                    "would decide a limit that is so near; give a limit further from what is measured, or a quieter "
                    "machine",
                ),
            ),
            timing=timing(400, 760_000, 500_000),
            agreement=Agreement(360, 1, 1, 3),
        ),
        case(
            "bf16",
            "keyword-cnn",
            verdicts=(),
            limits=(speed,),
            error=CaseError(
                "optimize",
                "the recipe changed nothing: no weight of the model has another type or another value than before",
                "loading keyword-cnn\nUserWarning: mkldnn bf16 is not available\n",
            ),
        ),
        case("prune-unstructured(amount=0.3)", "keyword-cnn", verdicts=(ok,), agreement=Agreement(360, 1, 1, 3)),
    )
    return record(*cases, planned=("budgets.yaml::keyword-cnn/channels-last",), complete=False)
