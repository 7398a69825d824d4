"""Each figure over several records, with the limit that bounded it in each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.limits.front import Found
from pytest_modelopt.reporting.columns import Shown
from pytest_modelopt.reporting.names import short_revision
from pytest_modelopt.reporting.page.case_view import Tone
from pytest_modelopt.reporting.page.charts import Chart, Scale, Shape, Word, dot, joined, line, scale, whisker
from pytest_modelopt.reporting.page.uniform import uniform
from pytest_modelopt.reporting.samples import Sample, samples
from pytest_modelopt.results.metric import is_share
from pytest_modelopt.results.record import Environment, Record

_WIDTH, _HEIGHT = 720, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 88, 700, 12, 160
_MOST_DATES = 7


@dataclass(frozen=True)
class Moment:
    """One figure of one record."""

    place: int
    """Of the record among all, from 0."""
    when: str
    revision: str
    machine: str
    sample: Sample
    tone: Tone
    text: str = ""
    """The figure, in the unit of all moments."""
    interval: str = ""

    @property
    def bound(self) -> str:
        """'max_memory at most 3 MiB, fail'; '' where no limit bounds it."""
        verdict = self.sample.verdict
        if verdict is None:
            return ""
        word = "at most" if LIMITS[verdict.limit.name].bounds_from_above(self.sample.case) else "at least"
        return f"{verdict.limit.name} {word} {verdict.limit.text}, {verdict.outcome}"


@dataclass(frozen=True)
class Series:
    title: str
    moments: tuple[Moment, ...]
    chart: Chart | None


@dataclass(frozen=True)
class Variant:
    name: str
    series: tuple[Series, ...]


def series_by_model(records: Sequence[Record]) -> list[tuple[str, list[Variant]]]:
    """Every model with its variants, in the order in which they first appear; `records` in the order of time."""
    found: dict[str, dict[str, dict[str, list[Moment]]]] = {}
    for place, record in enumerate(records):
        for sample in samples(record):
            # The base is another revision each time, and is what came before all the same.
            kept = replace(sample, labels=tuple((key, "base" if key == "base" else it) for key, it in sample.labels))
            variants = found.setdefault(dict(kept.labels)["model"], {})
            of = variants.setdefault(kept.name, {}).setdefault(kept.family.name, [])
            of.append(_moment(place, record, kept))
    return [
        (
            model,
            [Variant(name, tuple(_series(records, of) for of in families.values())) for name, families in of.items()],
        )
        for model, of in found.items()
    ]


def _moment(place: int, record: Record, sample: Sample) -> Moment:
    verdict = sample.verdict
    tone: Tone = "plain"
    if verdict is not None:
        tone = "good" if verdict.outcome == "pass" else "bad" if verdict.is_red else "unsure"
    return Moment(place, record.started, revision_of(record), _machine(record.machine_of(sample.case)), sample, tone)


def revision_of(record: Record) -> str:
    """Of head, where the record knows it: where it was compared with a base."""
    against = record.against
    if against is None or against.head is None:
        return ""
    return f"{short_revision(against.head)}{' with uncommitted changes' if against.has_uncommitted else ''}"


def _machine(environment: Environment | None) -> str:
    return "unknown" if environment is None else f"{environment.gpu or environment.cpu}, torch {environment.torch}"


def _series(records: Sequence[Record], moments: Sequence[Moment]) -> Series:
    of = [each.sample for each in moments]
    figures = [None if each is None else Shown(each) for one in of for each in (one.value, one.low, one.high)]
    texts = uniform(of[0].family, of, figures)
    told = [
        replace(each, text=texts[3 * number], interval=_interval(*texts[3 * number + 1 : 3 * number + 3]))
        for number, each in enumerate(moments)
    ]
    return Series(of[0].family.title, tuple(told), _chart(records, told))


def _interval(low: str, high: str) -> str:
    return f"{low or 'no bound'} to {high or 'no bound'}" if low or high else ""


def _chart(records: Sequence[Record], moments: Sequence[Moment]) -> Chart | None:
    """Records stand at equal distances: what matters is which came after which."""
    bounds = [(each.place, each.sample.verdict.limit.value) for each in moments if each.sample.verdict is not None]
    ends = [end for each in moments for end in (each.sample.low, each.sample.high) if end is not None]
    figures = [each.sample.value for each in moments]
    x = scale((-0.5, len(records) - 0.5), _LEFT, _RIGHT, room=0.0)
    y = scale((*figures, *ends, *(bound for _, bound in bounds)), _BOTTOM, _TOP)
    if x is None or y is None:
        return None
    shapes: list[Shape] = []
    words = _dates(records, x)
    first = moments[0].sample
    ticks = [tick for tick in y.ticks(are_bytes=first.family.unit == "bytes") if _is_possible(first, tick, figures)]
    for tick, text in zip(ticks, uniform(first.family, [first], list(map(Shown, ticks))), strict=True):
        shapes.append(Shape("grid", line(_LEFT, y.at(tick), _RIGHT, y.at(tick))))
        words.append(Word(_LEFT - 6, y.at(tick) + 4, text, "end"))
    for place, bound in bounds:
        shapes.append(Shape("bound", line(x.at(place - 0.5), y.at(bound), x.at(place + 0.5), y.at(bound))))
    points = [(x.at(each.place), y.at(each.sample.value)) for each in moments]
    shapes.append(Shape("level", joined(points)))
    for each, point in zip(moments, points, strict=True):
        of = each.sample
        low, high = (of.value if end is None else end for end in (of.low, of.high))
        if interval := whisker(x, y, each.place, Found(of.value, low, high)):
            shapes.append(Shape("interval", interval))
        kind = {"bad": "dot broken", "unsure": "dot unsure"}.get(each.tone, "dot")
        title = ", ".join(filter(None, (each.when, each.revision, each.text, each.bound)))
        shapes.append(Shape(kind, dot(*point), title))
    label = f"{first.family.title} of {first.name} over {len(moments)} records, {moments[0].text} in the first and "
    return Chart(f"{label}{moments[-1].text} in the last", _WIDTH, _HEIGHT, tuple(shapes), tuple(words))


def _is_possible(of: Sample, tick: float, figures: Sequence[float]) -> bool:
    """Whether such a figure can be: a scale has room beyond what was measured, and nothing has minus one byte."""
    if tick < 0 <= min(figures):
        return False
    if of.family.column is None:
        return tick == round(tick)
    return of.family.name != "score" or not is_share(of.case.metric) or tick <= 1


def _dates(records: Sequence[Record], x: Scale) -> list[Word]:
    """The days of some of the records, of one day the times, and where it is known the revision below."""
    every = -(-len(records) // _MOST_DATES)
    told = slice(11, 16) if len(records) > 1 and len({each.started[:10] for each in records}) == 1 else slice(10)
    words = []
    for place in range(0, len(records), every):
        words.append(Word(x.at(place), _BOTTOM + 15, records[place].started[told], "middle"))
        if revision := revision_of(records[place]):
            words.append(Word(x.at(place), _BOTTOM + 28, revision[:12], "middle"))
    return words
