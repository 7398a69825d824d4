"""OpenVINO."""

from pytest_modelopt.optimizing.runtimes.runtime import Runtime

RUNTIME = Runtime(
    name="OpenVINO",
    extra="openvino",
    objects=("openvino",),
    suffix=".xml",
    file_module="ir_file_module",
    packages=("openvino", "nncf"),
    frames=("openvino", "nncf"),
)
