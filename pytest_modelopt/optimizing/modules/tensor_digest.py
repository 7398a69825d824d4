"""The bits of a tensor by their hash, so that nobody has to keep the tensor to know later whether it is the same."""

from __future__ import annotations

import ctypes
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_modelopt.optimizing.modules.shared_tensors import held

if TYPE_CHECKING:
    import torch


_MIB = 1 << 20


@dataclass(frozen=True)
class Bits:
    """Of one tensor: NaN equals itself, and 0.0 differs from -0.0."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    hashes: tuple[str, ...]
    """SHA-256 of the bytes in logical order, of each part that a tensor class wraps; none where they are in no plain
    form, and then no tensor has the same."""
    wrapper: type | None = None
    """The class of a tensor that wraps others."""

    def are_of(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor has the same shape, type and bits."""
        has_form = self.shape == tuple(tensor.shape) and self.dtype == tensor.dtype
        return has_form and self.are(bits_of(tensor))

    def are(self, other: Bits) -> bool:
        """Whether both are the bits of one tensor, as far as they are known."""
        return bool(self.hashes) and self == other


def bits_of(tensor: torch.Tensor) -> Bits:
    tensor = tensor.detach()
    wrapper = type(tensor.data) if hasattr(tensor, "__tensor_flatten__") else None
    parts = held(tensor)
    hashes = tuple(_hash(part) for part in parts) if all(map(_is_plain, parts)) else ()
    return Bits(tuple(tensor.shape), tensor.dtype, hashes, wrapper)


def _is_plain(tensor: torch.Tensor) -> bool:
    import torch

    return tensor.layout is torch.strided and not tensor.is_quantized


def _hash(tensor: torch.Tensor) -> str:
    found = hashlib.sha256(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    update_with_bytes(found, tensor)
    return found.hexdigest()


def update_with_bytes(hasher: Any, tensor: torch.Tensor, step: int = 1) -> None:
    """Feed the bytes of a tensor, in logical order, to one of hashlib's: all, or of every `step` MiB the first, and the
    last MiB."""
    contiguous = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    if contiguous.numel():
        view = memoryview((ctypes.c_char * contiguous.nbytes).from_address(contiguous.data_ptr()))  # no copy, any dtype
        for start in range(0, contiguous.nbytes, step * _MIB) if step > 1 else ():
            hasher.update(view[start : start + _MIB])
        hasher.update(view[-_MIB:] if step > 1 else view)
