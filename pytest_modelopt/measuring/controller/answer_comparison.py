"""Two variants' answers on the same examples, put side by side: what changed, where, and in which slices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pytest_modelopt.measuring.protocol import Answers, Examples
from pytest_modelopt.results.answers import MOST_CHANGED, MOST_SLICES, Agreement, Changed, Slices
from pytest_modelopt.results.generation import TokenAgreement


def compare(before: Answers, after: Answers) -> Agreement | None:
    """The predictions one by one; None where the metric is not right-or-wrong, or the examples are not the same."""
    if before.data_fingerprint != after.data_fingerprint:
        return None
    if before.predictions is None or after.predictions is None or before.correct is None or after.correct is None:
        return None
    pairs = list(zip(before.predictions, after.predictions, before.correct, after.correct, strict=True))
    changed = [index for index, (a, b, was, now) in enumerate(pairs) if a != b or was != now]
    listed = changed[:MOST_CHANGED]
    return Agreement(
        examples=before.examples,
        right_to_wrong=sum(was > now for _, _, was, now in pairs),
        wrong_to_right=sum(was < now for _, _, was, now in pairs),
        flips=sum(a != b for a, b, _, _ in pairs),
        changed=Changed(
            index=tuple(listed),
            target=None if before.targets is None else tuple(before.targets[index] for index in listed),
            before=tuple(before.predictions[index] for index in listed),
            after=tuple(after.predictions[index] for index in listed),
        ),
    )


def compare_tokens(before: Answers, after: Answers) -> TokenAgreement | None:
    """The next tokens one by one; None where the model does not generate, or the sequences are not the same."""
    then, now = before.tokens, after.tokens
    if then is None or now is None or before.data_fingerprint != after.data_fingerprint:
        return None
    changed = [a != b for a, b in zip(then.most_probable, now.most_probable, strict=True)]
    flips = [sum(changed[start : start + now.positions]) for start in range(0, len(changed), now.positions)]
    return TokenAgreement(len(flips), now.positions, sum(flips), sum(each * each for each in flips), now.divergence)


def slices(before: Answers, after: Answers, data: Examples | None, *, higher_is_better: bool) -> Slices | None:
    """The comparison by the project's slices, or, for a classifier without these, by the classes of the targets."""
    if before.data_fingerprint != after.data_fingerprint:
        return None
    named = data is not None and data.slice_of is not None
    if before.correct is None or after.correct is None:
        return _scored(before, after, data, higher_is_better) if data is not None and named else None
    if data is not None and data.slice_of is not None:
        return _counted(data.slice_names, data.slice_of, before.correct, after.correct, of_classes=False)
    if before.targets is None:
        return None
    labels = sorted(set(before.targets))
    if len(labels) > MOST_SLICES:
        return None
    position = {label: index for index, label in enumerate(labels)}
    of = [position[target] for target in before.targets]
    return _counted([str(label) for label in labels], of, before.correct, after.correct, of_classes=True)


def _counted(names: Sequence[str], of: Sequence[int], was: bytes, now: bytes, *, of_classes: bool) -> Slices:
    examples, lost, won = ([0] * len(names) for _ in range(3))
    for index, before, after in zip(of, was, now, strict=True):
        examples[index] += 1
        lost[index] += before > after
        won[index] += before < after
    drops = tuple((less - more) / count for count, less, more in zip(examples, lost, won, strict=True))
    return Slices(tuple(names), of_classes, tuple(examples), drops, tuple(lost), tuple(won))


def _scored(before: Answers, after: Answers, data: Examples, higher_is_better: bool) -> Slices | None:
    if before.slice_scores is None or after.slice_scores is None or data.slice_of is None:
        return None
    sizes = Counter(data.slice_of)
    sign = 1 if higher_is_better else -1
    drops = tuple(
        None if a is None or b is None else sign * (a - b)
        for a, b in zip(before.slice_scores, after.slice_scores, strict=True)
    )
    return Slices(data.slice_names, False, tuple(sizes[index] for index in range(len(data.slice_names))), drops)
