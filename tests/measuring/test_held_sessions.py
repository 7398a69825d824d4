"""Sessions of other runtimes that a model holds: what a real worker knows of what they asked for, and of what they got.

ONNX Runtime's wheel for the CPU has no other provider, so whoever asks it for a GPU really gets the CPU.
"""

from __future__ import annotations

import gc
import inspect
import sys
from pathlib import Path
from typing import Any

import onnxruntime
import openvino
import pytest
from onnxruntime.capi import onnxruntime_inference_collection as collection

from pytest_modelopt.measuring.controller.process import Worker
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.measuring.worker import held_sessions
from pytest_modelopt.measuring.worker.watches import asked_providers
from pytest_modelopt.results.metric import MetricSpec
from pytest_modelopt.results.observations import Observations, ProviderSession
from tests.measuring.foreign_models import onnx_file

CPU, CUDA, OPENVINO = "CPUExecutionProvider", "CUDAExecutionProvider", "OpenVINOExecutionProvider"
FELL_BACK = ProviderSession("ONNX Runtime", (CUDA, CPU), (CPU,))
IMPORTED = """
import onnxruntime
from tests.measuring.foreign_models import onnx_file

SESSION = onnxruntime.InferenceSession(onnx_file(), providers=["CUDAExecutionProvider", "CPUExecutionProvider"])
"""
USER = """
import copy
import torch
from torch import nn
from tests.measuring.foreign_models import inputs, onnx_file

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"

def data():
    return inputs(), torch.arange(4)

class Holding(nn.Module):
    def __init__(self, start):
        super().__init__()
        self.start = start
        self.held = {"sessions": [start()]}

    def forward(self, x):
        return torch.from_numpy(self.held["sessions"][0].run(None, {"x": x.numpy()})[0])

    def __getstate__(self):
        return {name: value for name, value in self.__dict__.items() if name != "held"}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self.held = {"sessions": [self.start()]}

def asking(*providers, kind=None, options=None):
    import onnxruntime
    named = {"providers": list(providers)} if providers else {}
    return Holding(lambda: (kind or onnxruntime.InferenceSession)(onnx_file(), options, **named)).eval()

def cuda():
    return asking(CUDA, CPU)

def cuda_with_settings():
    return asking((CUDA, {"device_id": 0}), CPU)

def copied():
    return copy.deepcopy(cuda())

def on_cpu():
    return asking(CPU)

def cpu_first():
    return asking(CPU, CUDA)

def nothing_named():
    return asking()

def told_operators():
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return asking(CUDA, CPU, options=options)

def openvino_provider():
    return asking("OpenVINOExecutionProvider", CPU)

def of_a_subclass():
    import onnxruntime

    class Own(onnxruntime.InferenceSession):
        def __init__(self, file, options, providers):
            super().__init__(file, options, providers)

        def __eq__(self, other):
            return True

    return asking(CUDA, CPU, kind=Own)

def set_later():
    model = asking(CPU)
    model.held["sessions"][0].set_providers([CUDA, CPU])
    return model

def taken_back():
    model = asking(CUDA, CPU)
    model.held["sessions"][0].set_providers([CPU])
    return model

class AtImport(nn.Module):
    def forward(self, x):
        import sessions_at_import
        return torch.from_numpy(sessions_at_import.SESSION.run(None, {"x": x.numpy()})[0])

def at_import():
    import sessions_at_import
    model = AtImport()
    model.session = sessions_at_import.SESSION
    return model.eval()

def not_held():
    asking(CUDA, CPU)
    return nn.Linear(1000, 500).eval()

def of_openvino(device, is_request=False):
    import openvino
    core = openvino.Core()
    model = core.compile_model(core.read_model(onnx_file(), b""), device, {"INFERENCE_PRECISION_HINT": "f32"})
    return model.create_infer_request() if is_request else model

class OfOpenVino(nn.Module):
    def __init__(self, held):
        super().__init__()
        self.held = held

    def forward(self, x):
        held = self.held if callable(self.held) else self.held.get_compiled_model()
        return torch.from_numpy(held(x.numpy())[0])

def automatic():
    return OfOpenVino(of_openvino("AUTO")).eval()

def hetero():
    return OfOpenVino(of_openvino("HETERO:CPU", is_request=True)).eval()

PIPELINE = None

def plain():
    global PIPELINE
    PIPELINE = asking(CUDA, CPU)
    return nn.Linear(1000, 500).eval()

def answer(model, x):
    return PIPELINE(x)
"""


