"""Green records of every kind, as plain data."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from pytest_modelopt.limits.catalogue import parse_value
from pytest_modelopt.results.answers import Agreement, Changed, Interval, Repeat, Slices
from pytest_modelopt.results.base import Against, Base, Loosening
from pytest_modelopt.results.candidate import Provenance
from pytest_modelopt.results.case import Case, Expected
from pytest_modelopt.results.generation import CallMemory, Divergence, Generation, TokenAgreement
from pytest_modelopt.results.json import dumps
from pytest_modelopt.results.layer_costs import LayerCost, LayerGroup, RecipeSensitivity
from pytest_modelopt.results.measurement import Coverage, LayerCoverage, Measurement, ProcessMemory, RecipeStep
from pytest_modelopt.results.merge_info import Merged
from pytest_modelopt.results.observations import (
    Calibration,
    LayersAtFault,
    Makeup,
    Observations,
    OtherInputs,
    ProviderSession,
    Ranges,
    Spread,
)
from pytest_modelopt.results.record import Environment, Record, Target
from pytest_modelopt.results.timed_pairs import Conditions, EarlierRuns, TimedPair, Timing, WorkerUse
from pytest_modelopt.results.verdicts import Limit, Reason, Verdict, Waiver
from pytest_modelopt.results.workload import at_workload
from pytest_modelopt.results.wrong_pairs import Pairing

Data = dict[str, Any]

_MIB = 1024**2
_EXAMPLES, _PAIRS = 400, 60
_MACHINE = Environment(
    "3.11.9", "Linux", "a CPU", 2, "AVX512", ("avx2",), "2.13.0", "x86", "a GPU", {"onnxruntime": "1.32.0"}, "x86_64"
)
_SEEN = Observations(target_classes=4, rarer_targets=280, output_classes=4, predicted_classes=4, most_predicted=130)
_ALL_SEEN = replace(
    _SEEN,
    digest="d1" * 32,
    training_modules=0,
    compiled=False,
    matrix_weights=250_000,
    zero_weights=1_000,
    masked_weights=1,
    mask_bytes=400,
    fake_quantizers=1,
    quantize_nodes=2,
    packed_modules=2,
    torchao_tensors=1,
    fused_layers=1,
    float_bytes={"torch.float32": 1_000},
    narrow_layers={"head": 1},
    derived_layers={"own": "Linear"},
    untied=("head.weight = embedding.weight",),
    untied_bytes=4_096,
    layers_at_fault=LayersAtFault({"head": "Linear"}, 4_000, 400_000, 100, 0.98, 0.9, 0.975, 40, 2, 5, True),
    sessions=(
        ProviderSession("ONNX Runtime", ("CUDAExecutionProvider", "CPUExecutionProvider"), ("CPUExecutionProvider",)),
        ProviderSession(
            "ONNX Runtime", ("AProvider",), ("AProvider", "CPUExecutionProvider"), {"AProvider": 9, "b": 1}
        ),
    ),
    settings={"threads": "1"},
    answers="e2" * 32,
    varies=False,
    first_call_s=0.2,
    makeup=Makeup({"a.weight": 900}, 100, {"aten.linear": 2}, "a, aten.linear", 500),
    reloads=False,
    reload_error="its class needs an argument",
    spread=Spread(1_600, 1_200, 0.5, 2),
    pairing=Pairing(400, 0.97, 0.25, 0.24, 0.26, 300, 40.0, 70.0),
    worst_score=0.0,
    other_inputs=OtherInputs(64, 20, {"": 60, "multiplied by 255": 12}, (0.1, 0.2), ((0, 1, 15), (1, 0, 14))),
    calibration=Calibration(4, 60, 64, 2, (0, 1, 2), (Ranges("0", (0.0, 1.0), (-1.0, 255.0), 12, 400),)),
    unobserved={"masks": "a module has no `named_buffers`"},
)


def green() -> list[Data]:
    """Records that every command takes, and that no limit makes red, as plain data."""
    return [
        _data(_with_every_limit()),
        _data(*_of_other_metrics()),
        _data(_waived(), _expected()),
        _data(_against_base("original"), _against_base("int8-dynamic"), _new_since_base(), against=_AGAINST),
        _data(_generating("online", 1), _generating("night", 8)),
        _data(*_not_made_by_recipes()),
        _data(
            _with_every_limit(),
            replace(_waived(), machine=1),
            other_machines=(replace(_MACHINE, cpu="another CPU"),),
            merged=Merged(2, ("one case measured again",)),
            notes=("one job was lost and ran again",),
            project="0f3a",
            targets=(
                Target("all", "x86_64", ("avx2",), "cpu", cores=1, runtime={"torch": ">=2"}, is_required=True),
                Target("gpu", device="cuda", gpu="H100"),
            ),
            of_targets=("all",),
            sensitivity=(_SENSITIVITY,),
            whole=True,
            skipped=(),
            idle=("test_m.py::test_that_skips",),
        ),
    ]


_SENSITIVITY = RecipeSensitivity(
    "m",
    "int8-dynamic",
    unit_interval=True,
    costs=(
        LayerCost(LayerGroup(("body.0", "body.1"), "Linear", 4096, 1024), 3072, 200, 3, 0.01, -0.01, 0.03),
        LayerCost(LayerGroup(("head",), "Linear", 1024, 256), why="it changes nothing there"),
    ),
)


def _data(*cases: Case, **fields: Any) -> Data:
    ids = tuple(case.id for case in cases)
    started, planned = "2026-11-24T03:00:00+00:00", (*ids, "test_m.py::test_that_skips")
    record = Record("0.1.0", started, 7, False, 3, planned, True, cases, _MACHINE, collected=planned)
    data: Data = json.loads(dumps(replace(record, **{"skipped": planned[-1:], **fields})))
    return data


def _limits(**stated: str) -> tuple[Limit, ...]:
    return tuple(
        Limit(name, parse_value(name, value), value, "error", "budgets.yaml", line)
        for line, (name, value) in enumerate(stated.items(), 5)
    )


def _side(recipe: str | None, size: int, score: float | None, **fields: Any) -> Measurement:
    return replace(Measurement(recipe, size, size, size // 2, score, _EXAMPLES, "ab"), **fields)


def _case(model: str, recipe: str, limits: tuple[Limit, ...], **fields: Any) -> Case:
    row = at_workload(recipe, fields.get("workload", "")) + (" against base" if "base" in fields else "")
    known: Data = {"metric": "accuracy", "higher_is_better": True, "batch_size": 1, "threads": 1, **fields}
    return Case(id=f"budgets.yaml::{model}::{row}", model=model, recipe=recipe, limits=limits, **known)


def _timing(quarters: int = 4) -> Timing:
    """Of a call of 4 ms and 1 ms, or of so many quarters of it."""
    call, variant_call = quarters * 1_000_000, quarters * 250_000
    pairs = [
        TimedPair(1 + n // 20, 50 * n, n % 2 == 0, call, variant_call, 3, 10, 3 * call, 10 * variant_call, *[0] * 5)
        for n in range(_PAIRS)
    ]
    use = WorkerUse(1, 0.0)
    conditions = Conditions(2, 0.1, 0.0, 0.0, 0.0, None, 0.0, use, use, "0f3a", ((1, 20), (30, 50)))
    return Timing(tuple(pairs), 7, _PAIRS / 20, 0.1, 20.0, 1, conditions)


def _loading() -> Timing:
    """The same times, of one call and one launch each."""
    timing = _timing()
    changes: Data = {"reference_calls": 1, "variant_calls": 1}
    changes |= {"reference_block_ns": 4_000_000, "variant_block_ns": 1_000_000}
    return replace(timing, pairs=tuple(replace(pair, launch=n, **changes) for n, pair in enumerate(timing.pairs, 1)))


def _with_every_limit() -> Case:
    limits = _limits(
        max_memory="4 MiB",
        min_memory_reduction="50%",
        max_process_memory="90 MiB",
        max_size="3 MiB",
        min_size_reduction="50%",
        min_speedup="1.5x",
        max_latency="3 ms",
        max_p95_latency="3 ms",
        max_load_time="3 ms",
        min_load_speedup="1.5x",
        max_accuracy_drop="1 pp",
        min_accuracy="90%",
        max_slice_drop="5 pp",
        max_flips="2%",
        min_coverage="50%",
    )
    layers = LayerCoverage("a", "Linear", 900, 900, 90, 90), LayerCoverage("b", "Conv2d", 100, 0, 10, 0)
    process = ProcessMemory((30 * _MIB, 31 * _MIB, 30 * _MIB), "memray")
    return _case(
        "reader",
        "int8-dynamic",
        limits,
        reference=_side(None, 8 * _MIB, 390 / 400, observations=_ALL_SEEN, process_memory=process),
        variant=_side("int8-dynamic", 2 * _MIB, 389 / 400, observations=_ALL_SEEN, process_memory=process),
        input_shapes=((1, 1, 8, 8),),
        timing=replace(_timing(), variant_calls_ns=_PAIRS * (10 * (1_000_000,),)),
        loading=_loading(),
        coverage=Coverage(layers, (RecipeStep("int8-dynamic", 900, 1000, ("in eval mode",), {"c": "own forward"}),)),
        agreement=Agreement(_EXAMPLES, 2, 1, 3, Changed((3, 5, 9), (1, 1, 2), (1, 1, 0), (0, 2, 2))),
        slices=Slices(("0", "1", "2", "3"), True, (120, 100, 100, 80), (0.0, 0.01, 0, 0), (1, 1, 0, 0), (1, 0, 0, 0)),
    )


def _of_other_metrics() -> list[Case]:
    def of(metric: str, before: float | None, after: float | None, limits: tuple[Limit, ...], **fields: Any) -> Case:
        sides: Data = {"reference": _side(None, 8 * _MIB, before), "variant": _side("bf16", 2 * _MIB, after)}
        return _case(metric, "bf16", limits, metric=metric, **{**sides, **fields})

    drop, nothing = _limits(max_accuracy_drop="1 pp"), replace(_side(None, 8 * _MIB, None), examples=0)
    varies = replace(_side("bf16", 2 * _MIB, 389 / 400), repeat=Repeat(_EXAMPLES, 388 / 400, 4))
    cases = [
        of("top-3", 396 / 400, 395 / 400, drop, agreement=Agreement(_EXAMPLES, 1, 0, 9)),
        of("agreement", 1.0, 398 / 400, drop, agreement=Agreement(_EXAMPLES, 2, 0, 2)),
        of("accuracy", 390 / 400, 389 / 400, _limits(max_accuracy_drop="2 pp"), variant=varies),
        of("cosine", 1.0, 0.999, _limits(min_accuracy="0.9")),
        of("sqnr", None, 31.5, _limits(min_accuracy="20")),
        of("WordErrorRate", 0.21, 0.22, _limits(max_accuracy_drop="0.05"), higher_is_better=False),
        of(
            "shop:score",
            41.0,
            40.9,
            _limits(max_accuracy_drop="0.5"),
            inference="population",
            interval=Interval(0.05, 0.2),
        ),
        of(
            "accuracy",
            None,
            None,
            _limits(max_size="9 MiB"),
            reference=nothing,
            variant=replace(nothing, recipe="bf16"),
        ),
    ]
    return [replace(case, id=f"{case.id}-{n}", model=f"{case.model}-{n}") for n, case in enumerate(cases)]


def _waived() -> Case:
    (limit,) = _limits(max_size="1 MiB")
    waiver = Waiver("2099-01-31", "a newer runtime is larger", "budgets.yaml", 3, "@ada", 4.0 * _MIB, "4 MiB")
    sides: Data = {"reference": _side(None, 8 * _MIB, 0.5), "variant": _side("bf16", 2 * _MIB, 0.5)}
    return _case("waived", "bf16", (replace(limit, waiver=waiver),), **sides)


def _expected() -> Case:
    sides: Data = {"reference": _side(None, 8 * _MIB, 0.5), "variant": _side("bf16", 2 * _MIB, 0.5)}
    return _case("expected", "bf16", _limits(max_size="1 MiB"), expected=Expected("xfailed", "too large yet"), **sides)


_AGAINST = Against(
    "revision",
    "merge-base:main",
    "a1" * 20,
    "b2" * 20,
    True,
    (Loosening("reader/bf16", "max_size", "relaxed", "1 MiB", "2 MiB", "+100%", "budgets.yaml", 9),),
    ("reader/low-rank(ratio=0.5)",),
    notes=("dependencies changed",),
)


def _against_base(recipe: str) -> Case:
    limits = _limits(max_memory_growth="5%", max_size_growth="5%", max_accuracy_loss="1 pp", max_slowdown="50%")
    timing = _timing()
    pairs = [replace(pair, reference_ns=1_000_000, reference_block_ns=3_000_000) for pair in timing.pairs]
    return _case(
        "reader",
        recipe,
        limits,
        base=Base("a1a1a1a1a1a1", "compared"),
        reference=_side(None, 2 * _MIB, 390 / 400, observations=_SEEN),
        variant=_side(None, 2 * _MIB, 389 / 400, observations=_SEEN),
        agreement=Agreement(_EXAMPLES, 1, 0, 1),
        timing=replace(timing, pairs=tuple(pairs)),
    )


def _new_since_base() -> Case:
    """A case that the base does not have: no limit is judged."""
    return replace(
        _against_base("bf16"),
        base=Base("a1a1a1a1a1a1", "new", "the base states no such recipe", ("data changed",)),
        reference=None,
        agreement=None,
        timing=None,
    )


# --- a model that generates, at two workloads ------------------------------------------------------------------------

_GENERATION = Generation(32, 64, "shop.models:step")
_SEQUENCES = 40


def _generating(workload: str, batch_size: int) -> Case:
    """Tokens, cache, and the two parts of the call."""
    limits = _limits(
        max_first_token_latency="3 ms",
        min_prefill_speedup="1.5x",
        min_decode_speedup="1.5x",
        max_cache_memory="1 MiB",
        max_flips="3%",
        max_memory="4 MiB",
        min_speedup="1.5x",
        max_size="3 MiB",
    )
    memory = CallMemory(_MIB // 2, _GENERATION.context, batch_size, _MIB, _MIB // 2)
    of_sequences: Data = {"examples": _SEQUENCES, "call_memory": memory, "observations": _SEEN_OF_TOKENS}
    drop = parse_value("max_accuracy_drop", "0.1", unit_interval=False)
    return _case(
        "writer",
        "int8-dynamic",
        (*limits, Limit("max_accuracy_drop", drop, "0.1", "error", "budgets.yaml", 13)),
        workload=workload,
        batch_size=batch_size,
        metric="perplexity",
        higher_is_better=False,
        generation=_GENERATION,
        reference=_side(None, 8 * _MIB, 10.0, **of_sequences),
        variant=_side("int8-dynamic", 2 * _MIB, 10.05, **of_sequences),
        interval=Interval(0.01, 0.09),
        timing=_timing(),
        phases={"prefill": _timing(1), "decode": _timing(3)},
        tokens=TokenAgreement(_SEQUENCES, _GENERATION.new_tokens, 20, 30, Divergence(0.01, 0.2, 640)),
    )


_SEEN_OF_TOKENS = Observations(digest="d1" * 32, answers="e2" * 32, varies=False)

# --- models that no recipe has made ----------------------------------------------------------------------------------


def _not_made_by_recipes() -> list[Case]:
    """An original from a file under limits of its own, and two candidates of it, one of them a file."""
    size = 2 * _MIB
    sums = {"dist/reader.onnx": "0f" * 32}
    shipped = Provenance("dist/reader.onnx", {"dist/reader.onnx": size}, sums, "ONNX opset 18, by pytorch 2.13.0")
    process = ProcessMemory((30 * _MIB, 31 * _MIB, 30 * _MIB), "memray")
    as_file: Data = {"runtime": "ONNX Runtime", "weights_bytes": None, "call_peak_bytes": None}
    as_file |= {"unmeasured": {"memory": "ONNX Runtime allocates by itself"}, "process_memory": process}
    original = _side(None, 8 * _MIB, 390 / 400, observations=_SEEN, process_memory=process, **_MADE_BY_HAND)
    same, one_flip = Agreement(_EXAMPLES, 0, 0, 0), Agreement(_EXAMPLES, 1, 0, 1)
    limits = _limits(max_accuracy_drop="1 pp", max_flips="2%", max_size="3 MiB")
    student = _side("student", size, 389 / 400, provenance=Provenance("shop.models:student(width=64)"))
    program = _side("shipped", size, 389 / 400, provenance=shipped, **as_file)
    told: Data = {"call": "shop.serving:answer", "optimize": "encoder", "device": "cpu"}
    timing = _timing()
    following = {"original": 0.05, "speedup_with_original": 0.02, "latency_with_original": 0.03}
    earlier = EarlierRuns(4, 3, 0.01, 0.02, own=4, **following, fastest_s=0.001, canary_at_fastest_ns=11e6)
    busy = replace(timing, conditions=replace(timing.conditions, canary_at_best_ns=11_000_000), earlier=earlier)
    return [
        _case(
            "reader",
            "original",
            _limits(max_memory="32 MiB", max_size="9 MiB", min_accuracy="97%"),
            reference=original,
            variant=original,
            agreement=same,
            **told,
        ),
        _case(
            "reader", "student", limits, reference=original, variant=student, agreement=one_flip, timing=busy, **told
        ),
        _judged(_case("reader", "shipped", limits, reference=original, variant=program, agreement=one_flip, **told)),
        _case(
            "spotter",
            "bf16",
            _limits(max_size="9 MiB"),
            metric="BLEUScore",
            reference=_side(None, 8 * _MIB, 0.5),
            variant=_side("bf16", size, 0.5),
            no_interval="it has values for whole sets only",
            interval_lacks_examples=True,
        ),
    ]


_MADE_BY_HAND: Data = {
    "notes": ("was in training mode",),
    "seconds": {"load": 0.2},
    "reserved_bytes": 0,
    "shipped": {".pt2": "0e" * 32},
}


def _judged(case: Case) -> Case:
    """With a verdict of each limit, as a run leaves it."""
    reason = Reason("measured", {"by_process": False})
    verdicts = [Verdict(limit, "pass", limit.value / 2, reason, 0.0, limit.value) for limit in case.limits]
    return replace(case, verdicts=tuple(verdicts))
