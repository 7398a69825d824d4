"""What there is to know about each recipe, in words: `pytest-modelopt recipes`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pytest_modelopt.optimizing.expression import allowed
from pytest_modelopt.optimizing.recipe import Recipe


def listing(recipes: Iterable[type[Recipe]]) -> Iterator[str]:
    """For each recipe: what it does, its parameters, what it needs, and whether this machine can run it. Lines of text.

    May import torch, to ask for the abilities of the processor and the GPU.
    """
    for recipe in recipes:
        yield from described(recipe)
        yield f"    runs here: {availability(recipe)}"


def described(recipe: type[Recipe]) -> Iterator[str]:
    """What is the same on every machine."""
    yield f"{recipe.recipe_name}: {recipe.summary}"
    for name, field in recipe.model_fields.items():
        meaning = f": {field.description}" if field.description else ""
        given = f"{name}={_default(field.default)}" if field.default is not None else name
        yield f"    {given} ({allowed(field.annotation, field.metadata)}){meaning}"
    yield f"    changes {', '.join(recipe.changes) or 'the model as a whole'}"
    if recipe.needs_calibration:
        yield "    needs calibration data"
    if recipe.extra:
        yield f"    needs the extra {recipe.extra}"


def availability(recipe: type[Recipe]) -> str:
    """'yes', 'yes, on cuda', or 'no' with the reason."""
    lacking = recipe.missing()
    if lacking:
        return f"no: {lacking}"
    reasons = {device: recipe.unfit(device) for device in recipe.devices}
    fit = [device for device, reason in reasons.items() if not reason and (device == "cpu" or has_gpu())]
    if fit:
        return "yes" if "cpu" in fit else f"yes, on {' and '.join(fit)}"
    told = [reason for reason in reasons.values() if reason]
    return f"no: {told[0] if told else 'torch finds no GPU here'}"


def _default(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "''" if value == "" else str(value)


def has_gpu() -> bool:
    """Whether torch finds one; imports torch."""
    import torch

    return bool(torch.cuda.is_available())
