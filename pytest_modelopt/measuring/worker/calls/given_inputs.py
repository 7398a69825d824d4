"""The inputs that timed calls are given: the same for all, or new ones where a model leaves traces in them."""

from __future__ import annotations

import sys
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import torch

from pytest_modelopt.measuring.worker.calls.remembered_inputs import operators
from pytest_modelopt.optimizing.calling import Inputs, Place, fresh, on, places, places_of_calls
from pytest_modelopt.optimizing.modules.nested_values import PLAIN, form, is_array, leaves, tensors

_KEPT_BYTES = 256 << 20
"""Of copies whose addresses no other copy may get."""
_PLACES = 5_000
"""Small ones that earlier calls may have left to the allocator."""
_OBJECT_BYTES = 1024
"""What a small tensor takes beside its numbers."""
_CHANGEABLE = (bytearray, set, frozenset)

Call = Callable[[], object]


class Given:
    """A copy of the inputs of a call, and whether calls have left traces in it."""

    def __init__(self, inputs: Inputs) -> None:
        self._untouched, self.inputs = inputs, fresh(inputs)
        self._tensors = tensors(self.inputs)
        self._places = [_place(tensor) for tensor in self._tensors]
        self.count_uses()

    def count_uses(self) -> None:
        """Take the uses that there are now for those that no call has left."""
        self._uses = self._uses_now()

    def traces(self) -> str:
        """What the calls did to the inputs, in words; empty where another call finds what the first one did."""
        if self._places != [_place(tensor) for tensor in self._tensors] or not _hold_the_same(
            self.inputs, self._untouched
        ):
            return "writes into its inputs"
        return "keeps its inputs" if self._uses_now() != self._uses else ""

    def _uses_now(self) -> list[tuple[int, int, int]]:
        """Of each tensor: references, weak references, tensors and arrays in the same memory."""
        return [
            (sys.getrefcount(tensor), weakref.getweakrefcount(tensor), _storage_uses(tensor))
            for tensor in self._tensors
        ]


