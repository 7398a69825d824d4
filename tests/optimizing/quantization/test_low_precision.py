"""bf16 and fp16: refused where they would be emulated, and casts that are exact, whole and told."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pytest_modelopt.measuring.worker.environment import environment
from pytest_modelopt.measuring.worker.memory.tensor_meter import weights_bytes
from pytest_modelopt.optimizing import cpu_flags
from pytest_modelopt.optimizing.apply import RecipeDidNothing
from pytest_modelopt.optimizing.quantization.bf16 import Bf16
from pytest_modelopt.optimizing.quantization.fp16 import Fp16
from pytest_modelopt.optimizing.recipe import RecipeError
from tests.optimizing.recipe_models import KINDS, TRAPS, apply, make, outputs, relative_error, run, saved_and_loaded

X86 = "processor : 0\nmodel name : An x86\nflags : fpu avx2 {}\n\nprocessor : 1\n"
ARM = "processor : 0\nBogoMIPS : 50.00\nFeatures : fp asimd {}\n"
PRECISION = {"bf16": 2**-8, "fp16": 2**-11}
"""Half the distance between neighboring numbers, relative to them."""


def with_cpuinfo(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> None:
    (folder / "cpuinfo").write_text(text, encoding="utf-8")
    monkeypatch.setattr(cpu_flags, "CPUINFO", folder / "cpuinfo")


class TestWhereItIsEmulated:
    @pytest.mark.parametrize(
        ("cpuinfo", "bf16", "fp16"),
        [
            (X86.format("avx512f avx512_vnni"), False, False),
            (X86.format("avx512_bf16"), True, False),
            (X86.format("amx_bf16 amx_int8"), True, False),
            (X86.format("avx512_bf16 avx512_fp16"), True, True),
            (X86.format("amx_fp16"), False, True),
            (ARM.format("asimddp"), False, False),
            (ARM.format("fphp asimdhp"), False, True),
            (ARM.format("fphp"), False, False),
            (ARM.format("fphp asimdhp bf16 i8mm"), True, True),
        ],
    )
    def test_follows_the_features_of_the_cpu(
        self, cpuinfo: str, bf16: bool, fp16: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        with_cpuinfo(monkeypatch, tmp_path, cpuinfo)
        assert (not Bf16.unfit("cpu"), not Fp16.unfit("cpu")) == (bf16, fp16)

    def test_says_what_the_cpu_lacks_and_what_to_use(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        with_cpuinfo(monkeypatch, tmp_path, X86.format("avx512_vnni"))
        with pytest.raises(RecipeError) as error:
            apply("bf16", *make("mlp"))
        assert str(error.value) == (
            "bf16 needs a CPU that computes in bfloat16 (avx512_bf16 or amx_bf16 or bf16), and An x86 does not: torch "
            "would emulate it, several times slower than float32; use int8-dynamic, or int8-weight-only for size"
        )

    def test_says_that_the_features_cannot_be_read(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(cpu_flags, "CPUINFO", tmp_path / "absent")
        assert "cannot be read, since there is no" in Fp16.unfit("cpu")

    def test_the_record_reads_the_same_features(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        with_cpuinfo(monkeypatch, tmp_path, X86.format("avx512_bf16 sse4_2"))
        seen = environment()
        assert (seen.cpu, seen.cpu_flags) == ("An x86", ("avx2", "avx512_bf16"))

    def test_a_gpu_before_ampere_has_no_bfloat16(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
        assert (
            "capability 8.0 or higher (Ampere), and Tesla T4 has 7.5; torch would emulate it: use fp16"
            in Bf16.unfit("cuda")
        )
        assert Fp16.unfit("cuda") == ""


@pytest.mark.usefixtures("any_cpu")
class TestCast:
    @pytest.mark.parametrize("kind", [*KINDS, *TRAPS])
    @pytest.mark.parametrize("recipe", PRECISION)
    def test_close_half_the_size_and_reloadable_on_every_kind(self, recipe: str, kind: str) -> None:
        model, inputs = make(kind)
        original, before = run(model, inputs), weights_bytes(model)
        optimization = apply(recipe, model, inputs)
        answers = run(optimization.model, inputs)
        assert [answer.dtype for answer in outputs(answers)] == [answer.dtype for answer in outputs(original)]
        # some ten roundings, of weights and activations, on the way through these models
        assert relative_error(answers, original) < 10 * PRECISION[recipe]
        again = outputs(run(saved_and_loaded(optimization.model), inputs))
        assert all(torch.equal(one, other) for one, other in zip(again, outputs(answers), strict=True))
        assert weights_bytes(optimization.model) < (0.52 if kind == "cnn" else 0.501) * before

    def test_the_cast_rounds_to_the_nearest(self) -> None:
        model: Any = nn.Sequential(nn.Linear(64, 64))
        weight = model[0].weight.detach().clone()
        variant = apply("fp16", model, torch.randn(2, 64)).model
        rounded = torch.from_numpy(weight.numpy().astype("float16"))
        assert torch.equal(variant.model[0].weight, rounded)

    def test_ties_stay(self) -> None:
        variant = saved_and_loaded(apply("bf16", *make("tied")).model)
        assert variant.model.head.weight is variant.model.embed.weight
        assert weights_bytes(variant) == 2 * (50 * 64 + 64 * 64 + 64)

    def test_a_buffer_of_two_modules_stays_one(self) -> None:
        class Shift(nn.Module):
            shift: torch.Tensor

            def __init__(self, shift: torch.Tensor) -> None:
                super().__init__()
                self.register_buffer("shift", shift)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x + self.shift

        shift = torch.randn(8)
        variant = apply("bf16", nn.Sequential(Shift(shift), nn.Linear(8, 8), Shift(shift)), torch.randn(2, 8)).model
        assert variant.model[0].shift is variant.model[2].shift
        assert variant.model[0].shift.dtype is torch.bfloat16

    def test_batch_norm_stays_in_float32_and_is_told_and_all_else_counts_as_changed(self) -> None:
        optimization = apply("bf16", *make("cnn"))
        norms = 2 * (32 + 64) * 2 * 4  # weight and bias of four, in bytes
        assert optimization.coverage.weight_bytes - optimization.coverage.changed_bytes == norms
        assert {layer.type for layer in optimization.coverage.layers if not layer.changed_bytes} == {"BatchNorm2d"}
        assert "4 BatchNorm2d (1.5 KiB) stay in float32" in " ".join(optimization.notes)

    def test_outputs_of_every_form_come_back_as_the_original_gives_them(self) -> None:
        Pair = namedtuple("Pair", "logits counts")

        class Mixed(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = nn.Linear(8, 8)

            def forward(self, x: torch.Tensor, tokens: torch.Tensor, flag: bool = True) -> dict[str, object]:
                y = self.layer(x)
                assert x.dtype is not torch.float32 or self.layer.weight.dtype is torch.float32
                assert tokens.dtype is torch.int64
                return {"pair": Pair(y, tokens + 1), "wide": y.double(), "list": [y > 0, None, flag, "text"]}

        inputs: dict[str, Any] = {"x": torch.randn(2, 8), "tokens": torch.ones(2, dtype=torch.int64)}
        model = Mixed().eval()
        original = run(model, inputs)
        variant = apply("bf16", model, inputs).model
        answer = run(variant, inputs)
        assert isinstance(answer["pair"], Pair)
        assert [one.dtype for one in outputs(answer)] == [torch.float32, torch.int64, torch.float64, torch.bool]
        assert answer["list"][1:] == original["list"][1:] == [None, True, "text"]
        inputs["flag"] = False
        assert run(variant, inputs)["list"][2] is False

    def test_works_compiled(self) -> None:
        model, inputs = make("dict output")
        variant = apply("bf16", model, inputs).model
        expected = run(variant, inputs)
        compiled: Any = torch.compile(variant, backend="aot_eager", fullgraph=True)
        assert relative_error(run(compiled, inputs), expected) < 2 * PRECISION["bf16"]

    def test_torchao_can_follow(self) -> None:
        model, inputs = make("mlp")
        original = run(model, inputs)
        optimization = apply("bf16 + torchao-int8-weight-only", model, inputs)
        assert run(optimization.model, inputs).dtype is torch.float32
        assert relative_error(run(optimization.model, inputs), original) < 0.05
        assert [step.recipe for step in optimization.coverage.steps] == ["bf16", "torchao-int8-weight-only"]

    def test_a_model_in_bfloat16_already_is_nothing_to_do(self) -> None:
        with pytest.raises(RecipeDidNothing, match="bf16 changed nothing"):
            apply("bf16", nn.Linear(8, 8).bfloat16(), torch.randn(2, 8).bfloat16())


@pytest.mark.usefixtures("any_cpu")
class TestOverflow:
    def test_a_weight_that_does_not_fit_is_named(self) -> None:
        model: Any = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
        with torch.no_grad():
            model[1].weight[0, 0] = 1e5
        with pytest.raises(RecipeError, match=r"fp16 cannot hold 1\.weight: its largest number is 1e\+05; .* use bf16"):
            apply("fp16", model, torch.randn(2, 8))
        assert apply("bf16", model, torch.randn(2, 8)).coverage.share == 1

    def test_outputs_that_overflow_are_refused_with_the_layer(self) -> None:
        class Grows(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

            def forward(self, x: torch.Tensor) -> Any:
                return self.second(300 * self.first(x)) / 1e4

        torch.manual_seed(0)
        model, x = Grows().eval(), 10 * torch.ones(2, 8)
        with torch.no_grad():
            model.first.weight.fill_(1.0)  # 8 * 10 in each of its outputs, and 24000 after the factor
            model.second.weight.fill_(1.0)  # eight of these are more than 65504
        with pytest.raises(
            RecipeError,
            match=r"infinite or NaN where the original's are not \(first in second, of type Linear\); float16",
        ):
            apply("fp16", model, x)

    def test_a_forward_that_makes_float32_itself_is_told_how_to_write_it(self) -> None:
        class Makes(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = nn.Linear(8, 8)

            def forward(self, x: torch.Tensor) -> Any:
                return self.layer(x + torch.ones(8))

        with pytest.raises(RecipeError, match=r"\(test_low_precision\.py:\d+: `return self\.layer.*dtype=x\.dtype"):
            apply("bf16", Makes(), torch.randn(2, 8))
