"""What a candidate answers to inputs that are prepared otherwise, beside the original's answers to them as they are.

Mismatched preprocessing is the commonest cause of a wrong file: one that was made for bytes is given 0 to 1, or
channels in another order. Which preparation makes it right again is tried, on a few examples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch

from pytest_modelopt.measuring.worker.calls.structure import mapped, tensors_in
from pytest_modelopt.measuring.worker.metrics.scorer import Batch
from pytest_modelopt.optimizing.calling import Inputs
from pytest_modelopt.results.observations import OtherInputs

EXAMPLES = 64
_MOST_NUMBERS = 100_000
"""Of the answers that are kept: of large ones, those to fewer examples."""
_CLOSE = 0.1
"""Of the deviation of the original's answers: numbers that agree where there are no classes."""
_CONSTANT = 0.02
"""Of that deviation: how far a difference may vary that is a constant."""
_MOST_SHIFTS = 16
_RIGHT = 0.9
"""Of the answers: with more that agree, no two changes are tried together."""
_FIRST = 8
"""Examples by which the best of many combinations is found."""
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet, with which most models of colour images are trained."""

Change = Callable[[torch.Tensor], torch.Tensor | None]
"""Of one floating-point input; None where it does not apply."""


def few(batches: Iterable[Batch]) -> Iterator[Inputs]:
    """The inputs of the first batches, until there are enough examples."""
    found = 0
    for batch in batches:
        yield batch.inputs
        found += batch.examples
        if found >= EXAMPLES:
            return


def answers(run: Callable[[Inputs], Any], inputs: Iterable[Inputs]) -> torch.Tensor:
    """What `run` gives: its `logits`, or its first tensor of floating point, one row for each example.

    Raises:
        ValueError: where there is none.
    """
    rows: list[torch.Tensor] = []
    for batch in inputs:
        outputs = run(batch)
        named = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
        numbers = (each for each in tensors_in(outputs if named is None else named) if each.is_floating_point())
        found = next((each for each in numbers if each.dim()), None)
        if found is None:
            raise ValueError("it answers with no tensor of floating point")
        rows.append(found.detach().float().clone())
    together = torch.cat(rows)[:EXAMPLES]
    return together[: max(1, _MOST_NUMBERS // max(1, together[0].numel()))]


def compare(run: Callable[[Inputs], Any], inputs: list[Inputs], expected: torch.Tensor) -> OtherInputs | None:
    """None where the answers have another form, or the original's are all alike."""
    given = answers(run, inputs)
    if given.shape != expected.shape or not bool(expected.std() > 0):
        return None
    agreeing = {"": _agreeing(given, expected)}
    for told, change in CHANGES.items():
        agreeing |= _tried(run, inputs, {told: change}, expected)
    classes = _classes(expected)
    count = len(_entries(expected))
    if max(agreeing.values()) < _RIGHT * count:
        agreeing |= _combined(run, inputs, expected)
    most = 0 if classes is None else int(classes.flatten().bincount().max())
    return OtherInputs(count, most, agreeing, _shifts(given, expected), _renamed(given, expected))


def _tried(
    run: Callable[[Inputs], Any], inputs: list[Inputs], changes: Mapping[str, Change], expected: torch.Tensor
) -> dict[str, int]:
    """How many answers agree after these changes, one after the other; nothing where one of them does not apply."""
    changed = inputs
    for change in changes.values():
        changed = list(_changed(changed, change))
        if len(changed) < len(inputs):
            return {}
    try:
        found = answers(run, changed)
    except Exception:
        return {}  # it does not take such inputs, which is no fault
    return {" and ".join(changes): _agreeing(found, expected)} if found.shape == expected.shape else {}


def _combined(run: Callable[[Inputs], Any], inputs: list[Inputs], expected: torch.Tensor) -> dict[str, int]:
    """The best of several changes together, by the first batches; told by how many of all answers agree."""
    batches = next((n for n in range(1, len(inputs)) if len(answers(run, inputs[:n])) >= _FIRST), len(inputs))
    first = expected[: len(answers(run, inputs[:batches]))]
    best: dict[str, Change] = {}
    most = 0
    for names in combinations():
        changes = {name: CHANGES[name] for name in names}
        for count in _tried(run, inputs[:batches], changes, first).values():
            if count > most:
                best, most = changes, count
    return _tried(run, inputs, best, expected) if best else {}


def _renamed(given: torch.Tensor, expected: torch.Tensor) -> tuple[tuple[int, int, int], ...]:
    ours, theirs = _classes(given), _classes(expected)
    if ours is None or theirs is None:
        return ()
    pairs, counts = torch.stack([theirs.flatten(), ours.flatten()]).unique(dim=1, return_counts=True)  # type: ignore[no-untyped-call]
    found: list[tuple[int, int, int]] = []
    for count, before, after in sorted(zip(counts.tolist(), *pairs.tolist(), strict=True), key=lambda each: -each[0]):
        if not any(before == pair[0] or after == pair[1] for pair in found):
            found.append((before, after, count))
    return tuple(sorted(found))