class TimedCall:
    """The forward pass and nothing else: no lookup that a user's program would not do."""

    def __init__(
        self, model: Callable[..., Any], inputs: Inputs, *, copies: bool, at_new_addresses: bool = False
    ) -> None:
        """`copies`: each call needs inputs of its own. `at_new_addresses`: even where those of earlier calls were."""
        self._model, self._inputs = model, inputs
        self._kept: deque[Inputs] | None = deque() if at_new_addresses else None
        # Inputs of earlier calls were let go, and the next copies would get their addresses: these take them instead.
        room = min(_PLACES, _KEPT_BYTES // max(1, _bytes(inputs))) if at_new_addresses else 0
        self._taken = [fresh(inputs) for _ in range(room)]
        self._before = frozenset(places_of_calls) if at_new_addresses else frozenset()
        self._has_old_places = False
        self._seen: set[Place] = set()
        self._come_again: set[str] = set()
        self._works = 0
        if self._kept is not None:
            self._kept.append(self._copy())
            self._note(self._kept[0])
            self._works = operators(model, self._kept[0])
        self._given = None if copies else Given(inputs)
        self._call = None if self._given is None else on(model, self._given.inputs)
        if self._given is not None:
            self._given.count_uses()  # with that of the call, which holds a single tensor itself

    def prepared(self, calls: int) -> Call:
        """What can be called so many times; copies are made now, outside of the clock."""
        if self._call is not None:
            return self._call
        copies = [self._copy() for _ in range(calls)]
        if self._kept is not None:
            self._come_again.update(*map(self._note, copies))
            self._keep(self._kept, copies)
        on_copies = iter([on(self._model, inputs) for inputs in copies])
        return lambda: next(on_copies)()

    def _copy(self) -> Inputs:
        """In no place where inputs were before this was made, as far as there is room to keep what would be there."""
        while True:
            copy = fresh(self._inputs)
            is_new = self._before.isdisjoint(places(copy))
            if is_new or len(self._taken) * _bytes(self._inputs) > 2 * _KEPT_BYTES:
                self._has_old_places = self._has_old_places or not is_new
                return copy
            self._taken.append(copy)

    def recognized(self) -> str:
        """Why calls at places that earlier inputs left did not do the work of others, in words, or ''.

        Where more was copied than is kept, places come again, and a model that never forgets one knows it. One that is
        given a call there now, outside of the clock, and works has forgotten those of the timed calls, too.
        """
        if self._kept is None:
            return ""
        if self._has_old_places:
            return (
                "may recognize inputs by their address in memory, and too many addresses were used for a check of that"
            )
        left, found = set(self._come_again), self._works
        for _ in range(_PLACES if left else 0):
            copy = fresh(self._inputs)
            if left & (again := self._note(copy)):
                found = min(found, operators(self._model, copy))
                left -= again
            self._keep(self._kept, [copy])
            if not left:
                break
        if left:
            return (
                "may recognize inputs by their address in memory, and no address came again by which that "
                "could be checked"
            )
        if found >= self._works:
            return ""
        return (
            "recognizes inputs by their address in memory, for longer than copies are kept "
            f"({_KEPT_BYTES >> 20} MiB of "
            f"them), and answers from a cache (it runs {found} operators at an address that came again, and "
            f"{self._works} at a new one), so timed calls would time a lookup: turn the cache off in the factory"
        )

    def _note(self, inputs: Inputs) -> set[str]:
        """In which way earlier calls were given something at one of these places; they are known from now on."""
        now = places(inputs)
        again = {way for way, _ in now & self._seen}
        self._seen |= now
        places_of_calls.update(now)
        return again

    def _keep(self, kept: deque[Inputs], copies: list[Inputs]) -> None:
        """Memory that is let go is what the next copy gets. Beyond the limit the oldest go, but never the last ones."""
        room = max(len(copies), _KEPT_BYTES // max(1, _bytes(self._inputs)))
        kept.extend(copies)
        while len(kept) > room:
            kept.popleft()

    def is_clean(self) -> bool:
        """Whether the calls since the last question were alike. If not, each further call is given a copy."""
        if self._given is None or not self._given.traces():
            return True
        self._given = self._call = None
        return False


def _storage_uses(tensor: torch.Tensor) -> int:
    """0 where torch does not tell: for other layouts, and where a version lacks the function, which is not public."""
    try:
        return torch._C._storage_Use_Count(tensor.untyped_storage()._cdata)
    except (AttributeError, NotImplementedError, RuntimeError):
        return 0


def _bytes(inputs: Inputs) -> int:
    return sum(tensor.numel() * tensor.element_size() + _OBJECT_BYTES for tensor in tensors(inputs))


def _place(tensor: torch.Tensor) -> tuple[object, ...]:
    """What an operation in place changes beside the numbers: shape, strides, storage."""
    if tensor.layout is not torch.strided:
        return tuple(tensor.shape), tensor.layout
    return tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.data_ptr()


def _hold_the_same(inputs: Inputs, others: Inputs) -> bool:
    """Whether the nests have the same leaves at the same places: a model may also write into lists, objects and arrays
    of numpy, rename a key, and keep what it found as an attribute of a tensor."""
    if form(inputs) != form(others):
        return False
    now, before = list(leaves(inputs)), list(leaves(others))
    return len(now) == len(before) and all(map(_are_same, now, before))


def _are_same(one: Any, other: Any) -> bool:
    """To the bit: NaN equals itself. Of what is no data, such as a function, nobody asks."""
    if type(one) is not type(other):
        return False
    if is_array(one):
        same_form = (one.dtype, one.shape) == (other.dtype, other.shape)
        return same_form and (one.dtype.hasobject or one.tobytes() == other.tobytes())
    if not isinstance(one, torch.Tensor):
        return not isinstance(one, (*PLAIN, *_CHANGEABLE)) or one == other or repr(one) == repr(other)
    if one.shape != other.shape or one.dtype != other.dtype or one.layout != other.layout:
        return False
    if one.requires_grad != other.requires_grad or not _hold_the_same(vars(one), vars(other)):
        return False
    if one.layout is not torch.strided:
        one, other = one.to_dense(), other.to_dense()
    return torch.equal(*(each.detach().contiguous().flatten().view(torch.uint8) for each in (one, other)))
