"""A candidate that is wrong in the same way everywhere: each fault is planted in a real model, tried and named."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from operator import methodcaller
from typing import Any

import pytest
import torch
from torch import nn

from pytest_modelopt.diagnosis import wrong_alike
from pytest_modelopt.measuring.worker.answers.other_inputs import CHANGES, EXAMPLES, answers, combinations, compare
from pytest_modelopt.optimizing.calling import Inputs
from pytest_modelopt.results.candidate import Provenance
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.observations import OtherInputs
from tests.diagnosis.cases_by_hand import only, original_with, rules, variant_with

Run = Callable[[Any], torch.Tensor]

MEAN, DEVIATION = (torch.tensor(each).view(1, 3, 1, 1) for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def images() -> torch.Tensor:
    """From 0 to 1, with channels of different mean and spread, so that no two preparations are alike."""
    noise = torch.rand(EXAMPLES, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    patches = torch.rand(EXAMPLES, 3, 2, 2, generator=torch.Generator().manual_seed(2))
    mixed = 0.5 * noise + 0.5 * nn.functional.interpolate(patches, scale_factor=4)
    scale, place = torch.tensor([0.5, 0.9, 0.3]), torch.tensor([0.1, 0.0, 0.4])
    return mixed * scale.view(1, 3, 1, 1) + place.view(1, 3, 1, 1)


def reader(outputs: int = 8) -> nn.Sequential:
    """Sensitive to scale and place: its hidden units switch at thresholds in the middle of the data."""
    torch.manual_seed(0)
    first, last = nn.Linear(192, 256), nn.Linear(256, outputs)
    model = nn.Sequential(nn.Flatten(), first, nn.ReLU(), last).eval()
    with torch.no_grad():
        first.weight.mul_(4)
        for layer, inputs in ((first, images().flatten(1)), (last, None)):
            given = model[:3](images()) if inputs is None else inputs
            layer.bias.copy_(-(given @ layer.weight.T).mean(0))
    return model


def tried(candidate: Run, model: nn.Module | None = None) -> Case:
    """The case of a candidate that was compared on these images, sound but for that."""
    of = variant_with(other_inputs=compared(candidate, model or reader()))
    assert of.variant is not None
    return replace(of, variant=replace(of.variant, provenance=Provenance("dist/reader.onnx")))


def compared(candidate: Run, model: nn.Module) -> OtherInputs | None:
    inputs: list[Inputs] = [images()[:40], images()[40:]]
    with torch.inference_mode():
        return compare(candidate, inputs, answers(model, inputs))


def by_channel(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    whole = images()
    return whole.mean((0, 2, 3), keepdim=True), whole.std((0, 2, 3), keepdim=True)


def laid_out_as_before(x: torch.Tensor) -> torch.Tensor:
    """In a file that takes no other shape."""
    if x.shape[1:] != (3, 8, 8):
        raise ValueError(x.shape)
    return x.reshape(-1, 8, 8, 3).permute(0, 3, 1, 2)


FAULTS: dict[str, Run] = {
    "multiplied by 255": lambda x: x / 255,
    "divided by 255": lambda x: x * 255,
    "moved from 0..1 to -1..1": lambda x: (x + 1) / 2,
    "moved from -1..1 to 0..1": lambda x: 2 * x - 1,
    "normalized by the mean and the deviation of the data": lambda x: x * by_channel(x)[1] + by_channel(x)[0],
    "normalized by ImageNet's mean and deviation": lambda x: x * DEVIATION + MEAN,
    "with ImageNet's normalization undone": lambda x: (x - MEAN) / DEVIATION,
    "given with their channels reversed (BGR for RGB)": lambda x: x.flip(1),
    "given with their channels last (NHWC for NCHW)": lambda x: x.permute(0, 3, 1, 2),
    "given with their channels second (NCHW for NHWC)": lambda x: x.permute(0, 2, 3, 1),
    "laid out with their channels last (NHWC) in the shape that they have": lambda x: laid_out_as_before(x),
    "given with rows and columns exchanged": lambda x: x.transpose(2, 3),
}
"""What a candidate does to its inputs that it should not do, by what undoes it."""


def test_every_preparation_has_its_fault() -> None:
    assert FAULTS.keys() == CHANGES.keys()


@pytest.mark.parametrize("undone_by", FAULTS)
@pytest.mark.parametrize("outputs", [8, 1])
def test_the_preparation_that_makes_it_right_is_named(undone_by: str, outputs: int) -> None:
    """Of a classifier, and of one number. The data's own mean is that of a batch, and so a little beside."""
    model = reader(outputs)
    finding = only(tried(lambda x: model(FAULTS[undone_by](x)), model))
    assert finding.rule == "wrong-alike"
    assert finding.explains == ("score", "predictions")
    assert finding.is_note
    right = "9[0-9.]+|100" if "of the data" in undone_by else "100"
    start = f"with its inputs {re.escape(undone_by)} the candidate agrees with the original in ({right})% of 64 answers"
    assert re.match(start, finding.text)


