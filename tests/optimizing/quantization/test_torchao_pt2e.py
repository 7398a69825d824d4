"""torchao-pt2e-int8: what is quantized is counted, what is compiled gives the same answers, anywhere it is loaded.

To compile takes longest: one model is, with everything in it, and the others run their int8 program step by step.
"""

from __future__ import annotations

import copy
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch
from torch import nn

from pytest_modelopt.measuring.worker.memory.tensor_meter import weights_bytes
from pytest_modelopt.optimizing import cpu_flags
from pytest_modelopt.optimizing.apply import RecipeDidNothing, optimize
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.optimizing.quantization.pt2e_int8_module import Pt2eInt8
from pytest_modelopt.optimizing.quantization.torchao_pt2e_int8 import TorchaoPt2eInt8
from pytest_modelopt.optimizing.recipe import Context, RecipeError
from tests.optimizing.recipe_models import (
    KINDS,
    TRAPS,
    Optimized,
    apply,
    make,
    outputs,
    relative_error,
    run,
    saved_and_loaded,
)

FLOAT32, ROW = 4, 4 + 8
"""A row of int8 weights has a float32 scale and an int64 zero point, which is 0."""

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="the recipe says that it is for x86 only"
)


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pt2eInt8, "backend", "eager")


@pytest.fixture(scope="module")
def compiled() -> tuple[nn.Module, torch.Tensor, Optimized]:
    """The original, its inputs, and the variant that torch's own compiler made."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(16 * 25, 10)),
    ).eval()
    inputs = torch.randn(8, 3, 16, 16)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the tests: for another number torch would compile once more
    optimization = apply("torchao-pt2e-int8", copy.deepcopy(model), inputs)
    torch.set_num_threads(threads)
    return model, inputs, optimization


class TestCompiled:
    Made = tuple[nn.Module, torch.Tensor, Optimized]

    def test_every_layer_runs_in_an_int8_kernel(self, compiled: Made) -> None:
        assert not any("int8 kernels for" in note for note in compiled[2].notes)

    @pytest.mark.parametrize("examples", [8, 3])
    def test_answers_are_close_for_any_number_of_examples(self, compiled: Made, examples: int) -> None:
        model, inputs, optimization = compiled
        answers, original = run(optimization.model, inputs[:examples]), run(model, inputs[:examples])
        assert relative_error(answers, original) < 0.06
        # and what the compiler made of the program answers as the program
        assert relative_error(answers, run(optimization.model.graph, inputs[:examples])) < 0.02

    def test_a_variant_that_was_compiled_for_one_example_answers_many(self, one_thread: None) -> None:
        """As the gate does it: torch's kernels for sizes left open failed on a chain of convolutions (2.13)."""
        torch.manual_seed(0)
        model = nn.Sequential(
            *(nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()),
            *(nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(32 * 32 * 32, 10)),
        ).eval()
        inputs = torch.randn(6, 1, 32, 32)
        context = Context(inputs[:1], lambda: iter([inputs]), seed=0)
        variant = optimize(copy.deepcopy(model), parse("torchao-pt2e-int8").steps, context).model
        for examples in (1, 6, 2):
            answers = run(variant, inputs[:examples])
            assert relative_error(answers, run(model, inputs[:examples])) < 0.06

    def test_bytes_are_counted_by_hand(self, compiled: Made) -> None:
        weights, rows = 8 * 27 + 16 * 72 + 10 * 400, 8 + 16 + 10
        assert weights_bytes(compiled[2].model) == weights + rows * (ROW + FLOAT32)

    def test_batch_norm_is_folded_and_everything_counts(self, compiled: Made) -> None:
        changed = {layer.type: layer.changed_bytes for layer in compiled[2].coverage.layers}
        assert changed["BatchNorm2d"] == 2 * 8 * FLOAT32
        assert changed["Linear"] == 10 * 400 * FLOAT32  # its bias is as it was

    def test_the_compilers_settings_stay_as_they_are(self, compiled: Made) -> None:
        import torch._inductor.config as inductor

        run(compiled[2].model, compiled[1])
        assert inductor.freezing is False

    def test_saved_it_answers_the_same_in_a_fresh_process(self, compiled: Made, tmp_path: Path) -> None:
        _, inputs, optimization = compiled
        variant = optimization.model
        torch.save((variant, inputs, run(variant, inputs)), tmp_path / "variant.pt", pickle_module=cloudpickle)
        loads = (
            "import torch; torch.set_num_threads(1); "
            "model, inputs, answer = torch.load('variant.pt', weights_only=False); "
            "assert torch.equal(model(inputs), answer)"
        )
        setup = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[3])!r}); "
        done = subprocess.run(
            [sys.executable, "-c", setup + loads], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    def test_sizes_that_the_program_is_not_made_for_are_refused(self, compiled: Made) -> None:
        with pytest.raises(Exception, match="to be equal to 16, but got 17"):
            run(compiled[2].model, torch.randn(8, 3, 16, 17))


@pytest.mark.usefixtures("uncompiled")
class TestDamage:
    """What was seen on a processor without VNNI: after the first call, float models of the process answer otherwise."""

    @pytest.fixture
    def model(self) -> Any:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4)).eval()

    @pytest.mark.parametrize("damaged", ["the measured call's inputs", "other inputs of the calibration"])
    def test_it_is_noticed_by_the_float_model(self, model: Any, damaged: str, monkeypatch: pytest.MonkeyPatch) -> None:
        example, batch = torch.zeros(1, 16), torch.randn(4, 16)
        first_call = Pt2eInt8.forward

        def damages(program: Pt2eInt8, inputs: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                layer = model[0]
                if damaged == "the measured call's inputs":
                    layer.bias += 0.01  # all answers
                else:
                    layer.weight += 0.01  # answers to zeros stay as they are
            answer: torch.Tensor = first_call(program, inputs)
            return answer

        monkeypatch.setattr(Pt2eInt8, "forward", damages)
        context = Context(example, lambda: iter([batch]), seed=0)
        with pytest.raises(RecipeError, match="since its int8 program has run, the model in floating point answers"):
            optimize(model, parse("torchao-pt2e-int8").steps, context)

    def test_a_model_that_answers_at_random_shows_no_damage(self, model: nn.Module) -> None:
        class Noisy(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layers = model

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                answer: torch.Tensor = self.layers(x) + torch.rand(4)
                return answer

        assert (
            optimize(
                Noisy().eval(),
                parse("torchao-pt2e-int8").steps,
                Context(torch.zeros(1, 16), lambda: iter([torch.randn(4, 16)]), seed=0),
            ).coverage.share
            > 0.5
        )


@pytest.mark.usefixtures("uncompiled")
class TestProgram:
    @pytest.mark.parametrize("kind", [*KINDS, *TRAPS])
    def test_close_and_reloadable_on_every_kind(self, kind: str) -> None:
        model, inputs = make(kind)
        original = run(model, inputs)
        optimization = apply("torchao-pt2e-int8", model, inputs)
        answers = run(optimization.model, inputs)
        assert not optimization.model.training
        assert relative_error(answers, original) < 0.06
        again = outputs(run(saved_and_loaded(optimization.model), inputs))
        assert all(torch.equal(one, other) for one, other in zip(again, outputs(answers), strict=True))
        assert 0 < optimization.coverage.share <= 1

    def test_bytes_and_coverage_counted_by_hand(self) -> None:
        optimization = apply("torchao-pt2e-int8", *make("shared"))
        weights, rows = 64 * 128 + 128 * 128 + 128 * 10, 128 + 128 + 10
        assert weights_bytes(optimization.model) == weights + rows * (ROW + FLOAT32)
        assert optimization.coverage.changed_bytes == weights * FLOAT32

    def test_a_number_that_is_added_to_a_layers_answer_in_place_is_no_fault(self) -> None:
        class Plus(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.first, self.last = nn.Linear(64, 128), nn.Linear(128, 10)

            def forward(self, x: torch.Tensor) -> Any:
                h = self.first(x)
                h += 1
                return self.last(h.relu_())

        model, x = Plus().eval(), torch.randn(32, 64)
        original = run(model, x)
        optimization = apply("torchao-pt2e-int8", model, x)
        assert relative_error(run(optimization.model, x), original) < 0.05
        assert optimization.coverage.multiply_adds_share == 1

    def test_a_compiler_that_puts_in_no_kernel_is_told(self) -> None:
        notes = " | ".join(apply("torchao-pt2e-int8", *make("mlp")).notes)
        assert "int8 kernels for 0 of 3 quantized layers" in notes

    def test_tied_weights_stay_in_float_and_are_named(self) -> None:
        optimization = apply("torchao-pt2e-int8", *make("tied"))
        assert optimization.coverage.changed_bytes == 64 * 64 * FLOAT32
        assert weights_bytes(optimization.model) == 50 * 64 * FLOAT32 + 64 * 64 + 64 * (ROW + FLOAT32)
        assert "1 Linear (12.5 KiB) left in floating point: another module shares" in " ".join(optimization.notes)

    def test_a_module_that_is_never_called_is_unchanged(self) -> None:
        model: Any = nn.Sequential(nn.Linear(16, 16), nn.ReLU())
        model.add_module("auxiliary", nn.Linear(3, 3))
        model.forward = lambda x: model[1](model[0](x))
        optimization = apply("torchao-pt2e-int8", model, torch.randn(4, 16))
        layers = {layer.name: layer.changed_bytes for layer in optimization.coverage.layers}
        assert layers == {"0": 16 * 16 * FLOAT32, "auxiliary": 0}
        assert "1 Linear (48 B) left in floating point: the forward pass never calls them" in optimization.notes
        assert torch.equal(saved_and_loaded(optimization.model).unused[0], model.auxiliary.weight)

    def test_nothing_to_quantize_says_what_the_model_holds(self) -> None:
        model = nn.Sequential(nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8))  # which the export folds all the same
        with pytest.raises(RecipeDidNothing, match=r"torchao-pt2e-int8 changed nothing: the model holds 1 Conv1d"):
            apply("torchao-pt2e-int8", model, torch.randn(2, 3, 8))

    def test_attention_and_subclasses_are_named(self) -> None:
        notes = " | ".join(apply("torchao-pt2e-int8", *make("subclass")).notes)
        assert (
            "1 MyLinear (32.5 KiB) left in floating point: X86InductorQuantizer takes Conv2d and Linear only" in notes
        )

    def test_without_vnni_a_bit_is_given_up_and_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cpu_flags, "name_and_flags", lambda: ("An old CPU", frozenset({"avx2"})))
        model, inputs = make("mlp")
        original = run(model, inputs)
        optimization = apply("torchao-pt2e-int8", model, inputs)
        assert relative_error(run(optimization.model, inputs), original) < 0.06
        assert "this CPU has no VNNI" in " ".join(optimization.notes)

    def test_an_empty_calibration_is_an_error_and_a_short_one_is_noted(self) -> None:
        with pytest.raises(RecipeError, match="the calibration gave no batch"):
            apply("torchao-pt2e-int8", *make("mlp"), batches=0)
        notes = apply("torchao-pt2e-int8(batches=3)", *make("mlp"), batches=2).notes
        assert "calibrated with 2 of 3 batches: the calibration data holds no more" in notes

    def test_a_calibration_batch_that_does_not_fit_is_named(self) -> None:
        model, inputs = make("mlp")
        context = Context(inputs, lambda: iter([inputs, torch.randn(4, 63)]), seed=0)
        with pytest.raises(RecipeError, match="does not run on calibration batch 2"):
            optimize(model, parse("torchao-pt2e-int8").steps, context)

    def test_a_model_that_cannot_be_exported_is_told_its_line(self) -> None:
        class Branches(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.linear = nn.Linear(8, 8)

            def forward(self, x: torch.Tensor) -> Any:
                if x.sum() > 0:
                    return self.linear(x)
                return x

        with pytest.raises(RecipeError, match=r"torch\.export can trace, and Branches is not \(test_torchao_pt2e\.py:"):
            apply("torchao-pt2e-int8", Branches(), torch.ones(2, 8))


class TestRefused:
    def test_needs_calibration_data(self) -> None:
        model, inputs = make("mlp")
        with pytest.raises(RecipeError, match=r"add `calibration: package\.module:function`"):
            optimize(model, parse("torchao-pt2e-int8").steps, Context(inputs, None, seed=0))

    def test_half_precision_is_refused_in_words(self) -> None:
        with pytest.raises(RecipeError, match="the model holds float16: call"):
            apply("torchao-pt2e-int8", nn.Linear(8, 8).half(), torch.randn(2, 8).half())

    def test_other_processors_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(platform, "machine", lambda: "aarch64")
        assert TorchaoPt2eInt8.unfit("cpu") == (
            "torchao-pt2e-int8 uses int8 kernels for x86, and this CPU is aarch64; use int8-dynamic"
        )
        assert "run on cpu only, not on cuda" in TorchaoPt2eInt8.unfit("cuda")

    def test_no_compiler_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CXX", "no-such-compiler")
        assert "there is no no-such-compiler here: install one, or name yours" in TorchaoPt2eInt8.unfit("cpu")


def test_what_keep_names_stays_in_floating_point(uncompiled: None) -> None:
    optimization = apply("torchao-pt2e-int8(keep='stem,head')", *make("cnn"))
    by_name = {layer.name: layer.changed_bytes for layer in optimization.coverage.layers}
    assert by_name["stem"] == by_name["head"] == 0
    assert by_name["block1.conv1"]
    assert by_name["block2.conv2"]
    assert "1 Linear (2.54 KiB), 1 Conv2d (1.75 KiB) left as they are: keep names them" in " ".join(optimization.notes)
