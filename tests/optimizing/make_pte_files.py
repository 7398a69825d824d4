"""The `.pte` files in `programs/`, made by ExecuTorch's exporter.

    pip install --constraint constraints.txt '.[executorch]'; python -m tests.optimizing.make_pte_files

In an environment of its own: ExecuTorch asks for packages with pytest plugins that load by themselves. What only runs
programs needs none of these, and so are the tests. The files come out the same, byte for byte.
"""

from __future__ import annotations

import lzma
from pathlib import Path

import torch
from torch import nn

FOLDER = Path(__file__).parent / "programs"
WIDTH, CLASSES, MOST = 12, 5, 8
"""Of the small programs; the open one takes up to 8 examples."""
LARGE_WIDTH = 1024


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(WIDTH, 16), nn.ReLU(), nn.Linear(16, CLASSES)).eval()


class Image(nn.Module):
    """(2, 3, 4, 4), channels last in memory -> the same doubled."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image + image


def large() -> nn.Module:
    """Eight MiB of weights, one number for each layer, so that the file is small once it is compressed."""
    layers = [nn.Linear(LARGE_WIDTH, LARGE_WIDTH), nn.Linear(LARGE_WIDTH, LARGE_WIDTH), nn.Linear(LARGE_WIDTH, CLASSES)]
    with torch.no_grad():
        for number, layer in enumerate(layers, 1):
            layer.weight.fill_(number / LARGE_WIDTH), layer.bias.fill_(number)
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2]).eval()


def _write(
    name: str, model: nn.Module, inputs: torch.Tensor, *, most: int | None = None, for_xnnpack: bool = False,
    weights_outside: bool = False,
) -> None:  # fmt: skip
    """`most`: the most examples of a call; None: as many as `inputs` has, always."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import ExecutorchBackendConfig, to_edge_transform_and_lower

    open_sizes = None if most is None else ({0: torch.export.Dim("n", max=most)},)
    exported = torch.export.export(model, (inputs,), dynamic_shapes=open_sizes)
    lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()] if for_xnnpack else [])
    made = lowered.to_executorch(ExecutorchBackendConfig(external_constants=weights_outside))
    (FOLDER / f"{name}.pte").write_bytes(made.buffer)
    if weights_outside:
        made.write_tensor_data_to_file(str(FOLDER))
        (data,) = FOLDER.glob("_default_external_constant.ptd")
        data.rename(FOLDER / f"{name}.ptd")


if __name__ == "__main__":
    from tests.plugin.candidate_files import shop

    FOLDER.mkdir(exist_ok=True)
    _write("open", small(), torch.zeros(2, WIDTH), most=MOST, for_xnnpack=True)
    _write("fixed", small(), torch.zeros(2, WIDTH))
    _write("outside", small(), torch.zeros(2, WIDTH), weights_outside=True)
    _write("image", Image(), torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last))
    _write("large", large(), torch.zeros(1, LARGE_WIDTH), for_xnnpack=True)
    whole = FOLDER / "large.pte"
    (FOLDER / "large.pte.xz").write_bytes(lzma.compress(whole.read_bytes()))
    whole.unlink()
    _write("reader", shop().classifier(), torch.zeros(2, 64), most=16, for_xnnpack=True)
