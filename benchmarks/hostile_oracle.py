"""What plain arithmetic says of a record's figures: whether a limit is broken beyond doubt.

Nothing of the package is used, so that a fault of the judge cannot excuse itself. Where a limit may be undecided,
nothing is claimed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from itertools import pairwise
from statistics import median
from typing import Any

Data = dict[str, Any]

_QUANTITY = re.compile(r"\s*([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z%]*)\s*")
_UNITS = {
    "": Fraction(1),
    "x": Fraction(1),
    "%": Fraction(1, 100),
    "pp": Fraction(1, 100),
    "B": Fraction(1),
    "kB": Fraction(1000),
    "MB": Fraction(1000**2),
    "GB": Fraction(1000**3),
    "KiB": Fraction(1024),
    "MiB": Fraction(1024**2),
    "GiB": Fraction(1024**3),
    "us": Fraction(1, 10**6),
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "min": Fraction(60),
}
_FAR = Fraction(1, 5)
"""What is measured by chance is broken beyond doubt where it is so much, as a share, beyond its limit."""


def amount(name: str, stated: str) -> Fraction | None:
    """What a person reads in a limit's text; None where it is no amount."""
    found = _QUANTITY.fullmatch(stated)
    if found is None or found[2] not in _UNITS:
        return None
    try:
        number = Fraction(found[1]) * _UNITS[found[2]]
    except ValueError:
        return None
    return 1 + number if name.endswith("_speedup") and found[2] == "%" else number


class _Fields(dict[str, Any]):
    """Of a record, which may leave out what is nothing, or as nearly always."""

    def __missing__(self, name: str) -> Any:
        usual: dict[str, Any] = {"hidden_bytes": 0, "inference": "set", "phases": {}}
        return () if name in _LISTS else usual.get(name)


_LISTS = ("collected", "planned", "skipped", "idle", "uncollected")
"""Of names of tests."""


def must_be_red(content: bytes) -> str:
    """Why a record that a command takes cannot be green; '' where it may be."""
    data: Data = json.loads(content, object_hook=_Fields)
    known = {case["id"] for case in data["cases"]} | {case["id"].rpartition("#")[0] for case in data["cases"]}
    if not data["complete"]:
        return "it was interrupted"
    if data["uncollected"]:
        return "a file could not be collected"
    if any(name not in known and name not in data["skipped"] and name not in data["idle"] for name in data["planned"]):
        return "a planned test never ran"
    is_whole = data["whole"] or data["merged"] is not None
    if not data["cases"] and (is_whole or not (data["skipped"] or data["idle"])):
        return "it holds no case"
    against = data["against"]
    if data["no_loosening"] and (against is None or against["loosened"] or against["removed"] or against["unknown"]):
        return "no limit may become looser, and one did, or nobody knows"
    if is_whole and ({*data["collected"], *data["planned"]} - {*data["idle"]} | {*data["skipped"]}) - known:
        return "a case was left out of a whole run"
    for index, case in enumerate(data["cases"]):
        if case["expected"] is None and (why := next(_broken(case), "")):
            return f"cases[{index}]: {why}"
    return ""


def _broken(case: Data) -> Iterator[str]:
    if case["error"] is not None:
        yield "an error"
        return
    if case["base"] is not None and case["base"]["status"] not in ("compared", "unusable"):
        return
    for limit in case["limits"]:
        waiver = limit["waiver"]
        if limit["level"] != "error" or (waiver is not None and waiver["ceiling"] is None):
            continue
        name, stated = limit["name"], limit["text"] if waiver is None else waiver["ceiling_text"]
        bound, is_beyond = amount(name, stated), BEYOND.get(name)
        if bound is None or is_beyond is None:
            yield f"{name} {stated[:40]!r} is no limit that anybody can read"
        elif case["base"] is not None and case["base"]["status"] == "unusable":
            yield f"{name} was not measured, since the base could not be brought to run"
        elif is_beyond(case, bound):
            yield f"{name} {stated!r} is broken"


# --- figures, and whether they are beyond a bound --------------------------------------------------------------------


