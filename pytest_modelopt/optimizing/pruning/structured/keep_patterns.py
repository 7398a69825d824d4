"""Layers that the user names to be spared: module names and glob patterns, separated by commas."""

from __future__ import annotations

import difflib
import fnmatch
from typing import TYPE_CHECKING

from pytest_modelopt.optimizing.recipe import RecipeError

if TYPE_CHECKING:
    from torch import nn


def patterns(text: str) -> tuple[str, ...]:
    """The patterns in `keep`.

    Raises:
        ValueError: if nothing stands between two commas.
    """
    parts = tuple(part.strip() for part in text.split(",")) if text else ()
    if not all(parts):
        raise ValueError("nothing stands before or after a comma; write for example keep='stem,blocks.*.depthwise'")
    return parts


def excluded_modules(model: nn.Module, text: str) -> set[nn.Module]:
    """The modules that `text` names, and all within them.

    Raises:
        RecipeError: if a pattern matches no module, with the nearest name.
    """
    names = {name: module for name, module in model.named_modules(remove_duplicate=False) if name}
    spared: set[nn.Module] = set()
    for pattern in patterns(text):
        matched = [module for name, module in names.items() if fnmatch.fnmatchcase(name, pattern)]
        if not matched:
            near = difflib.get_close_matches(pattern, names, n=1, cutoff=0)
            hint = f"; the nearest name is {near[0]!r}" if near else ""
            raise RecipeError(f"prune-structured: keep names {pattern!r}, and the model has no such module{hint}")
        for module in matched:
            spared.update(module.modules())
    return spared
