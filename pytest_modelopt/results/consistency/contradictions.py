"""Figures of one case that imply each other: where two of them cannot both be true, the record is none of a run.

A verdict is made of some figures only, so a record whose score was changed, and whose counts were not, would pass. All
that is known of how figures follow from each other stands here. Of a case in error nothing is judged or checked.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterator
from itertools import pairwise

from pytest_modelopt.results.answers import MOST_CHANGED, Agreement, Changed, Repeat, Slices
from pytest_modelopt.results.case import MeasuredCase
from pytest_modelopt.results.consistency import generation_contradictions, timing_contradictions
from pytest_modelopt.results.consistency.shared_figures import between_workloads
from pytest_modelopt.results.consistency.small_files import format_small_file
from pytest_modelopt.results.measurement import Coverage, Measurement
from pytest_modelopt.results.metric import BUILT_IN, PERPLEXITY, UNLABELLED, is_share
from pytest_modelopt.results.observations import Observations
from pytest_modelopt.results.record import Record

_ROUNDING = 1e-6
"""Of a share of examples: floats hold it to 1e-16, and a wrong count is off by one whole example."""
_OF_SUMS = 1e-3
"""Of the metrics below, which add up many float32 numbers: an area under a curve may come to a little more than 1."""
_SHARES_OF_TORCHMETRICS = re.compile(
    r"(Binary|Multiclass|Multilabel)"
    r"(Accuracy|AUROC|AveragePrecision|F1Score|FBetaScore|JaccardIndex|Precision|Recall|Specificity)(\(.*)?",
    re.DOTALL,
)
_MOST_DB = 300.0
TIMED_LIMITS = 9
"""Limits of one test that need statistics: of speed, latency, its tail and slowdown, of loading, and of the parts of a
call that generates."""


def disagreement(record: Record) -> str:
    """The first figures of a case, or of the run, that contradict each other, in words; '' where there are none."""
    seen: set[tuple[str, int]] = set()
    for index, case in enumerate(record.cases):
        if (case.id, case.machine) in seen:
            return f"cases[{index}] ({case.name}): another case has the same id, {case.id}"
        seen.add((case.id, case.machine))
        told = disagreement_of(case) or _of_waivers(case, record.started)
        if told:
            return f"cases[{index}] ({case.name}): its figures contradict each other: {told}"
    if told := between_workloads(record):
        return told
    known = {*record.collected, *record.planned, *(case.id.rpartition("#")[0] or case.id for case in record.cases)}
    most = TIMED_LIMITS * max(1, len(known))  # the more there are, the less is any of them broken beyond doubt
    if not 0 <= record.timed_limits <= most:
        return f"timed_limits: must be from 0 to {most} with {len(known)} known tests, not {record.timed_limits}"
    return ""


def disagreement_of(case: MeasuredCase) -> str:
    """The first two figures of the case that contradict each other, in words; '' where there are none."""
    return "" if case.error is not None else next(_disagreements(case), "")


def _disagreements(case: MeasuredCase) -> Iterator[str]:
    yield from _of_sides(case)
    sides = {
        name: side for name, side in (("reference", case.reference), ("variant", case.variant)) if side is not None
    }
    for name, side in sides.items():
        yield from _of_bytes(name, side)
        yield from _of_score(case, name, side)
    if case.agreement is not None:
        yield from _of_agreement(case, case.agreement)
        if case.agreement.changed is not None:
            yield from _of_changed(case, case.agreement, case.agreement.changed)
    if case.slices is not None:
        yield from _of_slices(case, case.slices)
    yield from _of_interval(case)
    for name, side in sides.items():
        if side.repeat is not None:
            yield from _of_repeat(case, name, side, side.repeat)
        if side.observations is not None:
            yield from _of_classes(case, name, side, side.observations)
    if case.coverage is not None:
        yield from _of_coverage(case.coverage)
    yield from timing_contradictions.disagreements(case)
    yield from generation_contradictions.disagreements(case)


# --- what was compared -----------------------------------------------------------------------------------------------


def _of_sides(case: MeasuredCase) -> Iterator[str]:
    """Which measurements there must be, and in which direction their scores go."""
    base = case.base
    is_compared = base is None or base.status == "compared"
    for name, side in (("reference", case.reference), ("variant", case.variant)):
        if is_compared and side is None:
            yield f"{name} is null, but the case has no error: what was compared was measured on both sides"
    if base is not None and not is_compared and case.reference is not None:
        yield f"base.status is {base.status}, but reference holds figures of the base"
    if case.metric is None and any(
        side is not None and side.score is not None for side in (case.reference, case.variant)
    ):
        yield "metric is null, but there is a score"
    metric = case.metric or ""
    is_known = metric in BUILT_IN or is_share(metric) or _SHARES_OF_TORCHMETRICS.fullmatch(_class_of(metric))
    is_higher = case.metric != PERPLEXITY
    if case.metric is not None and is_known and case.higher_is_better is not is_higher:
        told, better = str(case.higher_is_better).lower(), "higher" if is_higher else "lower"
        yield f"higher_is_better is {told}, but {case.metric} is better when it is {better}"


def _class_of(metric: str) -> str:
    """A class of torchmetrics with its arguments, without the modules before it."""
    path, bracket, arguments = metric.partition("(")
    return f"{path.rpartition('.')[2]}{bracket}{arguments}"


def _of_bytes(name: str, side: Measurement) -> Iterator[str]:
    least = {"size_bytes": 1, "weights_bytes": 0, "call_peak_bytes": 0, "reserved_bytes": 0, "hidden_bytes": 0}
    for figure, at_least in least.items():
        count = getattr(side, figure)
        if count is not None and count < at_least:
            yield f"{name}.{figure} is {count}: nothing has fewer bytes than {at_least}"
    note = format_small_file(side)
    if note and note not in side.notes:
        yield f"{name}.size_bytes is {side.size_bytes}, {name}.weights_bytes {side.weights_bytes}, and no note says why"
    files = side.provenance.files if side.provenance is not None else {}
    if side.size_bytes is not None and (side.size_bytes < sum(files.values()) or min(files.values(), default=0) < 0):
        yield f"{name}.size_bytes is {side.size_bytes}, and {name}.provenance.files counts {sum(files.values())}"
    seen = side.observations
    in_float = sum((seen.float_bytes or {}).values()) if seen is not None else 0
    if side.weights_bytes == 0 and in_float:
        yield f"{name}.weights_bytes is 0, but {name}.observations.float_bytes counts {in_float}"
    if side.process_memory is not None:
        peaks = side.process_memory.peaks_bytes
        if not peaks or min(peaks) < 1:
            yield f"{name}.process_memory.peaks_bytes must hold the peak of each process, at least 1, not {peaks}"


# --- scores ----------------------------------------------------------------------------------------------------------


def _of_score(case: MeasuredCase, name: str, side: Measurement) -> Iterator[str]:
    if side.examples < 0 or (side.score is not None and side.examples < 1):
        yield f"{name}.examples is {side.examples}, but {name}.score is {_number(side.score)}"
        return
    if side.score is not None:
        yield from _of_one_score(case, f"{name}.score", side.score, side.examples)
    if name == "reference" and case.base is None and case.metric in UNLABELLED and side.score is not None:
        own = None if case.metric == "sqnr" else 1.0
        if side.score != own:
            yield f"reference.score is {_number(side.score)}: under {case.metric} it is its own measure, {_number(own)}"


def _of_one_score(case: MeasuredCase, path: str, score: float, examples: int) -> Iterator[str]:
    metric = case.metric or ""
    low, high = _bounds(metric)
    if not low <= score <= high:
        yield f"{path} is {_number(score)}, but {metric} lies from {_number(low)} to {_number(high)}"
    elif is_share(metric) and abs(score * examples - round(score * examples)) > _ROUNDING:
        yield f"{path} is {_number(score)}, which is no share of {examples} examples"


def _bounds(metric: str) -> tuple[float, float]:
    if is_share(metric):
        return 0.0, 1.0
    if _SHARES_OF_TORCHMETRICS.fullmatch(metric):
        return -_OF_SUMS, 1 + _OF_SUMS
    if metric == PERPLEXITY:
        return 1 - _ROUNDING, math.inf
    if metric == "cosine":
        return -1 - _ROUNDING, 1 + _ROUNDING
    return -math.inf, _MOST_DB if metric == "sqnr" else math.inf


def _of_repeat(case: MeasuredCase, name: str, side: Measurement, repeat: Repeat) -> Iterator[str]:
    path = f"{name}.repeat"
    if repeat.examples != side.examples:
        yield f"{path}.examples is {repeat.examples}, and {name}.examples {side.examples}"
    if repeat.score is None:
        return
    yield from _of_one_score(case, f"{path}.score", repeat.score, repeat.examples)
    if case.metric in ("accuracy", "agreement") and side.score is not None and repeat.flips is not None:
        moved = round(abs(side.score - repeat.score) * side.examples)
        if moved > repeat.flips:
            yield (
                f"{path}.flips is {repeat.flips}, but {name}.score {_number(side.score)} and {path}.score "
                f"{_number(repeat.score)} differ by {moved} of {side.examples} examples"
            )


def _of_classes(case: MeasuredCase, name: str, side: Measurement, seen: Observations) -> Iterator[str]:
    """What was seen of the classes, by which a useless original is known."""
    path, examples = f"{name}.observations", side.examples
    most, predicted, outputs = seen.most_predicted, seen.predicted_classes, seen.output_classes
    if most is not None and predicted is not None and not _may_be_most(most, predicted, examples):
        yield f"{path}: {most} of {examples} examples cannot be the most frequent of {predicted} predicted classes"
    if predicted is not None and outputs is not None and predicted > outputs:
        yield f"{path}: predicted_classes is {predicted}, and output_classes {outputs}"
    targets, rarer = seen.target_classes, seen.rarer_targets
    if targets is not None and rarer is not None and not _may_be_most(examples - rarer, targets, examples):
        yield f"{path}: rarer_targets is {rarer}, which {targets} target classes of {examples} examples cannot have"
    pairs = seen.pairing if is_share(case.metric) else None  # of others, `prepare` may make many targets of an example
    if pairs is not None and not 0 <= pairs.changed <= pairs.examples <= examples:
        yield f"{path}.pairing: {pairs.changed} changed of {pairs.examples} examples, and {name}.examples is {examples}"


def _may_be_most(most: int, classes: int, examples: int) -> bool:
    """Whether the most frequent of so many classes can have `most` of the examples, and each other one at least one."""
    return 1 <= classes <= examples and 1 <= most <= examples - classes + 1 and most * classes >= examples


# --- answers one by one ----------------------------------------------------------------------------------------------


def _of_agreement(case: MeasuredCase, counts: Agreement) -> Iterator[str]:
    lost, won, flips, examples = counts.right_to_wrong, counts.wrong_to_right, counts.flips, counts.examples
    told = f"agreement counts {lost} lost, {won} won and {flips} flips of {examples} examples"
    if not is_share(case.metric):
        yield f"{told}, but {case.metric} is not right-or-wrong per example"
    sides = {
        name: side for name, side in (("reference", case.reference), ("variant", case.variant)) if side is not None
    }
    for name, side in sides.items():
        if side.examples != examples:
            yield f"{told}, and {name}.examples is {side.examples}"
    if len({side.data_fingerprint for side in sides.values()}) > 1:
        both = "reference.data_fingerprint and variant.data_fingerprint"
        yield f"agreement is there, but {both} are of different examples"
    scores = [side.score for side in sides.values()]
    if len(scores) == 2 and scores[0] is not None and scores[1] is not None:
        before, after = (round(score * examples) for score in scores if score is not None)
        if before - after != lost - won or lost > before or won > examples - before:
            yield (
                f"{told}, but reference.score {_number(scores[0])} and variant.score {_number(scores[1])} are {before} "
                f"and {after} right answers"
            )
    is_first = case.metric == "accuracy" or (case.metric == "agreement" and case.base is None)
    if is_first and lost + won > flips:
        yield f"{told}: an answer cannot turn right or wrong while the prediction stays"
    if case.metric == "agreement" and case.base is None and (won or lost != flips):
        yield f"{told}: under agreement each flip turns a right answer wrong"


def _of_changed(case: MeasuredCase, counts: Agreement, listed: Changed) -> Iterator[str]:
    """The list of single examples, which is whole up to `MOST_CHANGED`, against the counts."""
    path, index = "agreement.changed", listed.index
    if any(one >= other for one, other in pairwise(index)) or (index and index[-1] >= counts.examples):
        yield f"{path}.index must rise, below the {counts.examples} examples"
        return
    is_whole = len(index) < MOST_CHANGED
    pairs = list(zip(listed.before, listed.after, strict=True))
    found = {"flips": sum(before != after for before, after in pairs)}
    if listed.target is not None and case.metric == "accuracy":
        rows = list(zip(listed.target, pairs, strict=True))
        found["right_to_wrong"] = sum(before == target != after for target, (before, after) in rows)
        found["wrong_to_right"] = sum(before != target == after for target, (before, after) in rows)
    for name, count in found.items():
        told = getattr(counts, name)
        if count > told or (is_whole and count != told):
            yield f"agreement.{name} is {told}, and {path} lists {count} such examples"
    most = counts.flips + counts.right_to_wrong + counts.wrong_to_right
    if len(index) > most:
        yield f"{path} lists {len(index)} examples, and agreement counts {most} at most"


def _of_slices(case: MeasuredCase, slices: Slices) -> Iterator[str]:
    total, counts = sum(slices.examples), case.agreement
    for name, side in (("reference", case.reference), ("variant", case.variant)):
        if side is not None and side.score is not None and total != side.examples:
            yield f"slices.examples add up to {total}, and {name}.examples is {side.examples}"
    lost, won = slices.right_to_wrong, slices.wrong_to_right
    if counts is not None and (lost is None or won is None):
        yield "slices.right_to_wrong is null, but agreement counts the answers that turned"
    if lost is not None and won is not None:
        if counts is None:
            yield "slices counts answers that turned, and agreement is null"
        elif (sum(lost), sum(won)) != (counts.right_to_wrong, counts.wrong_to_right):
            yield (
                f"slices add up to {sum(lost)} right to wrong and {sum(won)} wrong to right, and agreement counts "
                f"{counts.right_to_wrong} and {counts.wrong_to_right}"
            )
        for name, examples, less, more, drop in zip(
            slices.names, slices.examples, lost, won, slices.drops, strict=True
        ):
            if drop is None or abs(drop * examples - (less - more)) > _ROUNDING:
                yield f"slices.drops of {name} is {_number(drop)}, and {less} lost and {more} won of {examples}"
    seen = case.reference.observations if case.reference is not None else None
    if slices.of_classes and seen is not None and seen.target_classes is not None and seen.rarer_targets is not None:
        rarer = total - max(slices.examples, default=0)
        if (seen.target_classes, seen.rarer_targets) != (len(slices.names), rarer):
            yield (
                f"slices tells {len(slices.names)} classes and {rarer} examples of the rarer ones, and "
                f"reference.observations {seen.target_classes} and {seen.rarer_targets}"
            )


def _of_interval(case: MeasuredCase) -> Iterator[str]:
    found, lacks = case.interval, case.interval_lacks_examples
    if case.agreement is not None and (found is not None or case.no_interval or lacks):
        yield "agreement gives the bounds of the drop, but interval, no_interval or interval_lacks_examples is set"
    if found is not None and (case.no_interval or lacks):
        yield "interval is there, but no_interval or interval_lacks_examples says that there is none"
    if found is not None and found.low > found.high:
        yield f"interval.low {_number(found.low)} is above interval.high {_number(found.high)}"
    elif found is not None and case.drop is not None:
        room = max(found.high - found.low, _ROUNDING * max(1.0, abs(case.drop)))  # a skewed score may lie beside it
        if not found.low - room <= case.drop <= found.high + room:
            yield (
                f"the scores differ by {_number(case.drop)}, far from the interval of that drop, "
                f"{_number(found.low)} to {_number(found.high)}"
            )
    if lacks and not case.no_interval:
        yield "interval_lacks_examples is true, and no_interval does not say why"


# --- weights ---------------------------------------------------------------------------------------------------------


def _of_coverage(coverage: Coverage) -> Iterator[str]:
    for index, layer in enumerate(coverage.layers):
        if not 0 <= layer.changed_bytes <= layer.weight_bytes:
            yield f"coverage.layers[{index}]: {layer.changed_bytes} of {layer.weight_bytes} bytes cannot be changed"
        if layer.multiply_adds < 0 or layer.changed_multiply_adds not in (0, layer.multiply_adds):
            yield (
                f"coverage.layers[{index}]: of {layer.multiply_adds} multiply-adds a recipe changes all or none, not "
                f"{layer.changed_multiply_adds}"
            )
    for index, step in enumerate(coverage.steps):
        if not 0 <= step.changed_bytes <= step.weight_bytes:
            yield f"coverage.steps[{index}]: {step.changed_bytes} of {step.weight_bytes} bytes cannot be changed"
    first = coverage.steps[0] if coverage.steps else None
    if first is not None and first.weight_bytes != coverage.weight_bytes:
        yield (
            f"coverage.steps[0].weight_bytes is {first.weight_bytes}, and coverage.layers add up to "
            f"{coverage.weight_bytes}"
        )
    if first is not None and len(coverage.steps) == 1 and first.changed_bytes != coverage.changed_bytes:
        yield (
            f"coverage.steps[0].changed_bytes is {first.changed_bytes}, and coverage.layers add up to "
            f"{coverage.changed_bytes}"
        )


# --- waivers ---------------------------------------------------------------------------------------------------------


def _of_waivers(case: MeasuredCase, started: str) -> str:
    """A waiver that had run out when the run began: a budgets file that holds one is refused."""
    try:
        day = datetime.date.fromisoformat(started[:10]) - datetime.timedelta(days=1)  # it was read where midnight was
    except (ValueError, OverflowError):
        return ""
    for limit in case.limits:
        if limit.waiver is not None and datetime.date.fromisoformat(limit.waiver.until) < day:
            return f"the waiver of {limit.name} holds until {limit.waiver.until}, and the run started on {started[:10]}"
    return ""


def _number(value: float | None) -> str:
    return "null" if value is None else f"{value:.10g}"
