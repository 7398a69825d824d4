"""The committed weights keep the promises of the README on data that they were not trained on. Needs no plugin."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from example_project import speech, vision, writing
from example_project.training.saving import accuracy

PROJECT = Path(vision.__file__).parent
MEGABYTE = 1_000_000


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_digits_vit_reads_at_least_97_percent_of_the_held_out_images() -> None:
    assert accuracy(vision.load_model(), *vision.test_data()) >= 0.97


@pytest.mark.parametrize("load", [vision.load_student, vision.load_quantized], ids=["student", "quantized"])
def test_what_was_made_of_it_reads_at_least_97_percent(load: Callable[[], nn.Module]) -> None:
    if load is vision.load_quantized:
        pytest.importorskip("torchao")
    assert accuracy(load(), *vision.test_data()) >= 0.97


def test_the_program_answers_as_the_student_that_it_was_made_of() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    images, _ = vision.test_data()
    answers = onnxruntime.InferenceSession(vision.ONNX_PATH).run(["logits"], {"images": images.numpy()})[0]
    with torch.inference_mode():
        expected = vision.load_student()(images)
    assert torch.allclose(torch.from_numpy(answers), expected, atol=1e-4)


def test_spoken_digits_recognizes_at_least_95_percent_of_the_words_of_unheard_voices() -> None:
    assert accuracy(speech.load_model(), *speech.test_data()) >= 0.95


def test_documents_gpt_knows_more_than_how_often_each_character_comes() -> None:
    """Two thirds of the perplexity of their frequencies on held-out text, and the same step by step with the cache."""
    ids, training = writing.test_data(), writing.train_data().flatten()
    counts = training.bincount(minlength=len(writing.CHARACTERS)).double() + 1
    by_frequency = -(counts / counts.sum()).log()[ids].mean()
    model = writing.load_model()
    with torch.inference_mode():
        logits, _ = model(ids[:, :-1])
        losses = functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
        _, cache = model(ids[:, :96])
        steps = []
        for at in range(96, 128):
            logits_of_step, cache = model(ids[:, at : at + 1], cache)
            steps.append(logits_of_step[:, 0])
    assert losses.mean().exp() <= by_frequency.exp() * 2 / 3
    assert torch.allclose(torch.stack(steps[:-1], dim=1), logits[:, 96:], atol=1e-3)


def test_held_out_images_share_no_image_with_the_training_part() -> None:
    data = torch.load(vision.DATA_PATH, weights_only=True)
    train, test = data["train_indices"].tolist(), data["test_indices"].tolist()
    assert sorted(train + test) == list(range(len(data["images"])))
    kept = {tuple(image.flatten().tolist()) for image in data["images"][data["train_indices"]]}
    assert not any(tuple(image.flatten().tolist()) in kept for image in data["images"][data["test_indices"]])


def test_both_image_parts_hold_the_digits_in_the_same_proportions() -> None:
    train = vision.train_data()[1].bincount(minlength=10)
    test = vision.test_data()[1].bincount(minlength=10)
    assert (len(vision.train_data()[1]), len(vision.test_data()[1])) == (1347, 450)
    # A stratified split is exact up to rounding: within one image per digit.
    assert (test - (train + test) * 450 / 1797).abs().max() < 1


def test_no_test_voice_was_heard_in_training_or_validation() -> None:
    data = torch.load(speech.DATA_PATH, weights_only=True)
    names = data["train_voices"] + data["validation_voices"] + data["test_voices"]
    assert len(names) == len(set(names)) == 76
    families = {part: {name.rstrip("0123456789") for name in data[f"{part}_voices"]} for part in ("train", "test")}
    # m1, m2, ... and f1, f2, ... are different speakers; any other numbered name is one speaker's variant.
    assert not (families["train"] & families["test"]) - {"m", "f"}


def test_test_voices_say_at_least_600_words_each_digit_equally_often() -> None:
    features, labels = speech.test_data()
    assert len(features) == len(labels) >= 600
    assert len(set(labels.bincount(minlength=10).tolist())) == 1


@pytest.mark.parametrize(
    ("load_model", "fewest", "most"),
    [
        pytest.param(vision.load_model, 1_000_000, 2_500_000, id="digits-vit"),
        pytest.param(speech.load_model, 800_000, 2_000_000, id="spoken-digits"),
    ],
)
def test_models_are_of_the_stated_size(load_model: Callable[[], nn.Module], fewest: int, most: int) -> None:
    model = load_model()
    assert fewest <= sum(parameter.numel() for parameter in model.parameters()) <= most
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("project_module", [vision, speech], ids=["digits-vit", "spoken-digits"])
def test_data_is_ready_for_the_model(project_module: object) -> None:
    model, data = project_module.load_model(), (project_module.train_data(), project_module.test_data())  # type: ignore[attr-defined]
    for inputs, targets in data:
        assert (inputs.dtype, targets.dtype) == (torch.float32, torch.int64)
        with torch.inference_mode():
            assert model(inputs[:3]).shape == (3, 10)


@pytest.mark.parametrize(("folder", "most_megabytes"), [("weights", 10), ("data", 8)])
def test_committed_files_stay_small(folder: str, most_megabytes: int) -> None:
    assert 0 < folder_bytes(PROJECT / folder) <= most_megabytes * MEGABYTE
