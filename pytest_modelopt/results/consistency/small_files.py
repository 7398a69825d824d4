"""The note of a variant whose saved file holds less than its weights: without it, its figures contradict each other."""

from __future__ import annotations

from pytest_modelopt.results.measurement import Measurement


def format_small_file(side: Measurement) -> str:
    """What a file that is smaller than the weights says of the model; '' where it is not.

    `torch.save` writes each storage whole and uncompressed but gradients, so only these and a model's own code make it
    so. A foreign runtime keeps its weights to itself, and of a figure that is None nothing is known.
    """
    size, weights = side.size_bytes, side.weights_bytes
    if size is None or weights is None or side.runtime is not None or size >= weights:
        return ""
    return (
        f"it is saved in {size:,} bytes, which is less than the {weights:,} bytes of its weights: gradients that a "
        "training has left count with them (`zero_grad()` in the factory frees these), or its own code packs them, "
        "makes them again or keeps them elsewhere (`__reduce__`, `__getstate__`, a module's variables)"
    )
