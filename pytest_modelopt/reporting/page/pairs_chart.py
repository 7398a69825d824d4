"""The pairs of a comparison over the time in which they were taken, with their launches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from pytest_modelopt.limits.latency import latencies_s
from pytest_modelopt.reporting.columns import alike
from pytest_modelopt.reporting.page.charts import Chart, Scale, Shape, Word, box, dots, line, scale
from pytest_modelopt.results.figures import format_count, format_time
from pytest_modelopt.results.timed_pairs import TimedPair, Timing

_WIDTH, _HEIGHT = 720, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 708, 22, 200
_MOST_DRAWN = 1000
_IN_SIGHT = 0.99
"""Of the figures; the rest may lie so far above that nothing else could be told apart, and stands at the edge."""


def pairs_chart(timing: Timing, sides: tuple[str, str], *, with_figures: bool) -> tuple[Chart, str] | None:
    """The chart and what stands below it; None where there is nothing to draw.

    `sides`: what the two are called. `with_figures`: whether the two latencies that are judged are drawn, too.
    """
    every = -(-len(timing.pairs) // _MOST_DRAWN)
    pairs = timing.pairs[:: every or 1]
    figures = sorted(figure * 1e-9 for pair in pairs for figure in (pair.reference_ns, pair.variant_ns))
    seen = figures[: max(2, round(_IN_SIGHT * len(figures)))]
    x = scale((pair.at_ms / 1000 for pair in pairs), _LEFT, _RIGHT, room=0.02)
    latencies = latencies_s(timing) if with_figures else ()  # those of the machine's best state may be below all pairs
    y = scale((*seen, *latencies), _BOTTOM, _TOP)
    if x is None or y is None:
        return None
    shapes = list(_launches(pairs, x))
    words: list[Word] = []
    for tick, text in _ticks(y.ticks()):
        shapes.append(Shape("grid", line(_LEFT, y.at(tick), _RIGHT, y.at(tick))))
        words.append(Word(_LEFT - 6, y.at(tick) + 4, text, "end"))
    words += [Word(x.at(tick), _BOTTOM + 18, text, "middle") for tick, text in _ticks(x.ticks(8))]
    for kind in ("reference", "variant"):
        points = ((x.at(pair.at_ms / 1000), y.at(getattr(pair, f"{kind}_ns") * 1e-9)) for pair in pairs)
        shapes.append(Shape(f"dots {kind}", dots(points)))
    for kind, latency in zip(("reference", "variant"), latencies, strict=False):
        shapes.append(Shape(f"level {kind}", line(_LEFT, y.at(latency), _RIGHT, y.at(latency))))
    launches = [*dict.fromkeys(pair.launch for pair in pairs)]
    middle = _middles(pairs, x)
    words += [Word(middle[launch], _TOP - 8, f"launch {launch}", "middle") for launch in launches if len(launches) < 12]
    told = _told(timing, sides, latencies, every, sum(figure > y.high for figure in figures))
    return Chart(
        f"One call of either side over the time of measuring: {told}", _WIDTH, _HEIGHT, (*shapes,), (*words,)
    ), told


def _ticks(times_s: Sequence[float]) -> Iterator[tuple[float, str]]:
    """Those that are times, each with its text."""
    times = [time for time in times_s if time >= 0]
    yield from zip(times, alike(times, "time"), strict=True)


def _launches(pairs: tuple[TimedPair, ...], x: Scale) -> Iterator[Shape]:
    """Every second launch on a darker ground."""
    for number, (_, of) in enumerate(groupby(pairs, key=lambda pair: pair.launch)):
        found = list(of)
        if number % 2:
            left, right = (x.at(found[end].at_ms / 1000) for end in (0, -1))
            yield Shape("band", box(left, _TOP, right - left, _BOTTOM - _TOP))


def _middles(pairs: tuple[TimedPair, ...], x: Scale) -> dict[int, float]:
    ends: dict[int, list[int]] = {}
    for pair in pairs:
        ends.setdefault(pair.launch, []).append(pair.at_ms)
    return {launch: x.at((min(moments) + max(moments)) / 2000) for launch, moments in ends.items()}


def _told(timing: Timing, sides: tuple[str, str], latencies: tuple[float, ...], every: int, above: int) -> str:
    launches = len({pair.launch for pair in timing.pairs})
    told = [
        f"{format_count(len(timing.pairs), 'pair')} in {format_count(launches, 'launch', 'launches')}, "
        f"{format_time(timing.seconds)}"
    ]
    told += [f"{name} {format_time(latency)}" for name, latency in zip(sides, latencies, strict=False)]
    if every > 1:
        told.append(f"one pair of {every} is drawn")
    if above:
        told.append(f"{format_count(above, 'figure')} beyond the upper edge")
    return "; ".join(told)