MIXED: dict[tuple[str, ...], Run] = {
    ("multiplied by 255", "given with their channels last (NHWC for NCHW)"): lambda x: x.permute(0, 3, 1, 2) / 255,
    (
        "normalized by ImageNet's mean and deviation",
        "given with their channels reversed (BGR for RGB)",
    ): lambda x: x.flip(1) * DEVIATION + MEAN,
    ("with ImageNet's normalization undone", "multiplied by 255"): lambda x: (x / 255 - MEAN) / DEVIATION,
    (
        "divided by 255",
        "normalized by ImageNet's mean and deviation",
        "given with their channels reversed (BGR for RGB)",
        "laid out with their channels last (NHWC) in the shape that they have",
    ): lambda x: (laid_out_as_before(x).flip(1) * DEVIATION + MEAN) * 255,
}


@pytest.mark.parametrize("undone_by", MIXED, ids=" and ".join)
def test_several_preparations_that_make_it_right_are_named_together(undone_by: tuple[str, ...]) -> None:
    model = reader()
    text = only(tried(lambda x: model(MIXED[undone_by](x)), model)).text
    start = f"with its inputs {' and '.join(undone_by)} the candidate agrees with the original in 100% of 64 answers"
    assert text.startswith(start)


def test_what_is_tried_is_bounded() -> None:
    """All images of each change alone, the first of each of many together, all of the best of these."""
    calls: list[int] = []
    model = damaged()

    def counted(x: torch.Tensor) -> torch.Tensor:
        calls.append(len(x))
        return torch.as_tensor(model(x))

    assert rules(tried(counted)) == []
    given, taken_together = 1 + len(CHANGES), list(combinations())
    assert len(taken_together) == len(set(taken_together)) <= 120
    assert sum(calls) <= EXAMPLES * (given + 1) + 40 * (len(taken_together) + 1)


ORDERS = {
    "all": [3, 0, 7, 1, 2, 4, 5, 6],
    "two of them": [0, 1, 2, 3, 4, 6, 5, 7],
    "by one": [7, 0, 1, 2, 3, 4, 5, 6],
}


@pytest.mark.parametrize("order", ORDERS)
def test_labels_in_another_order_are_named(order: str) -> None:
    model = reader()
    finding = only(tried(lambda x: model(x)[:, ORDERS[order]]))
    assert finding.explains == ("score", "predictions")
    with torch.no_grad():
        classes = model(images()).argmax(1).tolist()
    as_given = 100 * sum(ORDERS[order].index(each) == each for each in classes) / 64
    moved = [each for each in sorted(set(classes)) if ORDERS[order].index(each) != each]
    start = r"with its classes renamed the candidate agrees with the original in 100% of 64 answers, "
    renamed = rf"\(class {moved[0]} is called {ORDERS[order].index(moved[0])}"
    assert re.match(rf"{start}and in {as_given:.3g}\d*% as it numbers them {renamed}", finding.text)


