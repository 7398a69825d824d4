"""Telemetry of the runtimes, off: OpenVINO, NNCF and ONNX Runtime report imports, sessions and conversions home."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator
from typing import Any

SWITCHES = {"CI": "true", "ORT_DISABLE_TELEMETRY": "1"}
"""Asked while the runtimes are imported. OpenVINO and NNCF ask that it be off in continuous integration
(`disable_in_ci`); their other switch, `opt_in_out --opt_out`, writes a file in the user's home, which is not ours.
ONNX Runtime asks once for the whole process, and without it leaves a device's number and a database in the user's cache
folder, and `.ses` in the temporary one."""


@contextlib.contextmanager
def off() -> Iterator[None]:
    """Telemetry is off within, also while the runtimes are imported; nothing is written to the home."""
    before = {name: os.environ.get(name) for name in SWITCHES}
    os.environ.update(SWITCHES)
    try:
        with _without_consent():
            yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _without_consent() -> Iterator[None]:
    """It is one object per process: one that the user's own code has made before is off meanwhile."""
    try:
        sender: Any = importlib.import_module("openvino_telemetry").Telemetry()
    except (ImportError, RuntimeError):  # not installed, or not made yet, and then `CI` is asked
        yield
        return
    before = sender.consent
    sender.consent = False
    try:
        yield
    finally:
        sender.consent = before
