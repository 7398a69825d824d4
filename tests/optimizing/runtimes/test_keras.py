"""Models trained in Keras with the torch backend: they are torch modules, whose layers only converters know."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"  # before Keras is imported, which reads it once

import keras
import pytest
import torch
from torch import nn

from pytest_modelopt.measuring.worker.files import size
from pytest_modelopt.optimizing.apply import RecipeDidNothing
from pytest_modelopt.optimizing.recipe import RecipeError
from tests.optimizing.recipe_models import apply, relative_error, run, saved_and_loaded

FLOAT32 = 4
TOLERANCES = {"litert": 1e-5, "litert-int8": 0.05}


def dense() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(10),
        ]
    )


def convolutions() -> keras.Model:
    """Channels last, as Keras has them: NHWC."""
    image = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(16, 3, padding="same", use_bias=False)(image)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    x = keras.layers.DepthwiseConv2D(3, padding="same")(keras.layers.MaxPooling2D()(x))
    x = keras.layers.Conv2D(32, 3, activation="relu")(x)
    return keras.Model(image, keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x)))


MODELS: dict[str, tuple[Callable[[], keras.Model], tuple[int, ...], int]] = {
    "dense": (dense, (64,), 64 * 128 + 128 * 10),
    "convolutions": (convolutions, (16, 16, 3), 3 * 16 * 9 + 16 * 9 + 16 * 32 * 9 + 32 * 10),
}
"""Factory, shape of one example, and the weights of matrices and filters, by hand."""


def trained(kind: str) -> tuple[nn.Module, torch.Tensor]:
    """After an epoch of training, so that batch norm and biases are not as they were made."""
    factory, shape, _ = MODELS[kind]
    keras.utils.set_random_seed(0)
    model = factory()
    model.compile(optimizer="adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(torch.randn(64, *shape), torch.randint(0, 10, (64,)), epochs=1, verbose=0)
    assert isinstance(model, nn.Module)
    return model.eval(), torch.randn(4, *shape)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("expression", TOLERANCES)
def test_litert_runs_a_trained_keras_model(expression: str, kind: str) -> None:
    model, inputs = trained(kind)
    original = run(model, inputs)
    optimization = apply(expression, model, inputs)
    answers = run(optimization.model, inputs)
    assert relative_error(answers, original) < TOLERANCES[expression]
    assert torch.equal(run(saved_and_loaded(optimization.model), inputs), answers)
    if expression == "litert-int8":
        assert optimization.coverage.changed_bytes == MODELS[kind][2] * FLOAT32


@pytest.mark.parametrize("expression", ["int8-dynamic", "prune-unstructured(ratio=0.5)", "low-rank"])
def test_recipes_for_torchs_layers_say_which_ones_convert_the_whole_model(expression: str) -> None:
    with pytest.raises(RecipeDidNothing) as error:
        apply(expression, *trained("dense"))
    assert "changed nothing: the model holds 1 ParameterDict (" in str(error.value)
    assert "litert" in str(error.value)
    assert " convert a whole model, whatever its layers are" in str(error.value)


def test_static_int8_of_torch_needs_a_model_that_can_be_traced() -> None:
    with pytest.raises(RecipeError, match=r"int8-static needs a model that torch\.fx can trace, and Sequential is not"):
        apply("int8-static", *trained("dense"))


def test_dropout_is_off_whatever_the_last_call_was() -> None:
    model, inputs = trained("dense")
    model(inputs, training=True)
    assert torch.equal(run(model, inputs), run(model, inputs))


FRESH = """
import sys
from pathlib import Path
from pytest_modelopt.measuring.worker.memory import process_memory

print(*process_memory.peak_bytes(Path(sys.argv[1]), Path(sys.argv[2]), None))
"""


# Keras makes numpy arrays of torch tensors when it saves a model, in a way that numpy 2 warns about.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
def test_a_fresh_process_takes_the_models_memory_and_not_that_of_keras(tmp_path: Path) -> None:
    """Keras takes more than 100 MB when it is imported, which is there with any model."""
    size.save(dense().eval(), tmp_path / "model.pt")
    size.save(torch.randn(4, 64), tmp_path / "inputs.pt")
    command = [sys.executable, "-c", FRESH, str(tmp_path / "model.pt"), str(tmp_path / "inputs.pt")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert MODELS["dense"][2] * FLOAT32 < int(done.stdout.split()[0]) < 60_000_000
