"""The module that runs a model in OpenVINO, and the bytes in which it keeps it: the IR, the same for the same model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar
from xml.etree import ElementTree

import torch
from torch import nn
from torch.utils import _pytree

from pytest_modelopt.optimizing.calling import Inputs, on
from pytest_modelopt.optimizing.runtimes import telemetry
from pytest_modelopt.optimizing.runtimes.runtime_module import RuntimeModule, Signature
from pytest_modelopt.results.files.locked_folders import held_folder

PRECISION = "f32"
"""How floating point is computed unless a recipe says `auto`: in variants and files, on every processor alike."""
XML_LENGTH_BYTES = 8
"""A program is the length of the XML in this many bytes, the XML, and the constants."""


class OpenVinoModule(RuntimeModule):
    """Runs an OpenVINO model on the CPU, in as many threads as torch has.

    `precision` 'f32' keeps what is float32 in float32; 'auto' lets OpenVINO compute in bfloat16 on CPUs that have it.
    `kept` are tensors of the original that `program` holds in float32 with other numbers (folded with those of a batch
    norm, for one), for coverage; they are not saved.
    """

    runtime: ClassVar[str] = "OpenVINO"

    def __init__(
        self, program: bytes, signature: Signature, precision: str = PRECISION, kept: tuple[torch.Tensor, ...] = ()
    ) -> None:
        super().__init__(program, signature)
        self.precision = precision
        self._kept = kept

    def start(self, threads: int) -> Any:
        return infer_request(unpacked(self.program), threads, self.precision)

    def run(self, engine: Any, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        return infer(engine, inputs)

    def parts(self) -> dict[str, bytes]:
        return dict(zip((".xml", ".bin"), unpacked(self.program), strict=True))

    def contents(self) -> tuple[int, dict[str, int]]:
        xml, constants = unpacked(self.program)
        return len(constants), {"": sum(1 for _ in ElementTree.fromstring(xml).iter("layer"))}

    def float_tensors(self) -> Iterator[torch.Tensor]:
        xml, constants = unpacked(self.program)
        for data in ElementTree.fromstring(xml).iter("data"):
            if data.get("element_type") == "f32" and data.get("size") not in (None, "0"):
                count, offset = int(data.attrib["size"]) // 4, int(data.attrib["offset"])
                yield torch.frombuffer(bytearray(constants[offset : offset + 4 * count]), dtype=torch.float32)
        yield from self._kept

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_kept": ()}


def infer_request(model: tuple[bytes, bytes] | tuple[str], threads: int, precision: str) -> Any:
    """A request to the compiled model on the CPU, of its XML and constants, or of the file of its XML."""
    with telemetry.off():
        import openvino

    settings: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,  # the process chooses its cores, for the original as for the variant
    }
    if precision != "auto":
        settings["INFERENCE_PRECISION_HINT"] = precision
    core = openvino.Core()
    return core.compile_model(core.read_model(*model), "CPU", settings).create_infer_request()


def infer(engine: Any, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """All outputs, in tensors of their own."""
    found = engine.infer([tensor.detach().numpy() for tensor in inputs], share_inputs=True, share_outputs=False)
    return [torch.from_numpy(found[index]) for index in range(len(engine.model_outputs))]


class Flat(nn.Module):
    """A model whose inputs and outputs are tensors by position, as OpenVINO's are: what else it returns is left out."""

    model: nn.Module

    def __init__(self, model: nn.Module, keywords: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self.keywords = keywords

    @classmethod
    def of(cls, model: nn.Module, inputs: Inputs) -> Flat:
        """The class is named after that of the model, so that errors name what the user knows."""
        keywords = tuple(inputs) if isinstance(inputs, Mapping) else ()
        kind: type[Flat] = type(type(model).__name__, (cls,), {})
        return kind(model, keywords).eval()

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        answer = on(self.model, dict(zip(self.keywords, tensors, strict=True)) if self.keywords else tensors)()
        returned: list[torch.Tensor] = []
        for leaf in _pytree.tree_leaves(answer):
            if isinstance(leaf, torch.Tensor):
                # OpenVINO's conversion fails where one tensor is returned twice, and takes a clone for the same one
                twice = any(leaf is other for other in returned)
                returned.append(leaf.unsqueeze(0).squeeze(0) if twice else leaf)
        return tuple(returned)


def packed(ir: Any) -> bytes:
    """An openvino.Model as bytes, in float32 where it is in float32.

    Names are numbered: those that OpenVINO makes up count upwards in a process, and no two conversions would be alike.
    """
    with telemetry.off():
        import openvino

    with held_folder() as folder:
        xml, constants = folder / "model.xml", folder / "model.bin"
        openvino.serialize(ir, xml, constants)
        return _joined(_numbered(xml.read_bytes()), constants.read_bytes())


def unpacked(program: bytes) -> tuple[bytes, bytes]:
    """The XML and the constants."""
    end = XML_LENGTH_BYTES + int.from_bytes(program[:XML_LENGTH_BYTES], "little")
    return program[XML_LENGTH_BYTES:end], program[end:]


def _joined(xml: bytes, constants: bytes) -> bytes:
    return len(xml).to_bytes(XML_LENGTH_BYTES, "little") + xml + constants


def _numbered(xml: bytes) -> bytes:
    net = ElementTree.fromstring(xml)
    net.set("name", "model")
    for layer in net.iter("layer"):
        layer.set("name", f"{layer.get('type')}_{layer.get('id')}")
    for port in net.iter("port"):
        port.attrib.pop("names", None)
    for information in net.iter("rt_info"):  # of a layer: also the names that those had which became it
        for attribute in information.findall("attribute[@name='fused_names']"):
            information.remove(attribute)
    for element in net.iter():
        element.tail = None  # line ends and tabs, a good part of it
        element.text = (element.text or "").strip()
    return ElementTree.tostring(net)
