"""Sentences on verdicts: the limit, what was found, by how much, and where the limit stands."""

from __future__ import annotations

import math
from collections.abc import Callable

from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.reporting.messages.figures import (
    answer_figure,
    base_name,
    beyond_limit,
    format_figure,
    format_repeats,
    meter,
    needed_examples,
    other_passes,
)
from pytest_modelopt.reporting.messages.reasons import REASONS
from pytest_modelopt.reporting.messages.slices import format_slices, format_small_slices
from pytest_modelopt.reporting.messages.waivers import format_waiver
from pytest_modelopt.results.case import MeasuredCase
from pytest_modelopt.results.figures import format_bytes, format_percentage, format_time
from pytest_modelopt.results.verdicts import Limit, Outcome, Reason, Verdict, ceiling_of
from pytest_modelopt.statistics.samples import MIN_PAIRS

_OPENINGS: dict[Outcome, str] = {"pass": "holds", "fail": "is broken", "inconclusive": "is inconclusive"}


def format_verdict(case: MeasuredCase, verdict: Verdict) -> str:
    """'reader/int8-dynamic: max_memory 1 MiB is broken: 1.07 MiB measured, 7% more than the limit. (a.yaml:4)'."""
    limit, waiver = verdict.limit, verdict.limit.waiver
    beginning, place = f"{case.name}: {limit.name} {limit.text}", f"({limit.file}:{limit.line})"
    text = f"{_judged(case, verdict)}. {place}"
    ceiling = ceiling_of(limit)
    if verdict.waived is not None and waiver is not None:
        up_to = f" up to {ceiling.text}" if ceiling is not None else ""
        return f"{beginning} is waived{up_to} {format_waiver(waiver)} It {text}"
    if verdict.is_beyond_ceiling and waiver is not None:
        return (
            f"{beginning} {text} The ceiling {waiver.ceiling_text} of its waiver is broken, too: it is waived up to "
            f"there only, {format_waiver(waiver)}"
        )
    return f"{beginning} {text}"


def format_note(case: MeasuredCase, limit: Limit, note: Reason) -> str:
    """What is worth saying of a limit that holds."""
    assert note.code == "small-slices", note.code
    return format_small_slices(case, limit)


def _judged(case: MeasuredCase, verdict: Verdict) -> str:
    code = verdict.reason.code
    worded = (FOUND.get(code) or REASONS.get(code)) if verdict.limit.name in LIMITS else None
    clause = worded(case, verdict) if worded is not None else code  # another version's code says something, too
    if verdict.outcome == "not measured":
        return f"was not measured, which counts as broken ({clause})"
    return f"{_OPENINGS[_decision(verdict)]}: {clause}"


# --- what was found --------------------------------------------------------------------------------------------------


def _decision(verdict: Verdict) -> Outcome:
    return verdict.waived or verdict.outcome


def _measured(case: MeasuredCase, verdict: Verdict) -> str:
    assert verdict.measured is not None
    text = format_figure(case, verdict.limit, verdict.measured, kept=_decision(verdict) != "fail")
    return f"{text} measured{_end(case, verdict)}"


def _growth(case: MeasuredCase, verdict: Verdict) -> str:
    was, now = verdict.reason.parameters["was"], verdict.reason.parameters["now"]
    assert isinstance(was, int)
    assert isinstance(now, int)
    growth = verdict.measured
    if growth is None:
        return f"{format_bytes(now)} measured, and nothing at {base_name(case)}, so that no share allows it"
    if growth == 0:
        text = f"the same as at {base_name(case)}"
    elif growth < 0:
        text = f"{format_percentage(-growth)} less than at {base_name(case)}"
    else:
        amount = format_figure(case, verdict.limit, growth, kept=_decision(verdict) != "fail")
        text = f"{amount} more than at {base_name(case)}"
    return f"{text} {_both(was, now)}{_end(case, verdict)}"


