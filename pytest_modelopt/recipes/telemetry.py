"""What a gate uses sends nothing home: OpenVINO and NNCF report each import and conversion to their makers."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def off() -> Iterator[None]:
    """Telemetry of OpenVINO and NNCF is off within, also while they are imported; nothing is written to the home.

    Both ask that it be off in continuous integration (`disable_in_ci`), which they know by `CI=true`. Their other
    switch, `opt_in_out --opt_out`, writes a file in the user's home, which is not ours to write.
    """
    before = os.environ.get("CI")
    os.environ["CI"] = "true"
    try:
        with _without_consent():
            yield
    finally:
        if before is None:
            del os.environ["CI"]
        else:
            os.environ["CI"] = before


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
