"""A model that generates, whose steps another runtime makes: a call of its program is one step, the loop stays here."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pytest_modelopt.optimizing.modules.nested_values import mapped, tensors
from pytest_modelopt.optimizing.runtimes.runtime_module import HoldsPrograms, RuntimeModule

if TYPE_CHECKING:
    from pytest_modelopt.optimizing.recipe import Step


class CacheForm:
    """A cache without its tensors: which objects hold them, in which order, and what else is in there."""

    def __init__(self, cache: Any) -> None:
        places = map(_Place, itertools.count())
        self._empty = mapped(cache, lambda leaf: next(places) if isinstance(leaf, torch.Tensor) else leaf)

    def filled(self, held: Sequence[torch.Tensor]) -> Any:
        """A cache of its own with these tensors in it."""
        return mapped(self._empty, lambda leaf: held[leaf] if isinstance(leaf, _Place) else leaf)


class _Place(int):
    """Stands where the tensor of this number was."""


class ExportedStep(nn.Module, HoldsPrograms):
    """forward(ids, cache) -> (logits of the last position, cache), by programs that get and give the cache's tensors.

    `prompt` makes the first call, which has no cache; without it `step` does, with `first` as its cache: the same
    tensors with nothing in them, for one sequence.
    """

    def __init__(
        self, step: RuntimeModule, prompt: RuntimeModule | None, form: CacheForm, first: Sequence[torch.Tensor]
    ) -> None:
        super().__init__()
        self.step, self.prompt, self.form = step, prompt, form
        self._first = tuple(first)

    def forward(self, ids: torch.Tensor, cache: Any = None) -> Any:
        if cache is not None:
            made = self.step(ids, *tensors(cache))
        elif self.prompt is not None:
            made = self.prompt(ids)
        else:
            made = self.step(ids, *(tensor.expand(len(ids), *tensor.shape[1:]) for tensor in self._first))
        logits, *held = made
        return logits, self.form.filled(held)

    def programs(self) -> dict[str, RuntimeModule]:
        """By the name of each."""
        return {"step": self.step} if self.prompt is None else {"prompt": self.prompt, "step": self.step}

    def float_tensors(self) -> Iterator[torch.Tensor]:
        for program in self.programs().values():
            yield from program.float_tensors()

    def parts(self) -> dict[str, bytes]:
        return {
            f".{name}{suffix}": content
            for name, program in self.programs().items()
            for suffix, content in program.parts().items()
        }


class Pass(nn.Module):
    """forward(ids, *tensors of the cache) -> (logits, *tensors of the cache); ids alone is the first call."""

    def __init__(self, model: nn.Module, step: Step, form: CacheForm) -> None:
        super().__init__()
        self._orig_mod = model  # a name that `describe.author_name` leaves out
        self._step, self._form = step, form

    def forward(self, *given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ids, *held = given
        logits, cache = self._step(ids, self._form.filled(held) if held else None)
        return (logits, *tensors(cache))