def _end(case: MeasuredCase, verdict: Verdict) -> str:
    """How bytes were measured, and how far they are beyond the limit."""
    text = meter(case) if verdict.reason.parameters.get("by_process") else ""
    decision = _decision(verdict)
    if decision == "fail":
        assert verdict.measured is not None
        return text + beyond_limit(case, verdict.limit, verdict.measured)
    if decision == "pass":
        return text
    kind = LIMITS[verdict.limit.name]
    ends = ("without bound" if end is None else kind.format(end, digits=6) for end in (verdict.low, verdict.high))
    return (
        f"{text}, and the limit lies within the measured spread, {' to '.join(ends)}; give a limit further from what "
        "is measured"
    )


def _both(was: int, now: int) -> str:
    """'(1.1 MiB, was 1 MiB)', with as many digits as it takes to tell them apart."""
    if was == now:
        return f"({format_bytes(now)})"
    pairs = [(format_bytes(now, digits=digits), format_bytes(was, digits=digits)) for digits in range(3, 18)]
    after, before = next((pair for pair in pairs if pair[0] != pair[1]), pairs[-1])
    return f"({after}, was {before})"


def _on_the_set(case: MeasuredCase, verdict: Verdict) -> str:
    assert verdict.measured is not None
    limit, decision, passes = verdict.limit, _decision(verdict), other_passes(case, verdict)
    text = answer_figure(case, limit, verdict.measured, kept=decision == "pass") + passes
    if decision == "fail":
        text += beyond_limit(case, limit, verdict.measured)
    elif decision == "inconclusive" and verdict.low is not None:
        text += ", and the limit lies between"
    return f"{text}; {format_repeats(case)}" if passes else text


def _in_the_population(case: MeasuredCase, verdict: Verdict) -> str:
    assert verdict.measured is not None
    assert verdict.low is not None
    assert verdict.high is not None
    limit, found = verdict.limit, verdict.reason.parameters
    by_bounds = found["by_bounds"]
    figure = answer_figure(case, limit, verdict.measured, kept=by_bounds != "fail")
    text = f"{figure} on {found['examples']:,} examples"
    low, high = (format_figure(case, limit, end, kept=False) for end in (verdict.low, verdict.high))
    if by_bounds == "inconclusive":
        text += (
            f", {low} to {high} in the population (95% on each side), and the limit lies between: "
            f"{needed_examples(found['needed'])}"
        )
    else:
        is_upper = LIMITS[limit.name].bounds_from_above(case) == (by_bounds == "pass")
        text += f", {f'at most {high}' if is_upper else f'at least {low}'} in the population (95%)"
    passes = other_passes(case, verdict)
    return f"{text}{passes}; {format_repeats(case)}" if passes else text


# --- timed -----------------------------------------------------------------------------------------------------------


def _timed(case: MeasuredCase, verdict: Verdict) -> str:
    found, decision = verdict.reason.parameters, _decision(verdict)
    assert verdict.measured is not None
    is_slowdown = LIMITS[verdict.limit.name].against == "base"
    figure = (_slowdown if is_slowdown else _factor_or_time)(case, verdict, verdict.measured, decision != "fail")
    text = f"{figure} over {found['pairs']} pairs{_of_what(verdict)}"
    if decision == "fail":
        return text + beyond_limit(case, verdict.limit, verdict.measured)
    if decision == "inconclusive":
        return f"{text} in {found['seconds']:.3g} s, {_what_it_takes(verdict)}"
    return text


def _of_what(verdict: Verdict) -> str:
    if LIMITS[verdict.limit.name].figure == "loading":
        return " of fresh processes"
    calls = verdict.reason.parameters.get("calls")
    return f" with {calls} single calls" if calls else ""


def _factor_or_time(case: MeasuredCase, verdict: Verdict, figure: float, kept: bool) -> str:
    """'1.42x [1.3x, 1.5x]'."""
    text = format_figure(case, verdict.limit, figure, kept=kept)
    if verdict.low is None or verdict.high is None:
        return (
            f"{text} ({'too few calls' if verdict.reason.parameters.get('calls') else _TOO_FEW_PAIRS} give no interval)"
        )
    kind = LIMITS[verdict.limit.name]
    return f"{text} [{kind.format(verdict.low)}, {kind.format(verdict.high)}]"


