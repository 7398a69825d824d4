"""The score of the same answers beside the wrong targets, against the definition: a second call of the metric."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torchmetrics import regression, text

from pytest_modelopt.measuring.worker.metrics import wrong_pairings
from pytest_modelopt.measuring.worker.metrics.classification import Classification
from pytest_modelopt.measuring.worker.metrics.functions import PerExample, WholeSet
from pytest_modelopt.measuring.worker.metrics.scored_outputs import Prepared
from pytest_modelopt.measuring.worker.metrics.scorer import Scorer
from pytest_modelopt.measuring.worker.metrics.torchmetrics import ClassMetric, Sums
from pytest_modelopt.measuring.worker.metrics.wrong_pairings import Distances, Paired
from pytest_modelopt.results.wrong_pairs import Pairing
from tests.measuring.answering import answer

COUNT = 48
"""Divides into batches of every size that is tried, so that within each the last answer meets the first target."""
CLASSES = torch.randint(5, (COUNT,), generator=torch.Generator().manual_seed(1))
SCORES = torch.randn(COUNT, 5, generator=torch.Generator().manual_seed(0))
VECTORS = torch.randn(COUNT, 5, generator=torch.Generator().manual_seed(2))


def accuracy(outputs: torch.Tensor, targets: torch.Tensor) -> float:
    return float((outputs.argmax(1) == targets).double().mean())


def distance(outputs: torch.Tensor, targets: torch.Tensor) -> float:
    return float((outputs - targets).abs().double().mean())


def each_distance(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (outputs - targets).abs().double().mean(dim=1)


def mae() -> ClassMetric:
    return ClassMetric(Sums(regression.MeanAbsoluteError()), "MAE", None, is_prepared=False)


KINDS: dict[str, tuple[Callable[[], Scorer], torch.Tensor, Callable[..., float], bool]] = {
    "accuracy": (
        lambda: Paired(*_two(lambda: Classification(1, "accuracy")), higher_is_better=True),
        CLASSES,
        accuracy,
        True,
    ),
    "each": (
        lambda: Paired(*_two(lambda: PerExample(each_distance, "m:f")), higher_is_better=False),
        VECTORS,
        distance,
        False,
    ),
    "class": (lambda: Paired(*_two(mae), higher_is_better=False), VECTORS, distance, False),
    "whole": (lambda: WholeSet(distance, "m:f", is_prepared=False, higher_is_better=False), VECTORS, distance, False),
}


def _two(make: Callable[[], Scorer]) -> tuple[Scorer, Callable[[], Scorer]]:
    return make(), make


def moved(targets: torch.Tensor, by: int, size: int) -> torch.Tensor:
    """Batch by batch, the targets that the outputs stand beside when they are moved on."""
    return torch.cat([part.roll(-by, dims=0) for part in targets.split(size)])  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 3, 16, 48])
def test_wrong_pairs_have_the_scores_that_the_metric_gives_them(kind: str, size: int) -> None:
    make, targets, function, higher = KINDS[kind]
    found = answer(SCORES, targets, make(), size=size)
    assert found.why_unpaired == ""
    together = COUNT if kind == "whole" else max(size, 16) if size == 1 else size
    assert found.pairing is not None
    assert found.pairing.score == found.score == pytest.approx(function(SCORES, targets))
    assert found.pairing.shifted == pytest.approx(function(SCORES, moved(targets, 1, together)), rel=1e-6)
    assert found.pairing.examples == COUNT
    is_better = (function(SCORES, targets) > found.pairing.shifted) == higher
    if not is_better:
        assert found.pairing.shifted_further == pytest.approx(function(SCORES, moved(targets, 2, together)), rel=1e-6)
        assert found.pairing.one_answer == pytest.approx(function(SCORES[:1].expand(COUNT, 5), targets), rel=1e-6)
    else:
        assert (found.pairing.shifted_further, found.pairing.one_answer) == (None, None)


def test_both_cases_were_tried() -> None:
    """Of random scores, some are better than with their pairs moved on and some are not."""
    made = [answer(SCORES, targets, make(), size=16).pairing for make, targets, _, _ in KINDS.values()]
    assert {each is not None and each.one_answer is None for each in made} == {True, False}


def test_beyond_the_bound_nothing_is_scored_in_wrong_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wrong_pairings, "MOST_EXAMPLES", 20)
    for kind, used in (("each", 24), ("accuracy", 24), ("whole", 20)):
        make, targets, function, _ = KINDS[kind]
        found = answer(SCORES, targets, make(), size=8)
        assert found.score == pytest.approx(function(SCORES, targets)), "the score itself is of all examples"
        assert found.pairing is not None
        assert found.pairing.examples == used
        assert found.pairing.score == pytest.approx(function(SCORES[:used], targets[:used]))
        together = used if kind == "whole" else 8
        assert found.pairing.shifted == pytest.approx(function(SCORES[:used], moved(targets[:used], 1, together)))


def test_texts_ragged_outputs_and_what_prepare_makes() -> None:
    words = [f"{'very ' * (index % 3)}good {index}" for index in range(12)]

    def spelled(outputs: torch.Tensor, targets: Any) -> Any:
        return [words[int(index)] for index in outputs], targets

    def scorer() -> Scorer:
        return ClassMetric(Sums(text.WordErrorRate()), "WER", None, is_prepared=True)

    found = answer(torch.arange(12), words, Prepared(Paired(*_two(scorer), higher_is_better=False), spelled, "m:p"))
    expected: Any = pytest.approx(float(text.WordErrorRate()(words, words[1:] + words[:1])))
    assert found.score == 0.0
    assert found.pairing == Pairing(12, 0.0, expected, changed=12, neighbours=12.0, others=12.0)


def test_what_fails_in_wrong_pairs_only_costs_nothing() -> None:
    def picky(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if not torch.equal(outputs, targets):
            raise ValueError("no such pair")
        return torch.ones(len(targets))

    table = torch.arange(10.0)
    each = Paired(*_two(lambda: PerExample(picky, "m:f")), higher_is_better=True)
    for scorer in (each, WholeSet(lambda o, t: picky(o, t).mean(), "m:f", is_prepared=False, higher_is_better=True)):
        found = answer(table, table, scorer, size=5)
        assert (found.score, found.pairing) == (1.0, None)
        assert "no such pair" in found.why_unpaired


def test_numbers_that_no_sum_holds_leave_a_record_that_can_be_written() -> None:
    huge = torch.full((10, 1), 1.7e308, dtype=torch.float64) * torch.tensor([[1.0], [-1.0]]).repeat(5, 1)
    each = PerExample(lambda outputs, targets: torch.ones(len(targets)), "m:f")
    found = answer(huge, huge, Paired(each, lambda: PerExample(each_distance, "m:f"), higher_is_better=True))
    assert (found.score, found.pairing, found.spread) == (1.0, None, None)


def test_a_single_example_has_no_other_target() -> None:
    for kind, (make, targets, _, _) in KINDS.items():
        assert answer(SCORES[:1], targets[:1], make()).pairing is None, kind


def test_random_numbers_of_the_metric_are_not_missing_elsewhere() -> None:
    def noisy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return torch.rand(len(targets))

    after = []
    for scorer in (PerExample(noisy, "m:f"), Paired(*_two(lambda: PerExample(noisy, "m:f")), higher_is_better=True)):
        torch.manual_seed(0)
        answer(SCORES, CLASSES, scorer, size=8)
        after.append(float(torch.rand(1)))
    assert after[0] == after[1]


# --- how far targets lie apart ---------------------------------------------------------------------------------------


def apart(targets: Any) -> float:
    distances = Distances()
    distances.add(targets, len(targets))
    return distances.neighbours / distances.others if distances.others else 0.0


def test_examples_beside_whose_answer_another_target_comes_are_counted() -> None:
    cases: list[tuple[Any, int]] = [
        (torch.tensor([0, 0, 1, 0, 0]), 2),
        (["a", "b", "b"], 2),
        (torch.arange(4.0), 4),
        ([1], 0),
    ]
    for targets, changed in cases:
        distances = Distances()
        distances.add(targets, len(targets))
        assert distances.changed == changed


def test_sorted_targets_and_series_are_known_by_their_neighbours() -> None:
    labels = torch.randint(10, (400,), generator=torch.Generator().manual_seed(0))
    assert apart(labels) == pytest.approx(1.0, abs=0.15)
    assert apart(labels.sort().values) < 0.1
    assert apart([str(int(label)) for label in labels.sort().values]) < 0.1
    assert apart([str(int(label)) for label in labels]) == pytest.approx(1.0, abs=0.1)
    walk = torch.randn(400, 3, generator=torch.Generator().manual_seed(0)).cumsum(0)
    assert apart(walk) < 0.3
    assert apart([{"box": row} for row in walk]) < 0.3
    assert apart(list(torch.randn(400, 3, generator=torch.Generator().manual_seed(0)))) == pytest.approx(1.0, abs=0.1)
    assert apart(torch.ones(9)) == apart(["cat"] * 9) == 0.0