def test_a_map_of_classes_must_be_proved_by_more_examples_than_it_has_classes() -> None:
    """64 answers of 64 classes fit any order; so do those of a candidate with one class to an original with one."""
    for renamed, found in (
        ([(each, (each + 1) % 64, 1) for each in range(64)], []),
        ([(3, 7, 64)], []),
        ([(0, 1, 30), (1, 0, 30)], ["wrong-alike"]),
        ([(0, 0, 30), (1, 2, 3), (2, 1, 3), (3, 3, 28)], []),
        ([(0, 1, -30), (1, 0, 94)], []),
        ([(0, 1, 300), (1, 0, 30)], []),
    ):
        counts = OtherInputs(64, 30, {"": 0}, renamed=tuple(renamed))
        assert (wrong_alike._renamed(counts) is not None) == bool(found), renamed


def damaged() -> nn.Module:
    model = reader()
    nn.init.normal_(model.get_parameter("1.weight"), generator=torch.Generator().manual_seed(3))
    return model


def noisy() -> nn.Module:
    """Wrong for some: as after coarse quantization."""
    model = reader()
    with torch.no_grad():
        noise = torch.randn(8, 256, generator=torch.Generator().manual_seed(3))
        model.get_parameter("3.weight").add_(0.3 * noise / 16)
    return model


@pytest.mark.parametrize("candidate", [reader, damaged, noisy])
def test_what_is_right_or_wrong_otherwise_is_not_named(candidate: Callable[[], nn.Module]) -> None:
    assert rules(tried(candidate())) == []


def test_an_answer_that_is_right_nearly_always_proves_nothing() -> None:
    """61 of 64 agree with inputs times 255, where the original gives 60 the same answer; among several, that tells."""
    of = tried(reader())
    for commonest, found in ((60, []), (20, ["wrong-alike"])):
        counts = OtherInputs(64, commonest, {"": 10, "multiplied by 255": 61})
        assert of.variant is not None
        assert of.variant.observations is not None
        seen = replace(of.variant.observations, other_inputs=counts)
        assert rules(replace(of, variant=replace(of.variant, observations=seen))) == found


@pytest.mark.parametrize(
    "counts", [OtherInputs(0, -9, {"": -9, "x": 0}), OtherInputs(9, 0, {"x": 9}), OtherInputs(9, 0, {})]
)
def test_counts_that_cannot_be_are_passed_over(counts: OtherInputs) -> None:
    assert wrong_alike._prepared_otherwise(counts) is None


def test_a_constant_beside_the_outputs_is_named() -> None:
    model = reader()
    beside = torch.zeros(8)
    beside[5] = 7.5
    text = only(tried(lambda x: model(x) + beside)).text
    assert "lie beside the original's by a constant, the same for all of 64 answers (output 5: 7.5)" in text
    assert "lie beside the original's by a constant" in only(tried(lambda x: model(x) - 100)).text
    assert rules(tried(lambda x: model(x) * 1.2)) == []


def test_one_class_for_all_is_named() -> None:
    of = tried(damaged())
    assert of.variant is not None
    assert of.variant.observations is not None
    alone = replace(of.variant.observations, predicted_classes=1, other_inputs=None)
    of = replace(of, variant=replace(of.variant, observations=alone))
    assert "examples the same class, and the original 10 different ones: its weights" in only(of).text
    assert "wrong-alike" not in rules(original_with(of, predicted_classes=1))
    assert of.variant is not None
    assert "wrong-alike" not in rules(replace(of, variant=replace(of.variant, provenance=None)))


def test_answers_of_another_form_are_not_compared() -> None:
    model = reader()
    assert compared(lambda x: model(x)[:, :3], model) is None
    assert compared(model, nn.Sequential(nn.Flatten(), nn.Linear(192, 8)).requires_grad_(False).apply(_zeroed)) is None
    with pytest.raises(ValueError, match="no tensor of floating point"):
        answers(methodcaller("argmax", 1), [images()])


def _zeroed(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.zero_()