def _slowdown(case: MeasuredCase, verdict: Verdict, figure: float, kept: bool) -> str:
    """'12% slower [8%, 16%] than 1a2b3c4d5e6f': shares of the base's time, in the direction of the figure."""
    amount = format_figure(case, verdict.limit, abs(figure), kept=kept)
    amount += " faster" if figure < 0 else " slower"
    low, high = verdict.low, verdict.high
    if low is None or high is None:
        return f"{amount} than {base_name(case)} ({_TOO_FEW_PAIRS} give no interval)"
    one_way = low * high >= 0
    ordered = (high, low) if figure < 0 and one_way else (low, high)
    ends = [format_percentage(abs(end)) + ("" if one_way else " faster" if end < 0 else " slower") for end in ordered]
    return f"{amount} [{', '.join(ends)}] than {base_name(case)}"


def _what_it_takes(verdict: Verdict) -> str:
    """Why the limit is not decided, and what would decide it."""
    found = verdict.reason.parameters
    cause = found["cause"]
    if cause == "too-few-pairs":
        return "and that is too little to decide anything; give it more time (`time_limit`)"
    if cause == "starved":
        return (
            "and that says little, since other processes had the processor for "
            f"{_share(found['delayed'])} of the timed time: run it again on a less busy machine"
        )
    if cause == "state":
        return (
            "and the limit lies inside that interval, since the machine was far from its best state: a fixed piece of "
            f"work took {_share(found['slower'])} longer than at best, beside a busy neighbour on the host or at a "
            "lower frequency; run it again when the machine is calm"
        )
    if cause == "slower-than-before":
        return (
            "and the limit lies inside that interval, since the machine was far from its best state: the original took "
            f"{_share(found['slower'])} longer than in the fastest of its earlier runs, which do not show well enough "
            "what that changes; run it again when the machine is calm"
        )
    if cause == "between-runs":
        return (
            f"and the limit lies inside that interval: {found['runs']} earlier runs of the same programs on this "
            f"machine differ by {_share(found['differ'])} (standard deviation) beyond what their pairs explain, so no "
            "time would decide a limit that is so near; give a limit further from what is measured, or a quieter "
            "machine"
        )
    spread, seconds = found["spread"], found["needed_s"]
    assert isinstance(spread, int | float)
    of_what = "pairs" if LIMITS[verdict.limit.name].figure == "loading" else "estimates of one second"
    text = f"and the limit lies inside that interval: {of_what} spread by {100 * spread:.2g}%"
    if cause == "few-segments":
        return f"{text}; give it more time (`time_limit`)"
    if not isinstance(seconds, int | float):
        return (
            f"{text}, so no time would decide a limit that is so near; give a limit further from what is measured, or "
            "a quieter machine"
        )
    return (
        f"{text}, so about {format_time(_rounded(seconds))} of timing would decide it (`time_limit`); or give a limit "
        "further from what is measured"
    )


def _share(share: object) -> str:
    assert isinstance(share, int | float)
    return format_percentage(share, digits=2)


def _rounded(seconds: float) -> float:
    unit = 10.0 ** max(0, math.floor(math.log10(seconds)) - 1)
    return math.ceil(seconds / unit) * unit


_TOO_FEW_PAIRS = f"fewer than {MIN_PAIRS} pairs"
FOUND: dict[str, Callable[[MeasuredCase, Verdict], str]] = {
    "measured": _measured,
    "growth": _growth,
    "timed": _timed,
    "on-the-set": _on_the_set,
    "in-the-population": _in_the_population,
    "slices-on-the-set": format_slices,
    "slices-in-the-population": format_slices,
}
"""By the code of a verdict's reason, where there is a figure."""
