"""When the original is so wrong that a limit relative to it says nothing: then that limit must not be kept.

A drop needs an original that is better than guessing; flips need one that tells classes apart. Data with a single
class can show neither, and nothing is said about it.
"""

from __future__ import annotations

from pytest_modelopt.limits.verdict_text import side_names
from pytest_modelopt.results.figures import format_number, format_percentage
from pytest_modelopt.results.metric import MetricSpec, in_unit_interval, is_share
from pytest_modelopt.results.observations import Observations
from pytest_modelopt.results.record import Case
from pytest_modelopt.results.wrong_pairs import Pairing, is_better, is_equal
from pytest_modelopt.statistics.proportions import share_bounds

FEW_EXAMPLES = 5
"""Examples of rarer classes from which on a model that never answers with one of them is told to be constant, and
examples with another target than the next one from which on wrong pairs say something."""
ENOUGH_EXAMPLES = 30
"""From here on an original has to be better than guessing beyond chance; fewer examples could hardly show that."""
_ALIKE = 0.5
"""Neighbours whose targets differ by this share of what others differ by are sorted, or follow each other in time."""


def is_worthless(case: Case) -> str:
    """Whether nothing can be lost from the original's score, whatever the metric is."""
    constant = is_constant(case) if _first_counts(case) else ""
    return constant or is_worst(case) or is_chance(case) or is_unpaired(case)


def is_worst(case: Case) -> str:
    """Whether the original has the worst score that there is, as far as that is known."""
    side = case.original
    if side is None or side.score is None or case.metric == "agreement":
        return ""
    worst = side.observations.worst_score if side.observations is not None else None
    if worst is None and is_share(case.metric):
        worst = 0.0
    if worst is None or side.score != worst:
        return ""
    return (
        f"the {side_names(case)[0]} itself scores {_told(case, side.score)}, the worst that {case.metric} can give, "
        "and from there nothing can drop"
    )


def is_unpaired(case: Case) -> str:
    """Whether the original's answers score no better beside their own targets than beside those of the next examples.

    Nobody can tell where hardly any neighbour has another target, where neighbours are more alike than others, or where
    the metric looks at no single pair: then it gives the same for all pairs of the same answers and targets, and
    something else for other answers.
    """
    seen = case.original.observations if case.original is not None else None
    found = seen.pairing if seen is not None else None
    if found is None or found.changed < FEW_EXAMPLES or found.neighbours <= _ALIKE * found.others:
        return ""
    if is_better(found.score, found.shifted, higher_is_better=case.higher_is_better):
        return ""
    if is_equal(found.score, found.shifted) and not _depends_on_pairs(found):
        return ""
    return (
        f"the {side_names(case)[0]} itself scores {_told(case, found.score)}, and {_told(case, found.shifted)} with "
        f"each answer beside the target of the next example ({found.examples:,} examples): the score does not tell "
        "right answers from others, so no drop means anything"
    )


def _depends_on_pairs(found: Pairing) -> bool:
    """Of answers that score the same beside the targets of the next examples."""
    if found.shifted_further is None or found.one_answer is None:
        return False
    if not is_equal(found.score, found.shifted_further):
        return True
    return is_equal(found.score, found.one_answer)  # whatever the answers are, the score is the same


def is_constant(case: Case) -> str:
    """Whether the original predicts one class only, where there are several."""
    seen = _seen(case)
    if seen is None or seen.predicted_classes != 1 or (seen.rarer_targets or 0) < FEW_EXAMPLES:
        return ""  # to miss the one rare example that there is shows nothing
    return f"the {side_names(case)[0]} predicts the same class for every example, of {seen.target_classes} classes"


def is_chance(case: Case) -> str:
    """Whether the original is right no more often than guessing among the classes of the data, beyond chance."""
    seen, guesses = _seen(case), _guesses(case)
    if seen is None or guesses is None or seen.target_classes is None:
        return ""
    if case.original is None or case.original.score is None or case.agreement is None or not case.agreement.examples:
        return ""
    classes = max(seen.target_classes, seen.output_classes or 0)  # the data may show a few of those that it knows
    score, examples = case.original.score, case.agreement.examples
    right = round(score * examples)
    is_more = right * classes > guesses * examples
    if is_more and examples >= ENOUGH_EXAMPLES and right <= examples:
        is_more = share_bounds(right, examples)[0] * classes > guesses
    if is_more:
        return ""
    than = "no more than" if right * classes <= guesses * examples else "not clearly more than"
    among = f"guessing among {classes} classes" if guesses == 1 else f"{guesses} guesses among {classes} classes"
    return (
        f"the {side_names(case)[0]} itself is right on {format_percentage(score)} of the {examples:,} examples, {than} "
        f"{among}, and from there no drop means anything"
    )


def is_majority(case: Case) -> str:
    """Whether the most frequent class as the answer to everything would be right as often as the original.

    That makes no limit useless: a model that finds rare classes may well be right less often than that. But a drop then
    cannot show a variant that finds none of them any more.
    """
    seen = _seen(case)
    if not _first_counts(case) or seen is None or case.original is None or case.original.score is None:
        return ""
    rarer, examples = seen.rarer_targets or 0, case.original.examples
    if rarer < FEW_EXAMPLES or round(case.original.score * examples) > examples - rarer:
        return ""
    return (
        f"the original is right on {format_percentage(case.original.score)} of the examples, and the most frequent "
        f"class as the answer to all of them would be right on {format_percentage(1 - rarer / examples)}"
    )


def _told(case: Case, score: float) -> str:
    return (format_percentage if in_unit_interval(case.metric) else format_number)(score, digits=4)


def _guesses(case: Case) -> int | None:
    """How many classes the metric lets the model name for each example; None where it is no matter of classes."""
    return MetricSpec(case.metric).top_k if case.metric is not None else None


def _first_counts(case: Case) -> bool:
    """Whether only the first class that the model names can be right."""
    return _guesses(case) == 1


def _seen(case: Case) -> Observations | None:
    """What was seen of the original's predictions against targets; None where the data has fewer than two classes."""
    seen = case.original.observations if case.original is not None else None
    if case.agreement is None or case.metric == "agreement" or seen is None:
        return None
    if seen.target_classes is None or seen.target_classes < 2:
        return None
    return seen
