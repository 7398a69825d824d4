"""What every recipe is: a frozen configuration object with a name, which can be applied to a model."""

from __future__ import annotations

import importlib.util
import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from pytest_modelopt.optimizing.calling import Inputs

if TYPE_CHECKING:
    import torch
    from torch import nn

    Step: TypeAlias = Callable[[torch.Tensor, Any], tuple[torch.Tensor, Any]]
    """(ids, cache) -> (logits of the last position, cache); the first cache is None."""

Layer = TypeVar("Layer", bound="nn.Module")
BARE_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*\Z")
"""A value that can be written without quotes."""


class RecipeError(ValueError):
    """A recipe that cannot be read or cannot be applied; the message says why, and the way out, in words."""


class NoExamplesFirst(RecipeError):
    """A converted program takes any number of examples in the first dimension of each input, and for this model that
    dimension is something else."""


@dataclass(frozen=True)
class Steps:
    """How a model is called that generates: `make` makes its function (ids, cache) -> (logits, cache). `prompts` are
    the ids (sequences, tokens) of the first call, and `calibration` gives batches of longer ones."""

    make: Callable[[nn.Module], Step]
    prompts: torch.Tensor
    calibration: Callable[[], Iterator[torch.Tensor]] | None = None


@dataclass(frozen=True)
class Context:
    """What a recipe may use beside the model.

    `example_inputs` is one batch. `calibration`, where the project gave any, makes a fresh iterator over batches of
    inputs. `seed` seeds torch before each step. `device` is where the variant will run: 'cpu' or 'cuda'.
    `varying` gives, for each tensor of a call's inputs in order, the dimensions whose size differs between the
    project's batches, the first one (the examples) aside; empty where none does. `batches` makes the inputs of these
    batches, tensors by name in the order of the example inputs.
    `training` makes the batches of calibration with their targets, for recipes that train: a tensor, or a list with one
    entry per example. Unless `targets_are_its_own`, the model is a part of what is called, and the targets belong to
    the answer of the whole.
    `kept` are the modules that `keep` names, with all within them and all that shares their weights (`LayerRecipe`).
    `steps` are those of a model that generates; None: it does not.
    `others` are further inputs on which a converted program must answer as the model does.
    """

    example_inputs: Inputs
    calibration: Callable[[], Iterator[Inputs]] | None
    seed: int
    device: str = "cpu"
    varying: Callable[[], tuple[frozenset[int], ...]] = tuple
    batches: Callable[[], Iterable[Inputs]] = tuple
    training: Callable[[], Iterator[tuple[Inputs, torch.Tensor | list[Any]]]] | None = None
    targets_are_its_own: bool = True
    kept: frozenset[nn.Module] = frozenset()
    steps: Steps | None = None
    others: tuple[Inputs, ...] = ()

    def free(self, modules: Iterable[Layer]) -> list[Layer]:
        """Those of `modules` that may be changed, in order."""
        return [module for module in modules if module not in self.kept]


@dataclass(frozen=True)
class Applied:
    """The changed model, and plain sentences: what was skipped and why, and what the user should know.

    `reached` is for recipes that keep the numbers and change how they are worked with (another memory format, a
    compiler, another runtime): names of the modules of the given model for which that really happened. None: what was
    changed is found by comparing the weights.
    """

    model: nn.Module
    notes: tuple[str, ...] = ()
    reached: frozenset[str] | None = None
    unlike_class: dict[str, str] = field(default_factory=dict)
    """Layers of its kinds that were left alone since they do not behave like their class: name -> reason."""


Form = Literal["float", "low precision", "packed", "torchao", "sparse", "compiled", "runtime"]
"""In which form a recipe leaves the weights, and which forms it can take."""

FORMS: dict[Form, str] = {
    "float": "leaves the weights in floating point",
    "low precision": "casts the weights to 16 bits",
    "packed": "packs the weights in int8",
    "torchao": "leaves the weights in torchao's own tensors",
    "sparse": "stores the weights as sparse matrices",
    "compiled": "compiles the model, which cannot be changed any more",
    "runtime": "hands the model over to another runtime",
}


