"""ONNX Runtime."""

from pytest_modelopt.optimizing.runtimes.runtime import Runtime

RUNTIME = Runtime(
    name="ONNX Runtime",
    extra="onnxruntime",
    objects=("onnxruntime",),
    suffix=".onnx",
    file_module="onnx_file_module",
    packages=("onnx", "onnxruntime"),
    frames=("onnx", "onnx_ir", "onnxscript", "onnxruntime"),
)
