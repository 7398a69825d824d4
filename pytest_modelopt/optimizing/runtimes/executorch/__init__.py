"""ExecuTorch."""

from pytest_modelopt.optimizing.runtimes.runtime import Runtime

RUNTIME = Runtime(
    name="ExecuTorch",
    extra="executorch",
    objects=("executorch.extension.pybindings", "executorch.runtime"),
    engine=("executorch.extension.pybindings._C",),  # `executorch.runtime` brings the exporter, with torch's compiler
    suffix=".pte",
    file_module="pte_file_module",
    packages=("executorch",),
    frames=("executorch",),
    alone="executorch>=1.5",
)