class Recipe(BaseModel):
    """One optimization by name and parameters. The fields of a subclass are its parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    recipe_name: ClassVar[str]
    summary: ClassVar[str]
    """What it does, in one line."""
    extra: ClassVar[str | None] = None
    """The pip extra of pytest-modelopt that installs what it needs."""
    requires: ClassVar[tuple[str, ...]] = ()
    """The modules which that extra brings."""
    devices: ClassVar[tuple[str, ...]] = ("cpu", "cuda")
    """Kinds of devices on which its variants run."""
    imports_compiler: ClassVar[bool] = False
    """Whether it works with torch's compiler or exporter: they take seconds to import, once for all workers."""
    needs_calibration: ClassVar[bool] = False
    takes_exported: ClassVar[bool] = False
    """Whether it takes an exported program (torch.export) as it is."""
    one_step: ClassVar[bool] = False
    """Whether it follows the forward pass, in which a decoder must then keep and return no cache."""
    fixes_sizes: ClassVar[bool] = False
    """Whether its variants take inputs of the sizes of the example inputs only, which a cache that grows has not."""
    int8_products: ClassVar[bool] = False
    """Whether its variants multiply int8 numbers, and not only store them."""
    changes: ClassVar[tuple[str, ...]] = ()
    """Names of the module classes whose weights it changes, for messages; empty where it takes any model as a whole."""
    takes: ClassVar[tuple[Form, ...]] = ("float",)
    """Forms of the weights that it can start from."""
    takes_files: ClassVar[tuple[str, ...]] = ()
    """Suffixes of the files from which it can start, where the original is a file; empty where it needs a module."""
    gives: ClassVar[Form | None] = None
    """The form in which it leaves them; None: as they were."""

    @abstractmethod
    def apply(self, model: nn.Module, context: Context) -> Applied:
        """Apply to `model`, which may be changed in place, and return the changed model with notes.

        Raises:
            RecipeError: if the recipe cannot be applied to this model on this machine.
        """

    def train(self, model: nn.Module, context: Context) -> tuple[nn.Module, tuple[str, ...]]:
        """The model trained for what `apply` makes of it, where the recipe is told to, and notes on that.

        What the recipe changes is counted from there on. A recipe that trains afterwards does so in `apply`.

        Raises:
            RecipeError: if it cannot be trained.
        """
        return model, ()

    @property
    def calibrates(self) -> bool:
        """Whether it needs calibration data with these parameters."""
        return self.needs_calibration

    @property
    def multiplies_int8(self) -> bool:
        """Whether its variants multiply int8 numbers with these parameters."""
        return self.int8_products

    @classmethod
    def missing(cls) -> str:
        """What has to be installed first, in words; '' where nothing is missing. Imports nothing."""
        absent = [name for name in cls.requires if not _is_installed(name)]
        if not absent:
            return ""
        return f'{cls.recipe_name} needs {" and ".join(absent)}: run `pip install "pytest-modelopt[{cls.extra}]"`'

    @classmethod
    def unfit(cls, device: str) -> str:
        """Why this machine cannot run its variants on `device`, 'cpu' or 'cuda'; '' where it can. May import torch."""
        if device not in cls.devices:
            return f"{cls.recipe_name} makes variants that run on {' and '.join(cls.devices)} only, not on {device}"
        return ""

    def canonical(self) -> str:
        """The one spelling of this recipe, its parameters in the order of the fields.

        A `ratio` is always spelled out, since nobody should have to know its default to read a table; the others
        where they differ from their defaults. What is None is not in force, and nothing to spell.
        """
        fields = type(self).model_fields
        given = [
            f"{name}={_spell(getattr(self, name))}"
            for name, field in fields.items()
            if getattr(self, name) is not None and (name == "ratio" or getattr(self, name) != field.default)
        ]
        return f"{self.recipe_name}({', '.join(given)})" if given else self.recipe_name


Kept = Literal["numbers", "form", "width"]
"""What of the layers that `keep` names stays: all their numbers, their precision, or the number of their outputs."""


class LayerRecipe(Recipe):
    """A recipe that changes a model layer by layer, and can leave layers as they are.

    `keep` names modules by their names or by glob patterns, separated by commas; a name stands for all within it.
    `apply` finds these modules in `context.kept`, and a base of all recipes (`apply.py`) holds it to leaving them.
    """

    keeps: ClassVar[Kept] = "numbers"

    keep: str = Field(
        default="", description="names or patterns of modules that stay as they are, such as 'head,blocks.0.*'"
    )

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Put `keep` behind the recipe's own parameters: so it is spelled, and told."""
        super().__pydantic_init_subclass__(**kwargs)
        cls.model_fields["keep"] = cls.model_fields.pop("keep")

    @field_validator("keep")
    @classmethod
    def _names_modules(cls, value: str) -> str:
        keep_patterns(value)
        return value


def keep_patterns(text: str) -> tuple[str, ...]:
    """The patterns in `keep`.

    Raises:
        ValueError: if nothing stands between two commas.
    """
    parts = tuple(part.strip() for part in text.split(",")) if text else ()
    if not all(parts):
        raise ValueError("nothing stands before or after a comma; write for example keep='stem,blocks.*.depthwise'")
    return parts


def _is_installed(module: str) -> bool:
    """Whether it can be imported, without importing it (but for the packages above it)."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _spell(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and (value in ("true", "false") or not BARE_WORD.match(value)):
        return f"'{value}'"
    return str(value)
