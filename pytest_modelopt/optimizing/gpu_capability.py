"""Whether the GPU that torch works with is new enough for a recipe."""

from __future__ import annotations


def lacks(recipe_name: str, needed: tuple[int, int], generation: str, way_out: str) -> str:
    """Why the GPU cannot run the recipe's variants, by NVIDIA's compute capability; '' where it can."""
    import torch

    if not torch.cuda.is_available():
        return f"{recipe_name} needs a GPU, and torch finds none here"
    found = torch.cuda.get_device_capability()
    if found >= needed:
        return ""
    return (
        f"{recipe_name} needs a GPU of compute capability {_version(needed)} or higher ({generation}), and "
        f"{torch.cuda.get_device_name()} has {_version(found)}; {way_out}"
    )


def _version(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))