def _changed(inputs: Iterable[Inputs], change: Change) -> Iterator[Inputs]:
    """The batches in which there is something to change."""
    for batch in inputs:
        applied: list[bool] = []

        def each(tensor: Any, applied: list[bool] = applied) -> Any:
            is_number = isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and tensor.dim() > 1
            found = change(tensor) if is_number else None
            applied.append(found is not None)
            return tensor if found is None else found

        made = mapped(batch, each)
        if any(applied):
            yield made


def _classes(answers: torch.Tensor) -> torch.Tensor | None:
    return answers.argmax(-1) if answers.dim() > 1 and answers.shape[-1] > 1 else None


def _entries(answers: torch.Tensor) -> torch.Tensor:
    """One entry for each answer: the class, or the number where there are no classes."""
    classes = _classes(answers)
    return (answers if classes is None else classes).flatten()


def _agreeing(found: torch.Tensor, expected: torch.Tensor) -> int:
    ours, theirs = _entries(found), _entries(expected)
    if not bool(found.isfinite().all()):
        return 0
    if not theirs.is_floating_point():
        return int((ours == theirs).sum())
    return int(((ours - theirs).abs() <= _CLOSE * theirs.std()).sum())


def _shifts(given: torch.Tensor, expected: torch.Tensor) -> tuple[float, ...]:
    """By how much each number lies beside the original's, where that is the same for all examples; else nothing."""
    apart, deviation = (given - expected).flatten(1) if given.dim() > 1 else (given - expected)[:, None], expected.std()
    constant = apart.mean(0)
    varies = (apart - constant).abs().max()
    if not bool(varies <= _CONSTANT * deviation) or not bool(constant.abs().max() > _CLOSE * deviation):
        return ()
    return tuple(constant[:_MOST_SHIFTS].tolist())


# --- the preparations ------------------------------------------------------------------------------------------------


def _standardized(tensor: torch.Tensor) -> torch.Tensor | None:
    """By channel where there are some, as every recipe of training does."""
    over = [0, *range(2, tensor.dim())] if tensor.dim() > 2 else list(range(tensor.dim()))
    deviation = tensor.std(over, keepdim=True)
    return (tensor - tensor.mean(over, keepdim=True)) / deviation if bool((deviation > 0).all()) else None


def _of_imagenet(*, undone: bool) -> Change:
    def change(tensor: torch.Tensor) -> torch.Tensor | None:
        if not _is_colour(tensor):
            return None
        mean, deviation = (torch.tensor(each).view(1, 3, 1, 1).to(tensor) for each in (_MEAN, _DEVIATION))
        return tensor * deviation + mean if undone else (tensor - mean) / deviation

    return change


def _is_colour(tensor: torch.Tensor) -> bool:
    return tensor.dim() == 4 and tensor.shape[1] == 3


def _of_images(change: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    return lambda tensor: change(tensor).contiguous() if tensor.dim() == 4 else None


CHANGES: dict[str, Change] = {
    "multiplied by 255": lambda tensor: tensor * 255,
    "divided by 255": lambda tensor: tensor / 255,
    "moved from 0..1 to -1..1": lambda tensor: 2 * tensor - 1,
    "moved from -1..1 to 0..1": lambda tensor: (tensor + 1) / 2,
    "normalized by the mean and the deviation of the data": _standardized,
    "normalized by ImageNet's mean and deviation": _of_imagenet(undone=False),
    "with ImageNet's normalization undone": _of_imagenet(undone=True),
    "given with their channels reversed (BGR for RGB)": lambda tensor: tensor.flip(1) if _is_colour(tensor) else None,
    "given with their channels last (NHWC for NCHW)": _of_images(lambda tensor: tensor.permute(0, 2, 3, 1)),
    "given with their channels second (NCHW for NHWC)": _of_images(lambda tensor: tensor.permute(0, 3, 1, 2)),
    "laid out with their channels last (NHWC) in the shape that they have": _of_images(
        lambda tensor: tensor.permute(0, 2, 3, 1).reshape(tensor.shape)
    ),
    "given with rows and columns exchanged": _of_images(lambda tensor: tensor.transpose(2, 3)),
}
"""What is tried, in the words that follow 'with its inputs'."""


def combinations() -> Iterator[tuple[str, ...]]:
    """Of changes of the numbers, of the order of colours, and of the layout: what is tried together, step by step."""
    names = list(CHANGES)
    numbers, (colours, last, second, laid_out, exchanged) = names[:-5], names[-5:]
    times, divided, wide, narrow, _, normalized, freed = numbers
    scaled = [
        (),
        *((name,) for name in numbers),
        (divided, wide),
        (divided, normalized),
        (narrow, times),
        (freed, times),
    ]
    for steps in scaled:
        for ordered in ((), (colours,)):
            for layout in ((), (last,), (second,), (laid_out,), (exchanged,)):
                # Channels that stand last are put where the other changes look for them before these.
                together = (*layout, *steps, *ordered) if layout == (second,) else (*steps, *ordered, *layout)
                if len(together) > 1:
                    yield together