pytestmark = pytest.mark.filterwarnings("ignore:Specified provider:UserWarning")


def observed(folder: Path, factory: str, call: str = "") -> Observations:
    """What a worker of its own sees of the model."""
    (folder / "sessions_at_import.py").write_text(IMPORTED, encoding="utf-8")
    (folder / "holding.py").write_text(USER, encoding="utf-8")
    paths = (str(folder), str(Path(__file__).parents[2]))
    variant = Variant(
        f"holding:{factory}",
        None,
        "holding:data",
        None,
        None,
        MetricSpec(),
        paths,
        str(folder),
        call=f"holding:{call}" if call else None,
    )
    worker = Worker(variant, folder, factory)
    try:
        worker.request("load", limit_s=120)
        seen: Observations = worker.request("observe", limit_s=120)
    finally:
        worker.close()
    assert "sessions" not in seen.unobserved
    return seen


@pytest.mark.parametrize(
    ("factory", "found"),
    [
        ("cuda", (FELL_BACK,)),
        ("cuda_with_settings", (FELL_BACK,)),
        ("copied", (FELL_BACK,)),
        ("of_a_subclass", (FELL_BACK,)),
        ("at_import", (FELL_BACK,)),
        ("set_later", (FELL_BACK,)),
        ("told_operators", (ProviderSession("ONNX Runtime", (CUDA, CPU), (CPU,), {CPU: 1}),)),
        ("on_cpu", ()),
        ("cpu_first", ()),
        ("nothing_named", ()),
        ("taken_back", ()),
        ("not_held", ()),
        ("automatic", ()),
        ("hetero", ()),
    ],
)
def test_a_session_is_known_by_what_it_asked_for(
    tmp_path: Path, factory: str, found: tuple[ProviderSession, ...]
) -> None:
    assert observed(tmp_path, factory).sessions == found


def test_a_session_that_only_the_projects_call_knows_is_found(tmp_path: Path) -> None:
    assert observed(tmp_path, "plain", "answer").sessions == (FELL_BACK,)


@pytest.mark.skipif(OPENVINO not in onnxruntime.get_available_providers(), reason="needs onnxruntime-openvino")
def test_a_session_on_an_accelerator_tells_which_operators_it_runs(tmp_path: Path) -> None:
    (session,) = observed(tmp_path, "openvino_provider").sessions or ()
    assert session == ProviderSession("ONNX Runtime", (OPENVINO, CPU), (OPENVINO, CPU), {OPENVINO: 1})
    assert not session.fell_back


def test_what_openvino_runs_on_is_read_from_the_compiled_model_and_from_its_requests() -> None:
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(onnx_file(), b""), "AUTO:CPU")
    assert held_sessions._of_openvino(compiled) == ProviderSession("OpenVINO", (), ("CPU",))
    assert held_sessions._of_openvino(compiled.create_infer_request()) == ProviderSession("OpenVINO", (), ("CPU",))
    assert held_sessions._of_openvino(core) is None


