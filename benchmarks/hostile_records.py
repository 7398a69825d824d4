"""Hostile records, made of green ones: figures that lie, wrong types, text that commands."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable
from typing import Any

from benchmarks.hostile_green import Data
from benchmarks.hostile_text import spoiled, text
from pytest_modelopt.reporting.messages.reasons import REASONS
from pytest_modelopt.reporting.messages.verdicts import FOUND

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
        places: list[tuple[Any, Any]]
        places = [(case, name) for name in ("id", "model", "recipe", "workload", "call", "optimize", "no_interval")]
        places += [(limit, name) for limit in case["limits"] for name in ("name", "file")]
        places += [(data["environment"], name) for name in ("cpu", "platform", "cpu_capability", "torch")]
        places += [(data, "tool_version")]
        if case["base"]:
            places += [(case["base"], "name"), (data["against"], "asked"), (data["against"], "head")]
        if case["expected"]:
            places += [(case["expected"], "reason")]
        if case["generation"]:
            places += [(case["generation"], "step")]
        if case["variant"]["provenance"]:
            places += [(case["variant"]["provenance"], name) for name in ("source", "made_by")]
        if case["coverage"]:
            places += [(layer, name) for layer in case["coverage"]["layers"] for name in ("name", "type")]
        if case["slices"]:
            places += [(case["slices"]["names"], 0)]
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
    """At each workload, since a figure that is another one at another workload is refused."""
    figure = rng.choice(("size_bytes", "weights_bytes", "call_peak_bytes"))
    bytes_ = max(1, int(case["variant"][figure] * 2 ** rng.uniform(-6, 6)))
    for each in data["cases"]:
        if each is case or (each["model"], each["recipe"]) == (case["model"], case["recipe"]):
            each["variant"][figure] = bytes_


def _of_cache(rng: random.Random, case: Data, data: Data) -> None:
    memory = case["variant"]["call_memory"]
    memory["cache_bytes"] = int(memory["cache_bytes"] * 2 ** rng.uniform(-4, 4))


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


def _of_tokens(rng: random.Random, case: Data, data: Data) -> None:
    """Flips that are spread evenly over the sequences."""
    tokens = case["tokens"]
    flips = rng.randrange(0, tokens["sequences"] * tokens["positions"])
    of_each, more = divmod(flips, tokens["sequences"])
    squares = more * (of_each + 1) ** 2 + (tokens["sequences"] - more) * of_each**2
    tokens |= {"flips": flips, "squares": squares}


def _of_perplexity(rng: random.Random, case: Data, data: Data) -> None:
    """At each workload, as bytes."""
    if case["metric"] == "perplexity":
        drop = rng.uniform(-1, 1)
        for each in data["cases"]:
            each["variant"]["score"] = each["reference"]["score"] + drop
            each["interval"] |= {"low": drop - 0.01, "high": drop + 0.01}


def _of_flips(rng: random.Random, case: Data, data: Data) -> None:
    counts = case["agreement"]
    if counts is not None and case["metric"] in ("accuracy", "top-3"):
        counts |= {"flips": rng.randrange(counts["flips"], counts["examples"]), "changed": None}


def _of_score(rng: random.Random, case: Data, data: Data) -> None:
    if case["agreement"] is None and isinstance(case["variant"]["score"], float):
        case["variant"]["score"] *= rng.uniform(-1, 2)


def _of_time(rng: random.Random, case: Data, data: Data) -> None:
    """Of whole calls, their parts or single ones, or of loading: alike in all pairs, and all together, since parts that
    take longer than the whole are refused."""
    timings = [each for each in (case["timing"], case["loading"], *case["phases"].values()) if each is not None]
    factor, is_of_blocks = rng.choice((0.02, 0.5, 1, 2, 3, 5, 20)), rng.random() < 0.7
    for timing in timings if rng.random() < 0.5 else rng.sample(timings, 1):
        if is_of_blocks or not timing["variant_calls_ns"]:
            for column in ("variant_ns", "variant_block_ns"):
                timing["pairs"][column] = [int(figure * factor) for figure in timing["pairs"][column]]
        timing["variant_calls_ns"] = [[int(call * factor) for call in calls] for calls in timing["variant_calls_ns"]]


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


def _of_base(rng: random.Random, case: Data, data: Data) -> None:
    """What head was compared with, and what became looser."""
    if case["base"] is None or rng.random() < 0.5:
        data["no_loosening"] = True
        data["against"] = rng.choice((None, {**(data["against"] or {}), "loosened": [], "removed": []}))
    else:
        case["base"]["status"] = rng.choice(("new", "unpaired", "failed", "unusable"))
        case |= {"reference": None, "agreement": None, "timing": None}


def _of_the_run(rng: random.Random, case: Data, data: Data) -> None:
    """What the record says of its tests."""
    what = rng.randrange(6)
    if what == 0:
        data["complete"] = False
    elif what == 5:
        data |= {"cases": [], "planned": [], "skipped": [], "idle": rng.choice(([], ["test_m.py::test_x"]))}
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
    *(("max_first_token_latency", "1 us"), ("min_prefill_speedup", "9x"), ("min_decode_speedup", "9x")),
    *(("max_cache_memory", "1 KiB"), ("max_process_memory", "1 MiB"), ("max_slice_drop", "0 pp")),
)
_LIES: tuple[Callable[[random.Random, Data, Data], None], ...] = (
    _of_bytes,
    _of_process,
    _of_cache,
    _of_answers,
    _of_tokens,
    _of_perplexity,
    _of_flips,
    _of_score,
    _of_time,
    _of_coverage,
    _of_limit,
    _of_verdict,
    _of_base,
    _of_the_run,
)
