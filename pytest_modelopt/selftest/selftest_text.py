"""The result of a selftest in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from tabulate import tabulate

from pytest_modelopt.limits.latency import latencies_s
from pytest_modelopt.results.figures import format_factor, format_number, format_percentage, format_time
from pytest_modelopt.selftest.control_verdicts import Control
from pytest_modelopt.selftest.trial import Trial
from pytest_modelopt.selftest.trials import LADDER, RECIPE_SECONDS, OwnRecipe, Result
from pytest_modelopt.statistics.timing import LAUNCHES

_CONTROLS = ("control", "must show", "shows", "verdict")
_RECIPE_HEADERS = ("recipe", "reads", "1 s spreads by", "passes from", "fails from", "intervals beside the mean")
_HEADERS = ("copy", "failed", "passed", "inconclusive", "reads", "should read", "pairs", "timing")


def control_lines(name: str, controls: Sequence[Control]) -> Iterator[str]:
    """The controls in a table, and under it what is wrong with those that do not show what they must."""
    yield f"{name}: can the gate pass, and can it fail?"
    yield ""
    rows = [(control.name, control.must_show, control.shows or "-", control.outcome) for control in controls]
    yield from (f"  {line}" for line in tabulate(rows, _CONTROLS, disable_numparse=True).splitlines())
    yield ""
    for control in controls:
        if control.why:
            yield f"{control.name}: {'' if control.outcome == 'ok' else control.outcome + ': '}{control.why}"


def lines(result: Result) -> Iterator[str]:
    """What was found, for a terminal."""
    plan, environment = result.plan, result.environment
    threads = f"{plan.variant.threads} thread{'' if plan.variant.threads == 1 else 's'}"
    latency_s = median(latencies_s(each.timing)[0] for each in result.identical)
    yield (
        f"{plan.name}: batch {plan.variant.batch_size}, {threads}, {format_time(latency_s)} a call; "
        f"{environment.cpu} ({environment.cpu_capability}), {environment.cpu_count} cores, torch {environment.torch}"
    )
    yield f"Against a limit of {format_percentage(plan.limit)} slower, in {LAUNCHES} launches each:"
    yield ""
    slower = f"{format_percentage(plan.slowdown)} slower"
    # Or less: after the wait that slows a call, the processor does the model's own part a little slower, too.
    expected = f"{format_factor(1 / (1 + plan.slowdown))} or less"
    table = [_row(result, "identical", result.identical, "1x"), _row(result, slower, result.slower, expected)]
    yield from (f"  {line}" for line in tabulate(table, _HEADERS, disable_numparse=True).splitlines())
    yield ""
    whole = result.comparison_spread
    of_whole = "" if whole is None else f", that of a whole comparison by {format_percentage(whole, digits=2)}"
    one_second = format_percentage(result.segment_spread, digits=2)
    yield f"An estimate of one second spreads by {one_second}{of_whole} (standard deviation)."
    smallest = result.smallest_limit
    if smallest is None:
        yield f"No limit up to {format_percentage(LADDER[-1])} can be used here, with this time and this load."
    else:
        yield (
            f"The smallest limit that can be used here is {format_percentage(smallest)}: of 1, 2, 3, 5, 7.5, 10, ... "
            f"the first that identical copies keep with the pairs that a limit of {format_percentage(plan.limit)} took."
        )
    yield from _own_recipes(result.recipes)
    yield from _disturbed([*result.identical, *result.slower])
    yield _closing(result)


def _row(result: Result, name: str, trials: Sequence[Trial], expected: str) -> tuple[str, ...]:
    found = result.outcomes(trials)
    estimates = [each.estimate.figure for each in trials]
    return (
        name,
        *(str(found.count(outcome)) for outcome in ("fail", "pass", "inconclusive")),
        f"{format_factor(min(estimates))} to {format_factor(max(estimates))}",
        expected,
        format_number(median(len(each.timing.pairs) for each in trials)),
        format_time(median(each.timing.seconds for each in trials), digits=2),
    )


def _own_recipes(recipes: Sequence[OwnRecipe]) -> Iterator[str]:
    """What this machine can judge with the model's own variants, which react to it otherwise than a copy does."""
    if not recipes:
        return
    yield ""
    yield (
        f"The recipes of this model, {len(recipes[0].trials)} comparisons of up to {format_time(RECIPE_SECONDS)} each. "
        "A min_speedup passes where it is lower than the speedup by more than the first distance, and fails where it "
        "is higher by more than the second one; nearer limits need more time, or stay inconclusive:"
    )
    yield ""
    rows = [
        (
            own.recipe,
            f"{format_factor(min(own.speedups))} to {format_factor(max(own.speedups))}",
            format_percentage(own.spread, digits=2),
            *(format_percentage(distance, digits=2) for distance in own.distances),
            f"{own.outside} of {len(own.trials)}",
        )
        for own in recipes
    ]
    yield from (f"  {line}" for line in tabulate(rows, _RECIPE_HEADERS, disable_numparse=True).splitlines())
    yield ""


def _disturbed(trials: Sequence[Trial]) -> Iterator[str]:
    others = [each.timing.conditions.other_cores for each in trials]
    known = [cores for cores in others if cores is not None]
    delayed = median(each.timing.delayed for each in trials)
    if known:
        yield (
            f"Meanwhile other processes kept {format_number(median(known), digits=2)} of "
            f"{trials[0].timing.conditions.cores} cores busy, and had the processor for "
            f"{format_percentage(delayed, digits=2)} of the timed time."
        )


def _closing(result: Result) -> str:
    limit = format_percentage(result.plan.limit)
    if result.is_good:
        return f"ok: this machine can judge a limit of {limit}{_shown_by(result.controls)}."
    wrong = []
    if not result.can_judge:
        wrong.append(f"this machine cannot judge a limit of {limit}: {', '.join(_misjudged(result))}")
    failed = [control.name for control in result.failed_controls]
    if failed:
        which = f"control {failed[0]} does" if len(failed) == 1 else f"controls {' and '.join(failed)} do"
        wrong.append(f"the {which} not show what must be shown, so the gate means nothing on this model")
    return f"NOT ok: {'; and '.join(wrong)}."


def _shown_by(controls: Sequence[Control]) -> str:
    """What the controls that apply have shown of the gate."""
    shown = {control.name for control in controls if control.outcome == "ok"}
    can = [what for name, what in (("identity", "pass"), ("sabotaged", "fail")) if name in shown]
    if not can:
        return ""
    missing = "" if "sabotaged" in shown else "; that it can fail was not shown"
    return f", and on this model the gate can {' and can '.join(can)}{missing}"


def _misjudged(result: Result) -> list[str]:
    count = len(result.identical)
    found = []
    if result.false_failures:
        found.append(f"{result.false_failures} of {count} identical copies failed")
    undecided = result.outcomes(result.identical).count("inconclusive")
    if undecided:
        found.append(f"{undecided} of {count} identical copies stayed inconclusive")
    if result.misses:
        found.append(f"{result.misses} of {len(result.slower)} slowed copies did not fail")
    return found
