"""The same answers beside the wrong targets: what a score owes to which answer belongs to which example.

The outputs are moved on by one example. A score that is no better than that one says nothing of the answers. Two more
wrong pairings tell metrics that look at no single pair: see `Pairing`. No forward pass is made for any of them.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from pytest_modelopt.measuring.protocol import VariantError, error_text
from pytest_modelopt.measuring.worker.calls.structure import own, tensors_in
from pytest_modelopt.measuring.worker.metrics.entries import joined, pick
from pytest_modelopt.measuring.worker.metrics.scorer import Batch, Score, Scorer
from pytest_modelopt.measuring.worker.source_loading import same_random_state
from pytest_modelopt.results.wrong_pairs import Pairing, is_better

MOST_EXAMPLES = 10_000
"""The first ones of the data, which are scored in wrong pairs, too: more would take time and show nothing else."""
_GROUP = 16
"""Batches of a single example that change their targets with each other."""


def moved(count: int, by: int) -> list[int]:
    """Which target stands beside each of `count` answers that are moved on by so many examples."""
    return [(position + by) % count for position in range(count)]


class Paired:
    """A scorer, and copies of it that see the same outputs beside other targets: batch by batch, nothing is kept."""

    def __init__(self, scorer: Scorer, make: Callable[[], Scorer], *, higher_is_better: bool) -> None:
        self._scorer = scorer
        self._higher_is_better = higher_is_better
        self._shifted, self._further, self._one_answer = make(), make(), make()
        self._distances = Distances()
        self._first: Any = None
        self._singles: list[tuple[Any, Batch]] = []
        self._examples = 0
        self._score: float | None = None
        """Of the examples that are scored in wrong pairs, where these are not all."""
        self._why_not = ""

    def add(self, outputs: Any, batch: Batch) -> None:
        self._scorer.add(outputs, batch)
        if self._why_not or self._examples >= MOST_EXAMPLES or batch.targets is None:
            return
        with attempted(self._give_up):
            count = len(batch.targets)  # of what `prepare` made there may be more or fewer than examples
            self._examples += batch.examples
            batch = replace(batch, slices=None)
            if self._first is None:
                self._first = own(pick(joined([outputs], [count]), [0]))
            if batch.examples > 1:
                self._add([(outputs, batch)])
            else:
                self._singles.append((own(outputs), batch))
                if len(self._singles) == _GROUP:
                    self._flush()
            if self._examples >= MOST_EXAMPLES:
                self._score = self._scorer.score(0).value

    def score(self, slices: int) -> Score:
        found = self._scorer.score(slices)
        with attempted(self._give_up):
            if self._examples > 1 and not self._why_not:
                self._flush()
                score = found.value if self._score is None else self._score
                found.pairing = self._pairing(score)
        found.why_unpaired = self._why_not
        return found

    def _give_up(self, why: str) -> None:
        self._why_not = why

    def _flush(self) -> None:
        if self._singles:
            self._add(self._singles)
        self._singles = []

    def _add(self, batches: Sequence[tuple[Any, Batch]]) -> None:
        """Of one batch, or of several with one example each."""
        for scorer, by in ((self._shifted, 1), (self._further, 2)):
            for outputs, batch in _moved(batches, by):
                scorer.add(outputs, batch)
        for _, batch in batches:
            assert batch.targets is not None
            self._one_answer.add(pick(self._first, [0] * len(batch.targets)), batch)
        targets = batches[0][1].targets if len(batches) == 1 else [batch.targets for _, batch in batches]
        assert targets is not None
        self._distances.add(targets, len(targets))

    def _pairing(self, score: float | None) -> Pairing | None:
        if score is None:
            return None
        scorers = (self._shifted, self._further, self._one_answer)
        shifted, *others = (lambda each=each: each.score(0).value for each in scorers)
        return _made(score, self._examples, (shifted, *others), self._distances, higher=self._higher_is_better)


@contextlib.contextmanager
def attempted(tell: Callable[[str], None]) -> Iterator[None]:
    """What goes wrong with wrong pairs, and what is drawn at random for them, costs the score nothing."""
    with same_random_state():
        try:
            yield
        except Exception as error:
            tell(error_text(error))


def _moved(batches: Sequence[tuple[Any, Batch]], by: int) -> list[tuple[Any, Batch]]:
    if len(batches) > 1:
        targets = [batches[position][1].targets for position in moved(len(batches), by)]
        return [(outputs, replace(batch, targets=t)) for (outputs, batch), t in zip(batches, targets, strict=True)]
    outputs, batch = batches[0]
    assert batch.targets is not None
    return [(outputs, replace(batch, targets=_pick_targets(batch.targets, batch.examples, by)))]


def _pick_targets(targets: Any, examples: int, by: int) -> Any:
    """Of several targets for each example, as tokens in one row, those of whole examples move."""
    count = len(targets)
    each = count // examples if count % examples == 0 else 1
    return pick(targets, moved(count, by * max(1, each)))


def pairing_of_all(
    score_of: Callable[[Any, Any], float],
    outputs: Any,
    targets: Any,
    count: int,
    score: float,
    *,
    higher_is_better: bool,
) -> Pairing | None:
    """Of a function of all outputs and all targets, which hold `count` entries each and have the score `score`."""
    used = min(count, MOST_EXAMPLES)
    if count < 2:
        return None
    if used < count:
        outputs, targets = pick(outputs, range(used)), pick(targets, range(used))
        score = score_of(outputs, targets)
    distances = Distances()
    distances.add(targets, used)
    ways = (
        lambda: score_of(outputs, pick(targets, moved(used, 1))),
        lambda: score_of(outputs, pick(targets, moved(used, 2))),
        lambda: score_of(pick(outputs, [0] * used), targets),
    )
    return _made(score, used, ways, distances, higher=higher_is_better)


def _made(
    score: float, examples: int, ways: Sequence[Callable[[], float | None]], distances: Distances, *, higher: bool
) -> Pairing | None:
    """The scores of wrong pairs; of all but the first one only where that is as good as the true one."""
    shifted, further, one_answer = ways
    value = shifted()
    if value is None or not math.isfinite(distances.neighbours + distances.others):
        return None
    found = Pairing(
        examples, score, value, changed=distances.changed, neighbours=distances.neighbours, others=distances.others
    )
    if is_better(score, value, higher_is_better=higher):
        return found
    return replace(found, shifted_further=_or_none(further), one_answer=_or_none(one_answer))


def _or_none(way: Callable[[], float | None]) -> float | None:
    try:
        return way()
    except VariantError:
        return None


# --- targets ---------------------------------------------------------------------------------------------------------


class Distances:
    """How far the targets of neighbours lie apart, and those of other examples: sums over the batches."""

    def __init__(self) -> None:
        self.neighbours = self.others = 0.0
        self.changed = 0
        """Examples whose target is not that of the next one."""

    def add(self, targets: Any, count: int) -> None:
        if not isinstance(targets, torch.Tensor):
            targets = [pick(targets, [position]) for position in range(count)]
        neighbours = self._each(targets, moved(count, 1))
        self.neighbours += math.fsum(neighbours)
        self.changed += sum(each > 0 for each in neighbours)
        self.others += math.fsum(self._each(targets, moved(count, max(1, count // 2))))

    def _each(self, targets: Any, beside: list[int]) -> list[float]:
        if isinstance(targets, torch.Tensor):
            difference = (targets[beside].double() - targets.double()).abs().nan_to_num()
            each: list[float] = difference.reshape(len(targets), -1).mean(dim=1).tolist() if difference.numel() else []
            return each
        return [_apart(one, targets[other]) for one, other in zip(targets, beside, strict=True)]


def _apart(one: Any, other: Any) -> float:
    """From 0, the same, to 1: of numbers in the same shapes by how much they differ, else whether they do."""
    ours, theirs = ([each.double().flatten() for each in tensors_in(side)] for side in (one, other))
    if ours and [len(each) for each in ours] == [len(each) for each in theirs]:
        a, b = torch.cat(ours), torch.cat(theirs)
        scale = float((a.abs() + b.abs()).sum())
        return float((a - b).abs().sum()) / scale if scale else 0.0
    if ours or theirs:
        return 1.0
    if isinstance(one, (int, float)) and isinstance(other, (int, float)) and (one or other):
        return abs(one - other) / (abs(one) + abs(other))
    return float(one != other)