# --- the class of ONNX Runtime, in this process ----------------------------------------------------------------------


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The class as workers have it, for one test."""
    kind = collection.InferenceSession
    for name in ("__init__", "set_providers"):
        monkeypatch.setattr(kind, name, getattr(kind, name))
    asked_providers._note_sessions_of(collection)
    return kind


def test_a_class_that_is_noted_is_what_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    kind: Any = collection.InferenceSession
    before = inspect.signature(kind), kind.__init__.__doc__
    for name in ("__init__", "set_providers"):
        monkeypatch.setattr(kind, name, getattr(kind, name))
    asked_providers._note_sessions_of(collection)
    once = kind.__init__
    asked_providers._note_sessions_of(collection)
    assert kind.__init__ is once
    assert (inspect.signature(kind), kind.__init__.__doc__) == before
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'path_or_bytes'"):
        kind()
    with pytest.raises(ValueError, match="providers"):
        kind(onnx_file(), None, [7], enable_fallback=0)


def test_sessions_are_noted_where_the_library_was_imported_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """As by the fork server: a worker then finds it imported."""
    kind: Any = collection.InferenceSession
    for name in ("__init__", "set_providers"):
        monkeypatch.setattr(kind, name, getattr(kind, name))
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    asked_providers.watch()
    asked_providers.watch()
    assert sum(isinstance(finder, asked_providers._Finder) for finder in sys.meta_path) == 1
    assert asked_providers.asked_by(kind(onnx_file(), providers=[CUDA, CPU])) == (CUDA, CPU)


def test_what_onnx_runtime_asks_for_itself_after_a_failure_is_not_what_was_asked(noted: Any) -> None:
    session = noted(onnx_file(), providers=[CUDA, CPU])
    session.set_providers(session._fallback_providers)
    assert asked_providers.asked_by(session) == (CUDA, CPU)


def test_a_session_that_is_gone_gives_its_place_to_another(noted: Any) -> None:
    session = noted(onnx_file(), providers=[CUDA, CPU])
    known = asked_providers._asked[id(session)]
    other = object.__new__(noted)
    asked_providers._asked[id(other)] = known
    assert asked_providers.asked_by(other) == ()
    del session
    gc.collect()
    assert known[0]() is None


def test_operators_are_recorded_unless_the_project_has_said_whether(noted: Any) -> None:
    entry = asked_providers._RECORDS
    assert asked_providers._recording(None, collection).get_session_config_entry(entry) == "1"
    own = onnxruntime.SessionOptions()
    assert asked_providers._recording(own, collection) is own
    assert own.get_session_config_entry(entry) == "1"
    refused = onnxruntime.SessionOptions()
    refused.add_session_config_entry(entry, "0")
    assert asked_providers._recording(refused, collection).get_session_config_entry(entry) == "0"


def test_nothing_is_recorded_of_sessions_that_can_only_get_the_cpu(noted: Any) -> None:
    options = onnxruntime.SessionOptions()
    noted(onnx_file(), options, providers=[CUDA, CPU])
    noted(onnx_file(), options)
    with pytest.raises(RuntimeError, match="does not have configuration"):
        options.get_session_config_entry(asked_providers._RECORDS)


# --- what that means -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "got", "operators", "fell_back"),
    [
        ((CUDA, CPU), (CPU,), {}, True),
        ((CUDA,), (CPU,), {}, True),
        ((CUDA, CPU), (CPU,), {CPU: 9}, True),
        ((CUDA, CPU), (CUDA, CPU), {CPU: 9}, True),
        ((CUDA, CPU), (CUDA, CPU), {}, False),
        ((CUDA, CPU), (CUDA, CPU), {CUDA: 1, CPU: 8}, False),
        (("TensorrtExecutionProvider", CUDA, CPU), (CUDA, CPU), {}, False),
        ((CPU, CUDA), (CPU,), {}, False),
        (("AzureExecutionProvider", CPU), ("AzureExecutionProvider", CPU), {}, False),
        (("AzureExecutionProvider", CUDA, CPU), ("AzureExecutionProvider", CPU), {}, True),
        ((), (CPU,), {}, False),
    ],
)
def test_a_session_fell_back_where_no_accelerator_that_stood_before_the_cpu_runs_anything(
    asked: tuple[str, ...], got: tuple[str, ...], operators: dict[str, int], fell_back: bool
) -> None:
    assert ProviderSession("ONNX Runtime", asked, got, operators).fell_back is fell_back
