"""Sessions of other runtimes that a variant holds: what they asked for, and on what they run."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from typing import Any

from pytest_modelopt.measuring.worker.memory.tensor_meter import Walk
from pytest_modelopt.measuring.worker.watches.asked_providers import asked_by
from pytest_modelopt.results.observations import ProviderSession


def held_sessions(value: Any) -> tuple[ProviderSession, ...]:
    """All that `value` reaches, but for those that run on the CPU as they were asked to."""
    if not any(package in sys.modules for package in ("onnxruntime", "openvino")):
        return ()
    described = (_of_onnxruntime(each) or _of_openvino(each) for each in Walk(value, passes_runtimes=True).of_runtimes)
    return tuple(each for each in described if each is not None and (each.accelerators or each.on_accelerators))


def _of_onnxruntime(value: Any) -> ProviderSession | None:
    if not _is_a(value, "onnxruntime", "InferenceSession"):
        return None
    return ProviderSession("ONNX Runtime", asked_by(value), tuple(value.get_providers()), _operators(value))


def _operators(session: Any) -> dict[str, int]:
    """Number of operators by provider; empty where the session does not report it."""
    found: Counter[str] = Counter()
    with contextlib.suppress(Exception):
        for part in session.get_provider_graph_assignment_info():
            found[part.ep_name] += len(part.get_nodes())
    return dict(found)


def _of_openvino(value: Any) -> ProviderSession | None:
    compiled = value.get_compiled_model() if _is_a(value, "openvino", "InferRequest") else value
    if not _is_a(compiled, "openvino", "CompiledModel"):
        return None
    devices = compiled.get_property("EXECUTION_DEVICES")
    return ProviderSession("OpenVINO", (), tuple(str(name).strip("()") for name in devices))


def _is_a(value: Any, package: str, name: str) -> bool:
    """Whether it is an instance of the class `name` of `package`; False while the package is not imported."""
    kind = getattr(sys.modules.get(package), name, None)
    return isinstance(kind, type) and isinstance(value, kind)
