"""LiteRT."""

from pytest_modelopt.optimizing.runtimes.runtime import Runtime

RUNTIME = Runtime(
    name="LiteRT",
    extra="litert",
    objects=("ai_edge_litert", "tflite_runtime", "tensorflow.lite"),
    suffix=".tflite",
    file_module="tflite_file_module",
    packages=("ai-edge-litert", "ai-edge-quantizer", "litert-torch"),
    frames=("litert_torch", "ai_edge_torch", "ai_edge_litert", "ai_edge_quantizer", "tensorflow", "jax"),
)
