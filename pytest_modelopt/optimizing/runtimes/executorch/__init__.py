"""ExecuTorch."""

from pytest_modelopt.optimizing.runtimes.runtime import Runtime

RUNTIME = Runtime(
    name="ExecuTorch",
    extra="executorch",
    objects=("executorch.extension.pybindings", "executorch.runtime"),
    suffix=".pte",
    file_module="pte_file_module",
    packages=("executorch",),
    frames=("executorch",),
    alone="executorch>=1.5",
)
