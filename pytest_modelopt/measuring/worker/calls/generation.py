"""Calls of a model that generates: one step with its cache, and what whole calls are made of."""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from pytest_modelopt.measuring.protocol import VariantError, error_text
from pytest_modelopt.measuring.worker.calls.given_inputs import Call
from pytest_modelopt.optimizing.recipe import Recipe
from pytest_modelopt.optimizing.runtimes.exported_step_module import ExportedStep
from pytest_modelopt.optimizing.runtimes.runtime_module import EngineModule
from pytest_modelopt.results.generation import Generation

Kind = Literal["cache argument", "transformers", "function"]

_ROOM = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "block_size", "context_length")
"""Attributes of a model, or of its `config`, that say how many positions it knows."""
_CACHES = ("cache", "past_key_values")
"""What transformers calls it in forward and in what that returns: from 5.23 on, and before."""
_WAYS = (
    "a module of transformers with `generate`, one whose forward is (ids, cache) -> (logits, cache) with None as the "
    "first cache, or a function (model, ids, cache) -> (logits, cache) as `step`"
)


class Step:
    """One step: (ids, cache) -> (logits of the last position, cache). The first cache is None."""

    def __init__(self, model: nn.Module, function: Callable[..., Any] | None = None) -> None:
        """Raises VariantError for a model that has no steps."""
        self._model = model
        self._function = None if isinstance(model, ExportedStep) else function  # which knows the module in torch only
        self._kind, module = ("function", model) if self._function is not None else _kind_of(model)
        self._options: dict[str, Any] = {}
        if self._kind == "transformers":
            takes = inspect.signature(module.forward).parameters
            self._cache_name = next(name for name in _CACHES if name in takes)
            self._options = {"use_cache": True, "return_dict": True}
            if "logits_to_keep" in takes:  # as `generate` does: of a prompt, the last position alone is needed
                self._options["logits_to_keep"] = 1

    def __call__(self, ids: torch.Tensor, cache: Any) -> tuple[torch.Tensor, Any]:
        """ids (sequences, tokens) -> logits (sequences, vocabulary), and the cache with these tokens in it.

        Raises:
            VariantError: the model failed, or returned something else.
        """
        try:
            return self.plain(ids, cache)
        except VariantError:
            raise
        except Exception as error:
            raise VariantError(
                f"the model does not take one step of the call, ids of shape {tuple(ids.shape)} from {int(ids.min())} "
                f"to {int(ids.max())} {'without a cache' if cache is None else 'with a cache'}: "
                f"{error_text(error)}{self._told_rows(error)}"
            ) from error

    def plain(self, ids: torch.Tensor, cache: Any) -> tuple[torch.Tensor, Any]:
        """The same, and whatever the model raises: for exporters, which give tensors without numbers."""
        logits, cache = self._made(ids, cache)
        return (logits[:, -1] if logits.ndim == 3 else _checked(logits, ids)), cache

    def _made(self, ids: torch.Tensor, cache: Any) -> tuple[torch.Tensor, Any]:
        if self._kind == "transformers":
            given = self._options if cache is None else {self._cache_name: cache, **self._options}
            output = self._model(input_ids=ids, **given)
            return output.logits, getattr(output, self._cache_name)
        step = self._model if self._function is None else partial(self._function, self._model)
        output = step(ids, cache)
        if not isinstance(output, (tuple, list)) or len(output) != 2 or not isinstance(output[0], torch.Tensor):
            raise VariantError(
                f"one step returned a {type(output).__name__}, not (logits, cache): a model that generates is {_WAYS}"
            )
        return output[0], output[1]

    def _told_rows(self, error: Exception) -> str:
        """The sizes of the model's tables, one of which an id or a position lies outside of."""
        if not isinstance(error, IndexError):
            return ""
        tables = [
            f"{name or 'itself'} {module.num_embeddings}"
            for name, module in self._model.named_modules()
            if isinstance(module, nn.Embedding)
        ]
        return f" (rows of its embeddings: {', '.join(tables[:5])})" if tables else ""


