"""Earlier runs of the same comparison on this machine: by how much they differ, from the user's cache folder.

A shared machine has states that last for hours and that change one program more than another. Nothing in a comparison
shows them; that the same two programs have read otherwise before does. What is kept is of the same project, case and
way of calling: each run with the digest of its programs, so that a change of these is no difference between runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from pytest_modelopt.measuring.controller.worker_context import Measured
from pytest_modelopt.results.files.atomic_files import write_text
from pytest_modelopt.results.record import Environment
from pytest_modelopt.results.timed_pairs import FURTHEST, EarlierRuns, TimedCall, Timing
from pytest_modelopt.statistics.samples import FASTEST, Samples, fast_log
from pytest_modelopt.statistics.timing import Estimate, original_latency, speedup, variant_latency

MOST_RUNS = 40
"""That are kept of a comparison; the oldest go first."""
MOST_FILES = 1000
"""In the folder; those that have not been written to for the longest time go first."""
_FIGURES = ("speedup", "latency")


class Comparison(NamedTuple):
    """`place` is the same for all runs of a case, `programs` for those in which both programs were the same."""

    place: str
    programs: str

    @classmethod
    def of(cls, name: str, sides: tuple[Measured, Measured], environment: Environment | None) -> Comparison | None:
        """None where nobody can tell whether a program is still the same."""
        contents = [_content(side) for side in sides]
        if environment is None or None in contents:
            return None
        variant = sides[1].variant
        work = [variant.threads, variant.device, variant.workload, variant.call_name, str(variant.generation)]
        called = [side.loaded.called for side in sides if side.loaded is not None]
        programs = [contents, asdict(environment), *map(str, called)]
        trees = [side.variant.tree is not None for side in sides]
        return cls(_sum([variant.working_directory, name, work, trees]), _sum(programs))


class Run(NamedTuple):
    """One run: the logarithm of each figure, and the variance of it that the run itself explains."""

    programs: str
    call: str
    speedup: float
    speedup_explained: float
    latency: float
    latency_explained: float
    original: float
    original_explained: float
    canary: float
    """The logarithm of its nanoseconds; 0 where it was not timed."""

    @classmethod
    def of(cls, programs: str, call: str, samples: Samples) -> Run | None:
        """None where too few pairs say anything. `samples` know no earlier runs, which would correct the figures."""
        found: list[Estimate] = [speedup(samples), variant_latency(samples), original_latency(samples)]
        values = [value for each in found for value in (math.log(each.figure), each.explained)]
        values.append(fast_log(samples.canaries_ns) if samples.canaries_ns else 0.0)
        return cls(programs, call, *values) if all(map(math.isfinite, values)) else None


def known(comparison: Comparison | None, call: TimedCall) -> EarlierRuns | None:
    """By how much earlier runs of the comparison differ; None unless the same programs were timed at least twice."""
    if comparison is None:
        return None
    return difference([run for run in _stored(_file(comparison)) if run.call == call], comparison.programs)


def difference(runs: Iterable[Run], programs: str) -> EarlierRuns | None:
    """By how much runs of one call differ; None unless the same programs were timed at least twice.

    `programs`: the digest of those of now.
    """
    by_programs: dict[str, list[Run]] = {}
    for run in runs:
        by_programs.setdefault(run.programs, []).append(run)
    groups = [found for found in by_programs.values() if len(found) > 1]
    if not groups:
        return None
    of_speedup, of_latency = (sum(_beyond_explained(found, figure) for found in groups) for figure in _FIGURES)
    count, freedom = sum(map(len, groups)), sum(len(found) - 1 for found in groups)
    return EarlierRuns(count, freedom, of_speedup, of_latency, **_of_the_programs(by_programs.get(programs, [])))


def _of_the_programs(runs: list[Run]) -> dict[str, Any]:
    """How the figures of the programs of now follow the original's latency, from their own runs."""
    if not runs:
        return {}
    fastest = sorted(runs, key=lambda run: run.original)[: max(1, math.ceil(FASTEST * len(runs)))]
    canaries = [run.canary for run in fastest if run.canary]
    with_speedup = _with_original(runs, "speedup")
    return {
        "own": len(runs),
        "original": _beyond_explained(runs, "original"),
        # what the original's pairs explain is in both
        "speedup_with_original": with_speedup - min(max(0.0, with_speedup), _explained(runs, "original")),
        "latency_with_original": _with_original(runs, "latency"),
        "fastest_s": math.exp(fmean(run.original for run in fastest)),
        "canary_at_fastest_ns": math.exp(fmean(canaries)) if canaries else None,
    }


def note(comparison: Comparison | None, timings: Mapping[TimedCall, Timing]) -> None:
    """Keep what was read of the comparison. What cannot be kept is not known the next time."""
    file = _file(comparison) if comparison is not None else None
    if comparison is None or file is None:
        return
    new = []
    for call, timing in timings.items():
        samples = Samples.of(timing.pairs, timing.conditions.canary_at_best_ns)
        run = Run.of(comparison.programs, call, samples) if timing.pairs else None
        new += [run] if run is not None else []
    if not new:
        return
    kept = [*_stored(file), *new]
    most = MOST_RUNS * len(timings)
    with contextlib.suppress(OSError):
        write_text(json.dumps(kept[-most:]), file)
        _make_room(file.parent)


def _content(side: Measured) -> list[Any] | None:
    """What decides how fast a side runs: what it holds, and the project's own code."""
    loaded = side.loaded
    if loaded is None or not (loaded.digest or loaded.shipped):
        return None
    return [loaded.digest, sorted(loaded.shipped.items()), loaded.sources]


def _beyond_explained(runs: list[Run], figure: str) -> float:
    """Squared deviations from their mean, less what is expected of what each run explains; 0 where that is less."""
    values: list[float] = [getattr(run, figure) for run in runs]
    return max(0.0, _product(values, values) - _explained(runs, figure))


def _explained(runs: list[Run], figure: str) -> float:
    """What is expected of their squared deviations by what each run explains."""
    return (len(runs) - 1) * fmean(getattr(run, f"{figure}_explained") for run in runs)


def _with_original(runs: list[Run], figure: str) -> float:
    return _product([getattr(run, figure) for run in runs], [run.original for run in runs])


def _product(one: Sequence[float], other: Sequence[float]) -> float:
    """Of the deviations from their means, summed."""
    means = fmean(one), fmean(other)
    return sum((a - means[0]) * (b - means[1]) for a, b in zip(one, other, strict=True))


def _stored(file: Path | None) -> list[Run]:
    """What the file holds; nothing where it is none of ours, or damaged."""
    try:
        data = json.loads(file.read_text(encoding="utf-8")) if file is not None else []
    except (OSError, ValueError, RecursionError):
        return []
    return list(_runs(data))


def _runs(data: object) -> Iterator[Run]:
    for each in data if isinstance(data, list) else ():
        is_run = isinstance(each, list) and [type(value) for value in each] == [str, str, *[float] * 7]
        if is_run and all(abs(value) <= FURTHEST for value in each[2:]) and min(*each[3::2], each[8]) >= 0:
            yield Run(*each)


def _make_room(folder: Path) -> None:
    files = sorted(folder.glob("*.json"), key=lambda file: file.stat().st_mtime)
    for file in files[:-MOST_FILES]:
        file.unlink(missing_ok=True)


def folder() -> Path | None:
    """Where earlier runs are kept; None where the user's home folder is not known."""
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return None
    return cache / "pytest-modelopt" / "timings"


def _file(comparison: Comparison) -> Path | None:
    found = folder()
    return None if found is None else found / f"{comparison.place}.json"


def _sum(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
