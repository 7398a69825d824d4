"""What every recipe is: a frozen configuration object with a name, which can be applied to a model."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict

from pytest_modelopt.recipes.calling import Inputs

if TYPE_CHECKING:
    from torch import nn

BARE_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*\Z")
"""A value that can be written without quotes."""


class RecipeError(ValueError):
    """A recipe that cannot be read or cannot be applied; the message says why, and the way out, in words."""


@dataclass(frozen=True)
class Context:
    """What a recipe may use beside the model.

    `example_inputs` is one batch. `calibration`, where the project gave any, makes a fresh iterator over batches of
    inputs. `seed` seeds torch before each step.
    """

    example_inputs: Inputs
    calibration: Callable[[], Iterator[Inputs]] | None
    seed: int


@dataclass(frozen=True)
class Applied:
    """The changed model, and plain sentences: what was skipped and why, and what the user should know."""

    model: nn.Module
    notes: tuple[str, ...] = ()


class Recipe(BaseModel):
    """One optimization by name and parameters. The fields of a subclass are its parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    recipe_name: ClassVar[str]
    summary: ClassVar[str]
    """What it does, in one line."""
    extra: ClassVar[str | None] = None
    """The pip extra of pytest-modelopt that installs what it needs."""
    devices: ClassVar[tuple[str, ...]] = ("cpu", "cuda")
    """Kinds of devices on which its variants run."""
    needs_calibration: ClassVar[bool] = False
    needs_example: ClassVar[bool] = False
    changes: ClassVar[tuple[str, ...]] = ()
    """Names of the module classes whose weights it changes, most specific words first; for messages."""
    packs_weights: ClassVar[bool] = False
    """Whether it leaves weights packed in a reduced precision, which no later recipe of ours can change."""

    @abstractmethod
    def apply(self, model: nn.Module, context: Context) -> Applied:
        """Apply to `model`, which may be changed in place, and return the changed model with notes.

        Raises:
            RecipeError: if the recipe cannot be applied to this model on this machine.
        """

    def canonical(self) -> str:
        """The one spelling of this recipe, its parameters in the order of the fields.

        A `ratio` is always spelled out, since nobody should have to know its default to read a table; the others
        where they differ from their defaults.
        """
        fields = type(self).model_fields
        given = [
            f"{name}={_spell(getattr(self, name))}"
            for name, field in fields.items()
            if name == "ratio" or getattr(self, name) != field.default
        ]
        return f"{self.recipe_name}({', '.join(given)})" if given else self.recipe_name


def _spell(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and (value in ("true", "false") or not BARE_WORD.match(value)):
        return f"'{value}'"
    return str(value)
