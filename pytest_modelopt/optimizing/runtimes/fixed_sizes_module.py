"""Programs whose sizes are fixed: a batch is run in parts of as many examples as the program takes.

The last part is filled up with examples of its own; what comes out for these is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Place:
    """Where a tensor of a call lies in the engine."""

    index: int
    shape: tuple[int, ...]
    dtype: torch.dtype


def cut(inputs: Sequence[torch.Tensor], places: Sequence[Place], runtime: str) -> Iterator[list[torch.Tensor]]:
    """The inputs in parts that the program takes, in its types; the last part repeats an example to be full.

    Raises:
        ValueError: for sizes that the program was not converted for, or numbers that its types do not hold.
    """
    examples, at_a_time = _refuse_other_sizes(inputs, places, runtime), places[0].shape[0]
    given = [_as(tensor, place, runtime) for tensor, place in zip(inputs, places, strict=True)]
    for start in range(0, examples, at_a_time):
        stop = start + at_a_time
        if stop <= examples:
            yield [tensor[start:stop] for tensor in given]
        else:
            chosen = [*range(start, examples), *([start] * (stop - examples))]
            yield [tensor[chosen] for tensor in given]


def run_in_parts(
    invoke: Callable[[list[torch.Tensor]], list[torch.Tensor]],
    inputs: Sequence[torch.Tensor],
    places: Sequence[Place],
    outputs: Sequence[Place],
    runtime: str,
) -> list[torch.Tensor]:
    """The outputs for a batch of any number of examples."""
    parts = [invoke(part) for part in cut(inputs, places, runtime)]
    if not parts:
        return [torch.empty((0, *place.shape[1:]), dtype=place.dtype) for place in outputs]
    return [torch.cat(found)[: len(inputs[0])] for found in zip(*parts, strict=True)]


def _refuse_other_sizes(inputs: Sequence[torch.Tensor], places: Sequence[Place], runtime: str) -> int:
    """The number of examples in the call.

    Raises:
        ValueError: for sizes that the program was not converted for.
    """
    given = [tuple(tensor.shape) for tensor in inputs]
    fixed = [place.shape[1:] for place in places]
    if [shape[1:] for shape in given] != fixed or len({shape[:1] for shape in given}) != 1 or not given[0]:
        wanted = " and ".join(str(("examples", *shape)).replace("'", "") for shape in fixed)
        raise ValueError(
            f"the {runtime} program was converted for inputs of shape {wanted}, not {' and '.join(map(str, given))}: "
            "every size but the number of examples is fixed"
        )
    return given[0][0]


def _as(tensor: torch.Tensor, place: Place, runtime: str) -> torch.Tensor:
    """In the type of the program's input: such programs count in int32 where torch does in int64."""
    if tensor.dtype == place.dtype:
        return tensor
    if tensor.dtype is torch.int64 and place.dtype is torch.int32 and tensor.numel():
        limits = torch.iinfo(torch.int32)
        if int(tensor.min()) < limits.min or int(tensor.max()) > limits.max:
            raise ValueError(
                f"an input of the {runtime} program holds whole numbers beyond the 32 bits that it takes: give "
                "smaller ones"
            )
    return tensor.to(place.dtype)
