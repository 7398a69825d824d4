"""Green records of every kind, and hostile ones made of them: figures that lie, wrong types, text that commands."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from benchmarks.hostile_text import spoiled, text
from pytest_modelopt.limits.catalogue import parse_value
from pytest_modelopt.reporting.messages.reasons import REASONS
from pytest_modelopt.reporting.messages.verdicts import FOUND
from pytest_modelopt.results.answers import Agreement, Changed, Interval, Repeat, Slices
from pytest_modelopt.results.base import Against, Base, Loosening
from pytest_modelopt.results.case import Case, Expected
from pytest_modelopt.results.json import dumps
from pytest_modelopt.results.measurement import Coverage, LayerCoverage, Measurement, ProcessMemory, RecipeStep
from pytest_modelopt.results.merge_info import Merged
from pytest_modelopt.results.observations import Observations
from pytest_modelopt.results.record import Environment, Record
from pytest_modelopt.results.timed_pairs import Conditions, TimedPair, Timing, WorkerUse
from pytest_modelopt.results.verdicts import Limit, Waiver

Data = dict[str, Any]

_MIB = 1024**2
_EXAMPLES, _PAIRS = 400, 120
_MACHINE = Environment("3.11.9", "Linux", "a CPU", 2, "AVX512", ("avx2",), "2.13.0", "x86")
_SEEN = Observations(target_classes=4, rarer_targets=280, output_classes=4, predicted_classes=4, most_predicted=130)

# --- green ones ------------------------------------------------------------------------------------------------------


def green() -> list[Data]:
    """Records that every command takes, and that no limit makes red, as plain data."""
    return [
        _data(_with_every_limit()),
        _data(*_of_other_metrics()),
        _data(_waived(), _expected()),
        _data(_against_base("original"), _against_base("int8-dynamic"), against=_AGAINST),
        _data(
            _with_every_limit(),
            replace(_waived(), machine=1),
            other_machines=(replace(_MACHINE, cpu="another CPU"),),
            merged=Merged(2, ("one case measured again",)),
            whole=True,
            skipped=(),
            idle=("test_m.py::test_that_skips",),
        ),
    ]


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
    return Measurement(recipe, size, size, size // 2, score, _EXAMPLES, "ab", **fields)


def _case(model: str, recipe: str, limits: tuple[Limit, ...], **fields: Any) -> Case:
    suffix = " against base" if "base" in fields else ""
    known: Data = {"metric": "accuracy", "higher_is_better": True, "batch_size": 1, "threads": 1, **fields}
    return Case(id=f"budgets.yaml::{model}::{recipe}{suffix}", model=model, recipe=recipe, limits=limits, **known)


def _timing() -> Timing:
    pairs = [
        TimedPair(1 + n // 40, 50 * n, n % 2 == 0, 4_000_000, 1_000_000, 3, 10, 12_000_000, 10_000_000, *[0] * 7)
        for n in range(_PAIRS)
    ]
    use = WorkerUse(1, 0.0)
    return Timing(tuple(pairs), 7, _PAIRS / 20, 0.1, 20.0, 1, Conditions(2, 0.1, 0.0, 0.0, 0.0, None, 0.0, use, use))


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
        reference=_side(None, 8 * _MIB, 390 / 400, observations=_SEEN, process_memory=process),
        variant=_side("int8-dynamic", 2 * _MIB, 389 / 400, observations=_SEEN, process_memory=process),
        timing=replace(_timing(), variant_calls_ns=_PAIRS * (10 * (1_000_000,),)),
        loading=_loading(),
        coverage=Coverage(layers, (RecipeStep("int8-dynamic", 900, 1000),)),
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
            interval=Interval(0.05, 0.2, "paired bootstrap", 2000, 7),
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


# --- hostile ones ----------------------------------------------------------------------------------------------------

NUMBERS: tuple[Any, ...] = (
    *(0, -1, 1, 2, 3, -0.0, 0.5, 1.5, -0.5, 1e-320, 1e308, -1e308, 2**31, 2**53, 2**63 - 1, 2**63, -(2**63), 10**400),
    *(float("nan"), float("inf"), -float("inf"), True, False, None),
)


_DEEP = "a list in a list in a list, and so on"


def hostile(rng: random.Random, bases: list[Data]) -> bytes:
    """One record: a green one that was changed in one to four ways."""
    data: Data = json.loads(json.dumps(rng.choice(bases)))
    ways = (_lie, _lie_of_text) if rng.random() < 0.5 else (_lie, _figure, _words, _shape)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        rng.choice(ways)(rng, data)
    told = json.dumps(data, ensure_ascii=rng.random() < 0.5)
    written = told.replace(f'"{_DEEP}"', 3_000 * "[" + 3_000 * "]").encode("utf-8", "surrogatepass")
    return spoiled(rng, written) if rng.random() < 0.05 else written


def _place(rng: random.Random, data: Data) -> tuple[Any, Any]:
    """A container within the record and a key of it: one as deep as chance has it, most often a leaf."""
    inner: Any = data
    while True:
        key = rng.choice(list(inner)) if isinstance(inner, dict) else rng.randrange(len(inner))
        if not isinstance(inner[key], (dict, list)) or not inner[key] or rng.random() < 0.08:
            return inner, key
        inner = inner[key]


def _figure(rng: random.Random, data: Data) -> None:
    """Another number at a place that has one."""
    for _ in range(50):
        inner, key = _place(rng, data)
        before = inner[key]
        if type(before) in (int, float):
            numbers = NUMBERS
            if abs(before) < 2**64 and rng.random() < 0.5:
                numbers = (before + 1, before - 1, before * 2, before // 2, before + 0.5, -before, before * 1000)
            inner[key] = rng.choice(numbers)
            return


def _lie_of_text(rng: random.Random, data: Data) -> None:
    """Hostile text where any text is taken, so that it is told and not refused."""
    with contextlib.suppress(AttributeError, LookupError, TypeError):
        case = rng.choice(data["cases"])
        places = [(case, name) for name in ("id", "model", "recipe")]
        places += [(limit, name) for limit in case["limits"] for name in ("name", "file")]
        places += [(data["environment"], name) for name in ("cpu", "platform", "cpu_capability", "torch")]
        places += [(data, "tool_version")]
        if case["base"]:
            places += [(case["base"], "name"), (data["against"], "asked"), (data["against"], "head")]
        if case["expected"]:
            places += [(case["expected"], "reason")]
        inner, key = rng.choice(places)
        inner[key] = text(rng)
        if rng.random() < 0.5:
            case["variant"]["notes"] = [text(rng)]
        if rng.random() < 0.2:
            case["variant"] |= {"size_bytes": None, "unmeasured": {"size": text(rng)}}


def _words(rng: random.Random, data: Data) -> None:
    """Hostile text at a place that has a text, or as a key."""
    for _ in range(50):
        inner, key = _place(rng, data)
        if isinstance(inner, dict) and rng.random() < 0.1:
            inner[text(rng)] = inner.pop(key)
            return
        if isinstance(inner[key], str):
            inner[key] = text(rng)
            return


def _shape(rng: random.Random, data: Data) -> None:
    """Something of another type, of another place, twice, or nothing."""
    inner, key = _place(rng, data)
    other, other_key = _place(rng, data)
    copied = json.loads(json.dumps(other[other_key]))
    value: Any = rng.choice((_DEEP, {}, [], None, text(rng), rng.choice(NUMBERS), copied))
    if isinstance(inner, list) and rng.random() < 0.3:
        inner.insert(key, value)
    elif rng.random() < 0.3:
        del inner[key]
    else:
        inner[key] = value


# --- lies that agree with each other ---------------------------------------------------------------------------------


def _lie(rng: random.Random, data: Data) -> None:
    """Figures of one case, or what the record claims of itself, changed so that nothing contradicts anything."""
    with contextlib.suppress(ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        rng.choice(_LIES)(rng, rng.choice(data["cases"]), data)  # what was spoiled before may have no such figure


def _of_bytes(rng: random.Random, case: Data, data: Data) -> None:
    side = case["variant"]
    figure = rng.choice(("size_bytes", "weights_bytes", "call_peak_bytes"))
    side[figure] = max(1, int(side[figure] * 2 ** rng.uniform(-6, 6)))


def _of_process(rng: random.Random, case: Data, data: Data) -> None:
    if case["variant"]["process_memory"]:
        peaks = case["variant"]["process_memory"]["peaks_bytes"]
        factor = 2 ** rng.uniform(-4, 4)
        peaks[:] = [max(1, int(peak * factor)) for peak in peaks]


def _of_answers(rng: random.Random, case: Data, data: Data) -> None:
    """Answers that turned wrong, in the first class of the data."""
    counts, slices = case["agreement"], case["slices"]
    if counts is None or case["reference"]["score"] is None:
        return
    lost = rng.randrange(0, 100)
    counts |= {"right_to_wrong": lost, "wrong_to_right": 0, "flips": max(lost, counts["flips"]), "changed": None}
    if case["metric"] == "agreement":
        counts["flips"] = lost
    right = round(case["reference"]["score"] * counts["examples"])
    case["variant"]["score"] = (right - lost) / counts["examples"]
    if slices is not None:
        zeros = [0] * (len(slices["names"]) - 1)
        slices |= {"right_to_wrong": [lost, *zeros], "wrong_to_right": [0, *zeros]}
        slices["drops"] = [lost / slices["examples"][0], *(0.0 for _ in zeros)]


def _of_flips(rng: random.Random, case: Data, data: Data) -> None:
    counts = case["agreement"]
    if counts is not None and case["metric"] in ("accuracy", "top-3"):
        counts |= {"flips": rng.randrange(counts["flips"], counts["examples"]), "changed": None}


def _of_score(rng: random.Random, case: Data, data: Data) -> None:
    if case["agreement"] is None and isinstance(case["variant"]["score"], float):
        case["variant"]["score"] *= rng.uniform(-1, 2)


def _of_time(rng: random.Random, case: Data, data: Data) -> None:
    if case["timing"] is not None:
        pairs, factor = case["timing"]["pairs"], rng.choice((1, 2, 3, 5, 20))
        for column in ("variant_ns", "variant_block_ns"):
            pairs[column] = [figure * factor for figure in pairs[column]]


def _of_coverage(rng: random.Random, case: Data, data: Data) -> None:
    if case["coverage"] is not None:
        changed = rng.randrange(0, 900)
        case["coverage"]["layers"][0]["changed_bytes"] = case["coverage"]["steps"][0]["changed_bytes"] = changed


def _of_limit(rng: random.Random, case: Data, data: Data) -> None:
    """Its value, its text, or both: a limit that is stated otherwise, or says what it is not."""
    limit = rng.choice(case["limits"])
    name, value = rng.choice(_STATED)
    if rng.random() < 0.5:
        limit["text"] = value
    if rng.random() < 0.5:
        limit["value"] = rng.choice([1e12, 0.0, -1.0, float(2**60)])
    if rng.random() < 0.3:
        limit["name"] = name


def _of_verdict(rng: random.Random, case: Data, data: Data) -> None:
    """What the record makes of its own figures."""
    code = rng.choice((*FOUND, *REASONS, "", "::error::kept"))
    reason = {"code": code, "parameters": rng.choice(({}, {"pairs": 3}, {"needed": 2**62, "slice": "::x"}))}
    case["verdicts"] = [
        {"limit": limit, "outcome": rng.choice(("pass", "waived")), "measured": 0.0, "reason": reason}
        for limit in case["limits"]
    ]
    data["timed_limits"] = rng.choice((0, -5, 1, 10**6, 2**62))


def _of_the_run(rng: random.Random, case: Data, data: Data) -> None:
    """What the record says of its tests."""
    what = rng.randrange(5)
    if what == 0:
        data["complete"] = False
    elif what == 1:
        data["planned"].append("test_m.py::test_that_never_ran")
    elif what == 2:
        data["uncollected"] = ["test_m.py"]
    elif what == 3:
        data["cases"].remove(case)
    else:
        case["error"] = {"stage": "load", "message": text(rng), "output": text(rng)}


_STATED = (
    *(("max_size", "1 MiB"), ("max_size", "0 B"), ("max_memory", "7 GiB"), ("min_size_reduction", "99%")),
    *(("min_speedup", "9x"), ("min_speedup", "+1%"), ("max_latency", "1 us"), ("max_accuracy_drop", "0.1 pp")),
    *(("max_p95_latency", "1 us"), ("max_load_time", "1 us"), ("min_load_speedup", "9x")),
    *(("min_accuracy", "99%"), ("max_flips", "0%"), ("min_coverage", "100%"), ("max_size_growth", "0%"), ("none", "1")),
)
_LIES: tuple[Callable[[random.Random, Data, Data], None], ...] = (
    _of_bytes,
    _of_process,
    _of_answers,
    _of_flips,
    _of_score,
    _of_time,
    _of_coverage,
    _of_limit,
    _of_verdict,
    _of_the_run,
)
