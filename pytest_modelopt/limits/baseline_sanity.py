"""When the original is so wrong that a limit relative to it says nothing: then that limit must not be kept.

A drop needs an original that is better than guessing; flips need one that tells classes apart. Data with a single
class can show neither, and nothing is said about it.
"""

from __future__ import annotations

from pytest_modelopt.results.case import MeasuredCase
from pytest_modelopt.results.metric import MetricSpec, is_share
from pytest_modelopt.results.observations import Observations
from pytest_modelopt.results.verdicts import Reason
from pytest_modelopt.results.wrong_pairs import Pairing, is_better, is_equal
from pytest_modelopt.statistics.proportions import share_bounds

FEW_EXAMPLES = 5
"""Examples of rarer classes from which on a model that never answers with one of them is told to be constant, and
examples with another target than the next one from which on wrong pairs say something."""
ENOUGH_EXAMPLES = 30
"""From here on an original has to be better than guessing beyond chance; fewer examples could hardly show that."""
_ALIKE = 0.5
"""Neighbours whose targets differ by this share of what others differ by are sorted, or follow each other in time."""


def why_worthless(case: MeasuredCase) -> Reason | None:
    """Why nothing can be lost from the original's score, whatever the metric is; None where it can."""
    constant = constant_answers(case) if _first_counts(case) else None
    return constant or worst_score(case) or chance_score(case) or unpaired_score(case)


def worst_score(case: MeasuredCase) -> Reason | None:
    """Where the original has the worst score that there is, as far as that is known."""
    side = case.reference
    if side is None or side.score is None or case.metric == "agreement":
        return None
    worst = side.observations.worst_score if side.observations is not None else None
    if worst is None and is_share(case.metric):
        worst = 0.0
    if worst is None or side.score != worst:
        return None
    return Reason("original-worst", {"score": side.score})


def unpaired_score(case: MeasuredCase) -> Reason | None:
    """Where the original's answers score no better beside their own targets than beside those of the next examples.

    Nobody can tell where hardly any neighbour has another target, where neighbours are more alike than others, or where
    the metric looks at no single pair: then it gives the same for all pairs of the same answers and targets, and
    something else for other answers.
    """
    seen = case.reference.observations if case.reference is not None else None
    found = seen.pairing if seen is not None else None
    if found is None or found.changed < FEW_EXAMPLES or found.neighbours <= _ALIKE * found.others:
        return None
    if is_better(found.score, found.shifted, higher_is_better=case.higher_is_better):
        return None
    if is_equal(found.score, found.shifted) and not _depends_on_pairs(found):
        return None
    return Reason("original-unpaired", {"score": found.score, "shifted": found.shifted, "examples": found.examples})


def _depends_on_pairs(found: Pairing) -> bool:
    """Of answers that score the same beside the targets of the next examples."""
    if found.shifted_further is None or found.one_answer is None:
        return False
    if not is_equal(found.score, found.shifted_further):
        return True
    return is_equal(found.score, found.one_answer)  # whatever the answers are, the score is the same


def constant_answers(case: MeasuredCase) -> Reason | None:
    """Where the original predicts one class only, and there are several."""
    seen = _seen(case)
    if seen is None or seen.predicted_classes != 1 or (seen.rarer_targets or 0) < FEW_EXAMPLES:
        return None  # to miss the one rare example that there is shows nothing
    return Reason("original-constant", {"classes": seen.target_classes})


def chance_score(case: MeasuredCase) -> Reason | None:
    """Where the original is right no more often than guessing among the classes of the data, beyond chance."""
    seen, guesses = _seen(case), _guesses(case)
    if seen is None or guesses is None or seen.target_classes is None:
        return None
    if case.reference is None or case.reference.score is None or case.agreement is None or not case.agreement.examples:
        return None
    classes = max(seen.target_classes, seen.output_classes or 0)  # the data may show a few of those that it knows
    score, examples = case.reference.score, case.agreement.examples
    right = round(score * examples)
    is_more = right * classes > guesses * examples
    if is_more and (
        examples < ENOUGH_EXAMPLES or right > examples or share_bounds(right, examples)[0] * classes > guesses
    ):
        return None
    return Reason(
        "original-chance",
        {"score": score, "examples": examples, "guesses": guesses, "classes": classes, "is_more": is_more},
    )


def majority_score(case: MeasuredCase) -> Reason | None:
    """Where the most frequent class as the answer to everything would be right as often as the original.

    That makes no limit useless: a model that finds rare classes may well be right less often than that. But a drop then
    cannot show a variant that finds none of them any more.
    """
    seen = _seen(case)
    if not _first_counts(case) or seen is None or case.reference is None or case.reference.score is None:
        return None
    rarer, examples = seen.rarer_targets or 0, case.reference.examples
    if rarer < FEW_EXAMPLES or round(case.reference.score * examples) > examples - rarer:
        return None
    return Reason("original-majority", {"score": case.reference.score, "majority": 1 - rarer / examples})


def _guesses(case: MeasuredCase) -> int | None:
    """How many classes the metric lets the model name for each example; None where it is no matter of classes."""
    return MetricSpec(case.metric).top_k if case.metric is not None else None


def _first_counts(case: MeasuredCase) -> bool:
    """Whether only the first class that the model names can be right."""
    return _guesses(case) == 1


def _seen(case: MeasuredCase) -> Observations | None:
    """What was seen of the original's predictions against targets; None where the data has fewer than two classes."""
    seen = case.reference.observations if case.reference is not None else None
    if case.agreement is None or case.metric == "agreement" or seen is None:
        return None
    if seen.target_classes is None or seen.target_classes < 2:
        return None
    return seen
