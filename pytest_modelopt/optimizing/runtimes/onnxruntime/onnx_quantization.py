"""What both int8 recipes of ONNX Runtime need: a program that is ready to be quantized, and how many bits are safe."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pytest_modelopt.optimizing import cpu_flags
from pytest_modelopt.optimizing.describe import last_line
from pytest_modelopt.optimizing.runtimes import telemetry
from pytest_modelopt.optimizing.runtimes.onnxruntime.onnx_conversion import Conversion

ReduceRange = Literal["auto", "on", "off"]


def pre_processed(conversion: Conversion, folder: Path) -> tuple[Path, tuple[str, ...]]:
    """The program with what is constant computed in advance and all shapes known: else much is left in float."""
    import onnx

    with telemetry.off():
        from onnxruntime.quantization.shape_inference import quant_pre_process

    # Given as a file: of a program in memory it would move the weights out, to a file that it never writes.
    folder = folder.resolve()
    source, target = folder / "converted.onnx", folder / "pre-processed.onnx"
    onnx.save(conversion.proto, source)
    with unchanged_logging():
        try:
            with _working_in(folder):  # where its shape inference fails, it leaves a file behind
                quant_pre_process(source, target)
        except Exception as error:
            quant_pre_process(source, target, skip_symbolic_shape=True)
            return target, (
                "ONNX Runtime's symbolic shape inference fails on this model, and what has no known shape without it "
                f"stays in floating point: {last_line(error)}",
            )
    return target, ()


@contextlib.contextmanager
def _working_in(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextlib.contextmanager
def unchanged_logging() -> Iterator[None]:
    """ONNX Runtime's tools call `logging.info`, which gives the root logger a handler if it has none."""
    root = logging.getLogger()
    before = list(root.handlers)
    try:
        yield
    finally:
        for handler in [handler for handler in root.handlers if handler not in before]:
            root.removeHandler(handler)


def reduced_range(wanted: ReduceRange) -> tuple[bool, tuple[str, ...]]:
    """Whether weights take 7 of their 8 bits, and a note on why."""
    if wanted == "on":
        return True, ()
    saturates = cpu_flags.adds_in_16_bits()
    if wanted == "off":
        warning = "this CPU lacks VNNI: with all 8 bits of the weights its 16-bit sums saturate, which costs accuracy"
        return False, (warning,) if saturates else ()
    if saturates:
        return True, (
            "weights use 7 of their 8 bits: this CPU lacks VNNI, and its 16-bit sums would saturate with all of them "
            "(reduce_range=off uses 8)",
        )
    return False, (
        "weights use all 8 bits, which is safe on this CPU; on an x86 CPU without VNNI sums may saturate and the "
        "answers differ (reduce_range=on is safe on both)",
    )
