"""Write the student of digits-vit as a program for ONNX Runtime, weights/digits_student.onnx.

Run as `python -m example_project.training.export_student`; takes seconds and needs onnx and onnxscript. The number of
images stays open. What the exporter notes of this machine (places in its source files) is left out, so that the file is
the same wherever it is made with the same versions.
"""

import hashlib

import onnx
import torch

from example_project.vision import IMAGE_SIZE, ONNX_PATH, load_student

OPSET = 20


def main() -> None:
    images = torch.zeros(2, 1, IMAGE_SIZE, IMAGE_SIZE)
    program = torch.onnx.export(
        load_student(),
        (images,),
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("n")},),
        opset_version=OPSET,
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    for noted in (proto, proto.graph, *proto.graph.node, *proto.graph.value_info, *proto.graph.input):
        del noted.metadata_props[:]
    onnx.checker.check_model(proto, full_check=True)
    ONNX_PATH.write_bytes(proto.SerializeToString(deterministic=True))
    print(f"{ONNX_PATH.name}: sha256 {hashlib.sha256(ONNX_PATH.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main()