def _memory(side: Data, case: Data) -> tuple[int, ...]:
    """All readings that may count."""
    if any(each["runtime"] or each["hidden_bytes"] != 0 for each in (case["reference"], case["variant"])):
        return tuple(side["process_memory"]["peaks_bytes"]) if side["process_memory"] else ()
    if side["weights_bytes"] is None or side["call_peak_bytes"] is None:
        return ()
    return (side["weights_bytes"] + side["call_peak_bytes"],)


def _max_memory(case: Data, bound: Fraction) -> bool:
    found = _memory(case["variant"], case)
    return not found or min(found) > bound


def _ratio(before: tuple[int, ...], after: tuple[int, ...]) -> Fraction | None:
    """The least that it may be, of what the variant has over what the other side has."""
    return Fraction(min(after), max(before)) if before and after and max(before) > 0 else None


def _saves_too_little_memory(case: Data, bound: Fraction) -> bool:
    ratio = _ratio(_memory(case["reference"], case), _memory(case["variant"], case))
    return ratio is None or 1 - ratio < bound


def _of_process(case: Data, bound: Fraction) -> bool:
    found = case["variant"]["process_memory"]
    return found is None or min(found["peaks_bytes"]) > bound


def _size(side: Data) -> tuple[int, ...]:
    return () if side["size_bytes"] is None else (side["size_bytes"],)


def _max_size(case: Data, bound: Fraction) -> bool:
    return case["variant"]["size_bytes"] is None or case["variant"]["size_bytes"] > bound


def _saves_too_little_size(case: Data, bound: Fraction) -> bool:
    ratio = _ratio(_size(case["reference"]), _size(case["variant"]))
    return ratio is None or 1 - ratio < bound


def _grows(before: tuple[int, ...], after: tuple[int, ...], bound: Fraction) -> bool:
    """Against a base; one that has no figure leaves it undecided, and head that has none is red."""
    ratio = _ratio(before, after)
    return not after or (ratio is not None and ratio - 1 > bound)


def _timing(case: Data, of: str) -> Data | None:
    """The pairs of the whole call ('timing'), of a part of it, or of fresh processes ('loading')."""
    found: Data | None = case["phases"].get(of) if of in ("prefill", "decode") else case[of]
    return found


def _times(case: Data, of: str = "timing") -> tuple[float, float] | None:
    timing = _timing(case, of)
    if timing is None or not timing["pairs"]["reference_ns"]:
        return None
    return median(timing["pairs"]["reference_ns"]), median(timing["pairs"]["variant_ns"])


def _too_slow(case: Data, bound: Fraction, of: str = "timing") -> bool:
    times = _times(case, of)
    return times is None or (_is_certain(case, of) and times[0] / times[1] < bound * (1 - _FAR))


def _takes_too_long(case: Data, bound: Fraction, of: str = "timing") -> bool:
    times = _times(case, of)
    return times is None or (_is_certain(case, of) and times[1] / 1e9 > bound * (1 + _FAR))


def _p95_latency(case: Data, bound: Fraction) -> bool:
    calls = sorted(call for calls in (case["timing"] or {}).get("variant_calls_ns", ()) for call in calls)
    if not calls or not case["timing"]["pairs"]["at_ms"]:
        return True
    return _is_certain(case) and len(set(calls)) == 1 and calls[0] / 1e9 > bound * (1 + _FAR)


def _slower_than_base(case: Data, bound: Fraction) -> bool:
    times = _times(case)
    return times is not None and _is_certain(case) and times[1] / times[0] > (1 + bound) * (1 + 2 * _FAR)


def _is_certain(case: Data, of: str = "timing") -> bool:
    """Whether all pairs say the same, on a machine of which nothing is told that widens the interval."""
    timing = _timing(case, of)
    assert timing is not None
    pairs, conditions = timing["pairs"], timing["conditions"]
    alike = all(len(set(pairs[column])) == 1 for column in ("reference_ns", "variant_ns", "canary_ns"))
    steps = {after - before for before, after in pairwise(pairs["at_ms"])}
    undisturbed = not any(any(column) for name, column in pairs.items() if name.endswith("_delayed_ns"))
    told_of_nothing = conditions["canary_at_best_ns"] is None and timing.get("earlier") is None
    return alike and undisturbed and steps == {50} and told_of_nothing