def _checked(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    if logits.ndim != 2 or len(logits) != len(ids):
        raise VariantError(
            f"one step gave logits of shape {tuple(logits.shape)} for ids of shape {tuple(ids.shape)}: they must be "
            "(sequences, tokens, vocabulary), or (sequences, vocabulary) of the last token"
        )
    return logits


def _kind_of(model: nn.Module) -> tuple[Kind, nn.Module]:
    """How its steps are called, by the forward of the module, or of the first one in wrappers that take anything."""
    if isinstance(model, EngineModule):
        raise VariantError(
            f"{model.runtime} runs a file as it is, and nothing says which of its inputs and outputs are the cache: "
            "under `call: {generate: ...}` it cannot be measured; give a candidate whose forward is "
            "(ids, cache) -> (logits, cache) and runs the file, or measure the model by its forward pass"
        )
    for module in model.modules():
        by_name = inspect.signature(module.forward).parameters
        parameters = by_name.values()
        if {"input_ids", "use_cache"} <= by_name.keys() and any(name in by_name for name in _CACHES):
            if getattr(getattr(module, "config", None), "is_encoder_decoder", False):
                raise VariantError(
                    f"{type(module).__name__} has an encoder, whose answer its steps need: give a function "
                    "(model, ids, cache) -> (logits, cache) as `step` below `generate`"
                )
            return "transformers", module
        if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
            continue  # a wrapper
        positional = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
        if len(positional) > 1:
            return "cache argument", module
        break
    raise VariantError(f"{type(model).__name__} does not generate: `call: {{generate: ...}}` needs {_WAYS}")


def require_room(model: nn.Module, generation: Generation) -> None:
    """Raises VariantError where the model says that it knows fewer positions than the call has."""
    for owner, prefix in ((getattr(model, "config", None), "config."), (model, "")):
        for name in _ROOM:
            room = getattr(owner, name, None)
            if type(room) is int and 0 < room < generation.context:
                raise VariantError(
                    f"prompt and new_tokens are {generation.prompt} + {generation.new_tokens} = {generation.context} "
                    f"tokens, and the model has {room} positions (`{prefix}{name}`): make one of them smaller"
                )


def require_whole(recipes: Iterable[Recipe], part: str) -> None:
    """Raises VariantError for a recipe that exports one step, where it gets the module at `part` only."""
    for recipe in recipes:
        if recipe.gives == "runtime":
            raise VariantError(
                f"{recipe.recipe_name} exports one step of a model that generates, with its cache, and "
                f"`optimize: {part}` names a part of it, whose sizes differ from step to step: leave `optimize` out, "
                "or take a recipe that stays in torch, such as int8-dynamic"
            )


@contextlib.contextmanager
def told_of(recipe: str) -> Iterator[None]:
    """What a recipe has left fails in its steps: the error says that it is the recipe's doing."""
    try:
        yield
    except VariantError as error:
        raise VariantError(
            f"after {recipe} the model no longer generates with a cache, though it answers one forward pass: {error}"
        ) from error


def told_sampling(model: nn.Module) -> tuple[str, ...]:
    """A note where the model is set to generate otherwise than it is measured."""
    settings = getattr(model, "generation_config", None)
    beams = getattr(settings, "num_beams", 1)
    set_to = ["to sample (`do_sample`)"] if getattr(settings, "do_sample", False) is True else []
    set_to += [f"to search {beams} beams (`num_beams`)"] if isinstance(beams, int) and beams > 1 else []
    if not set_to:
        return ()
    told = f"the model is set {' and '.join(set_to)}, and generates greedily here: only so do two variants compare"
    return (told,)


# --- calls -----------------------------------------------------------------------------------------------------------


def forced(step: Step, ids: torch.Tensor, cache: Any, first: int) -> tuple[torch.Tensor | None, Any]:
    """The steps from token `first` on, each given the next token of `ids`."""
    logits = None
    for at in range(first, ids.shape[1]):
        logits, cache = step(ids[:, at : at + 1], cache)
    return logits, cache


def greedy(step: Step, prompt: torch.Tensor, new_tokens: int) -> torch.Tensor:
    """The tokens (sequences, new_tokens) that follow the prompt, each the most probable one."""
    logits, cache = step(prompt, None)
    tokens = [logits.argmax(dim=-1, keepdim=True)]
    while len(tokens) < new_tokens:
        logits, cache = step(tokens[-1], cache)
        tokens.append(logits.argmax(dim=-1, keepdim=True))
    return torch.cat(tokens, dim=1)


class WholeCall:
    """The prompt and all steps, with a fresh cache: ids (sequences, context) -> logits after the last token."""

    def __init__(self, step: Step, prompt: int) -> None:
        self._step, self._prompt = step, prompt

    def __call__(self, ids: torch.Tensor) -> Any:
        _, cache = self._step(ids[:, : self._prompt], None)
        return forced(self._step, ids, cache, self._prompt)[0]


class TimedDecode:
    """The steps after the prompt as a thing to be timed; each call's cache is made before its clock starts."""

    def __init__(self, step: Step, ids: torch.Tensor, prompt: int) -> None:
        self._step, self._ids, self._prompt = step, ids, prompt
        self._kept: Any = None
        try:
            self._kept = copy.deepcopy(self._prefilled())
        except Exception:  # a cache that cannot be copied is made anew
            self._kept = None

    def prepared(self, calls: int) -> Call:
        caches = iter([self._fresh() for _ in range(calls)])
        return lambda: forced(self._step, self._ids, next(caches), self._prompt)

    def is_clean(self) -> bool:
        return True

    def _fresh(self) -> Any:
        return self._prefilled() if self._kept is None else copy.deepcopy(self._kept)

    def _prefilled(self) -> Any:
        return self._step(self._ids[:, : self._prompt], None)[1]