def _is_undecided(case: Data) -> bool:
    """An answer that does not repeat itself, or stands for others, leaves limits on answers open."""
    return case["inference"] != "set" or any(case[side]["repeat"] is not None for side in ("reference", "variant"))


def _drops(case: Data) -> list[Fraction]:
    """By the scores, and by the counts."""
    before, after = case["reference"]["score"], case["variant"]["score"]
    if before is None or after is None:
        return []
    found = [(Fraction(before) - Fraction(after)) * (1 if case["higher_is_better"] else -1)]
    if case["agreement"] is not None:
        counts = case["agreement"]
        found.append(Fraction(counts["right_to_wrong"] - counts["wrong_to_right"], counts["examples"]))
    return found


def _drops_too_far(case: Data, bound: Fraction) -> bool:
    drops = _drops(case)
    if not drops:
        return True
    return max(drops) - Fraction(1, 10**9) > bound + (Fraction(1, 2) if _is_undecided(case) else 0)


def _loses_too_much(case: Data, bound: Fraction) -> bool:
    drops = _drops(case)
    if not drops:
        return case["variant"]["score"] is None
    is_known = case["agreement"] is not None and case["reference"]["score"] > 0.9 and not _is_undecided(case)
    return is_known and max(drops) - Fraction(1, 10**9) > bound


def _scores_too_low(case: Data, bound: Fraction) -> bool:
    score = case["variant"]["score"]
    if score is None:
        return True
    below = bound - Fraction(score) if case["higher_is_better"] else Fraction(score) - bound
    return below > Fraction(1, 10**9) and not _is_undecided(case)


def _slice_drops(case: Data, bound: Fraction) -> bool:
    slices = case["slices"]
    if slices is None or slices["right_to_wrong"] is None:
        return slices is None
    rows = zip(slices["examples"], slices["right_to_wrong"], slices["wrong_to_right"], strict=True)
    return not _is_undecided(case) and any(Fraction(lost - won, count) > bound for count, lost, won in rows)


def _caches_too_much(case: Data, bound: Fraction) -> bool:
    memory = case["variant"]["call_memory"]
    return memory is None or memory["cache_bytes"] > bound


def _flips(case: Data, bound: Fraction) -> bool:
    tokens = case["tokens"]
    if tokens is not None:
        share = Fraction(tokens["flips"], tokens["sequences"] * tokens["positions"])
        return not _is_undecided(case) and share > bound
    counts = case["agreement"]
    if counts is None:
        return True
    return not _is_undecided(case) and Fraction(counts["flips"], counts["examples"]) > bound


def _covers_too_little(case: Data, bound: Fraction) -> bool:
    layers = case["coverage"]["layers"] if case["coverage"] else []
    whole = sum(layer["weight_bytes"] for layer in layers)
    return not whole or Fraction(sum(layer["changed_bytes"] for layer in layers), whole) < bound


BEYOND: dict[str, Callable[[Data, Fraction], bool]] = {
    "max_memory": _max_memory,
    "min_memory_reduction": _saves_too_little_memory,
    "max_process_memory": _of_process,
    "max_size": _max_size,
    "min_size_reduction": _saves_too_little_size,
    "min_speedup": _too_slow,
    "max_latency": _takes_too_long,
    "max_p95_latency": _p95_latency,
    "max_load_time": partial(_takes_too_long, of="loading"),
    "min_load_speedup": partial(_too_slow, of="loading"),
    "max_first_token_latency": partial(_takes_too_long, of="prefill"),
    "min_prefill_speedup": partial(_too_slow, of="prefill"),
    "min_decode_speedup": partial(_too_slow, of="decode"),
    "max_cache_memory": _caches_too_much,
    "max_accuracy_drop": _drops_too_far,
    "min_accuracy": _scores_too_low,
    "max_slice_drop": _slice_drops,
    "max_flips": _flips,
    "min_coverage": _covers_too_little,
    "max_memory_growth": lambda case, bound: _grows(
        _memory(case["reference"], case), _memory(case["variant"], case), bound
    ),
    "max_size_growth": lambda case, bound: _grows(_size(case["reference"]), _size(case["variant"]), bound),
    "max_accuracy_loss": _loses_too_much,
    "max_slowdown": _slower_than_base,
}
