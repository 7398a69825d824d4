"""compile: what dynamo traces (there the graphs run as they are), and what inductor makes of a few models."""

from __future__ import annotations

import gc
import io
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import memray
import pytest
import torch
from torch import nn

from pytest_modelopt.measuring.worker.calls.given_inputs import TimedCall
from pytest_modelopt.measuring.worker.calls.latency import Stopwatch, host_clock
from pytest_modelopt.measuring.worker.memory.tensor_meter import weights_bytes
from pytest_modelopt.measuring.worker.settings import settings
from pytest_modelopt.optimizing.apply import Optimization, RecipeDidNothing, optimize
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.optimizing.graph import compiled_graphs, compiled_module
from pytest_modelopt.optimizing.graph.compile import Compile
from pytest_modelopt.optimizing.graph.compiled_module import CompiledModule
from pytest_modelopt.optimizing.recipe import Context, RecipeError
from pytest_modelopt.results.figures import format_bytes
from tests.optimizing.recipe_models import KINDS, TRAPS, apply, make, relative_error, run, saved_and_loaded

FLOAT32 = 4
ROUNDING = 1e-5
"""Relative to the largest answer: sums of some hundred float32 products in another order."""


@pytest.fixture(autouse=True)
def _no_traces_of_others() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def graphs_of(model: nn.Module) -> int:
    assert isinstance(model, CompiledModule)
    assert model.compiler is not None
    return model.compiler.graphs


def optimized(expression: str, model: nn.Module, inputs: Any, varying: Any = tuple) -> Optimization:
    return optimize(model.eval(), parse(expression).steps, Context(inputs, None, seed=0, varying=varying))


@pytest.fixture
def graphs_as_they_are(monkeypatch: pytest.MonkeyPatch) -> list[set[int]]:
    """Let dynamo's graphs run uncompiled, where dynamo is what is tested; of each, the first sizes of its arguments."""
    ran: list[set[int]] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Any], inner_compile: Any) -> Any:
        sizes: set[int] = set()
        ran.append(sizes)

        def call(*args: Any) -> Any:
            sizes.update(value.shape[0] for value in args if isinstance(value, torch.Tensor) and value.ndim)
            return graph.forward(*args)

        return call

    monkeypatch.setattr(compiled_module, "compile_fx", backend)
    return ran


# --- what dynamo traces ----------------------------------------------------------------------------------------------

FUSED = {"encoder", "masked encoder", "dict inputs"}
UNTRACED = {"lstm", "gru"}


@pytest.mark.usefixtures("graphs_as_they_are")
class TestTraced:
    @pytest.mark.parametrize("kind", [kind for kind in (*KINDS, *TRAPS) if kind not in UNTRACED])
    def test_every_kind_answers_as_the_original_and_reloads(self, kind: str) -> None:
        model, inputs = make(kind)
        original = run(model, inputs)
        weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        optimization = apply("compile", model, inputs)
        answers = run(optimization.model, inputs)
        assert type(answers) is type(original)
        assert relative_error(answers, original) < ROUNDING
        assert relative_error(run(saved_and_loaded(optimization.model), inputs), original) < ROUNDING
        assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
        if kind in FUSED:
            reached = (16 * 64 + 64) + (64 * 5 + 5)
            assert optimization.coverage.changed_bytes == reached * FLOAT32
            assert any("run in torch's fused path of the transformer layers" in note for note in optimization.notes)
        else:
            assert optimization.coverage.share == 1
            assert all(layer.multiply_adds == layer.changed_multiply_adds for layer in optimization.coverage.layers)
        assert any(note.startswith("compiled into 1 graph") for note in optimization.notes)

    @pytest.mark.parametrize("kind", sorted(UNTRACED))
    def test_a_model_that_is_not_traced_at_all_is_an_error_with_the_line(self, kind: str) -> None:
        with pytest.raises(RecipeDidNothing, match=r"recipe_models.py:\d+: `return self.head.*RNN, GRU, or LSTM.*try"):
            apply("compile", *make(kind))

    def test_around_an_lstm_the_modules_with_a_forward_of_their_own_are_compiled(self) -> None:
        class Recognizer(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.front = Residual()
                self.recurrent = nn.LSTM(8, 8, batch_first=True)
                self.head = nn.Linear(8, 4)

            def forward(self, x: torch.Tensor) -> Any:
                return self.head(self.recurrent(self.front(x))[0])

        optimization = optimized("compile", Recognizer(), torch.randn(2, 3, 8))
        assert {layer.name for layer in optimization.coverage.layers if layer.changed_bytes} == {"front.layer"}
        lstm = (4 * 8 * 16 + 8 * 8) * FLOAT32
        assert f"1 LSTM ({lstm / 1024:.2f} KiB), 1 Linear (144 B) are in no graph" in " ".join(optimization.notes)

    def test_breaks_are_named_with_their_lines_and_what_runs_outside_of_graphs_is_not_covered(self) -> None:
        model, inputs = Broken(), torch.randn(2, 8)
        original = run(model.eval(), inputs)
        optimization = optimized("compile", model, inputs)
        assert relative_error(run(optimization.model, inputs), original) < ROUNDING
        covered = {layer.name for layer in optimization.coverage.layers if layer.changed_bytes}
        assert covered == {"first", "second", "third"}
        notes = " | ".join(optimization.notes)
        assert "`if x.sum() > 1000:` (a branch on a tensor's value)" in notes
        assert "`x = x + x.sum().item()` (Unsupported Tensor.item() call" in notes
        assert "test_compile.py:" in notes
        assert "are in no graph" in notes

    def test_one_graph_or_an_error(self) -> None:
        with pytest.raises(
            RecipeError, match=r"does not fit into one graph: test_compile.py:\d+: `if x.sum\(\) > 1000:`"
        ):
            optimized("compile(fullgraph=true)", Broken(), torch.randn(2, 8))
        assert optimized("compile(fullgraph=true)", Residual(), torch.randn(2, 8)).coverage.share == 1

    def test_a_forward_that_is_disabled_is_an_error(self) -> None:
        with pytest.raises(RecipeDidNothing, match="it traced nothing at all, as where forward is marked with"):
            optimized("compile", Disabled(), torch.randn(2, 8))

    def test_more_graphs_than_torchs_limit_are_all_compiled(self) -> None:
        """Torch would leave the ninth and further ones uncompiled, without a word."""

        class Numbered(nn.Module):
            def __init__(self, number: int) -> None:
                super().__init__()
                self.layer, self.number = nn.Linear(8, 8), number

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                x = self.layer(x) * self.number
                torch._dynamo.graph_break()
                return torch.relu(x)

        model = nn.Sequential(*[Numbered(number) for number in range(1, 11)])
        optimization = optimized("compile", model, torch.randn(2, 8))
        assert optimization.coverage.share == 1
        assert graphs_of(optimization.model) >= 10

    def test_beyond_our_own_limit_it_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(compiled_graphs, "LARGEST_COUNT", 1)
        optimization = optimized("compile(dynamic=never)", Residual(), torch.randn(2, 8))
        with pytest.raises(torch._dynamo.exc.FailOnRecompileLimitHit):
            run(optimization.model, torch.randn(3, 8))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.relu(self.layer(x))


class Disabled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, x: torch.Tensor) -> Any:
        return self.layer(x)


class Broken(nn.Module):
    """Breaks of all kinds, a part that stays out, a module that is never called, and a weight of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.outside = Disabled()
        self.auxiliary = nn.Linear(3, 3)
        self.scale = nn.Parameter(torch.ones(8))

    def forward(self, x: torch.Tensor) -> Any:
        x = self.first(x)
        if x.sum() > 1000:
            x = x * 2
        x = self.second(x) * self.scale
        x = x + x.sum().item()
        return self.outside(self.third(x))


# --- sizes and modes -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("graphs_as_they_are")
class TestSizes:
    def sizes(self, variant: nn.Module, *counts: int) -> list[int]:
        """The number of graphs after a batch of each count."""
        found = []
        for count in counts:
            x = torch.randn(count, 8)
            with torch.inference_mode():
                variant(x)
            found.append(graphs_of(variant))
        return found

    def test_the_measured_shape_has_its_graph_and_all_others_share_one(self) -> None:
        variant = optimized("compile", Residual(), torch.randn(4, 8)).model
        assert self.sizes(variant, 4, 64, 23, 7, 4, 64) == [1, 2, 2, 2, 2, 2]

    def test_scoring_in_between_does_not_change_which_graph_the_measured_shape_runs(
        self, graphs_as_they_are: list[set[int]]
    ) -> None:
        variant = optimized("compile", Residual(), torch.randn(4, 8)).model
        self.sizes(variant, 64, 23, 4, 4)
        for_measured, for_others = graphs_as_they_are
        assert for_measured == {4, 8}  # 8: of the weight
        assert for_others == {64, 23, 8}

    def test_open_sizes_for_all_need_one_graph(self) -> None:
        variant = optimized("compile(dynamic=always)", Residual(), torch.randn(4, 8)).model
        assert self.sizes(variant, 4, 64, 23) == [1, 1, 1]

    def test_without_open_sizes_each_shape_has_its_graph(self) -> None:
        variant = optimized("compile(dynamic=never)", Residual(), torch.randn(4, 8)).model
        assert self.sizes(variant, 4, 64, 23, 64) == [1, 2, 3, 3]

    def test_lengths_that_vary_in_the_data_are_open_too(self) -> None:
        model, inputs = Residual(), torch.randn(4, 5, 8)
        variant = optimized("compile", model, inputs, lambda: (frozenset({1}),)).model
        for batch, length in ((64, 7), (64, 9), (23, 30), (4, 5)):
            x = torch.randn(batch, length, 8)
            assert relative_error(run(variant, x), run(model, x)) < ROUNDING
        assert graphs_of(variant) == 2

    def test_every_mode_of_gradients_shares_the_graph_and_gets_ordinary_tensors(self) -> None:
        variant, x = optimized("compile", Residual(), torch.randn(4, 8)).model, torch.randn(4, 8)
        for mode in (torch.no_grad(), torch.enable_grad()):
            with mode:
                answer = variant(x)
            assert not answer.is_inference()
            assert not answer.requires_grad
        with torch.inference_mode():
            variant(x)
        assert graphs_of(variant) == 1

    def test_nothing_is_compiled_while_a_stopwatch_runs(self) -> None:
        variant, x = optimized("compile", Residual(), torch.randn(4, 8)).model, torch.randn(4, 8)
        fresh = saved_and_loaded(variant)
        for model in (variant, fresh):
            with torch.inference_mode():
                model(torch.randn(64, 8))  # an inference tensor, as those that a DataLoader makes while scoring
                stopwatch = Stopwatch(TimedCall(model, x, copies=False), host_clock, None)
                before = graphs_of(model)
                stopwatch.block()
            assert graphs_of(model) == before == 2

    def test_other_weights_are_not_answered_for_by_those_of_before(self) -> None:
        variant, x = optimized("compile", Residual(), torch.randn(4, 8)).model, torch.randn(4, 8)
        run(variant, x)
        other = CompiledModule(Residual().eval(), variant.settings)  # type: ignore[arg-type]
        variant.load_state_dict(other.state_dict())
        assert variant.compiler is None
        assert torch.equal(run(variant, x), run(other, x))
        assert variant.double().compiler is None

    def test_what_changes_beside_the_sizes_is_compiled_with_the_settings_of_the_recipe(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        is_freezing = []

        def backend(graph: torch.fx.GraphModule, inputs: list[Any], inner_compile: Any) -> Any:
            is_freezing.append(torch._inductor.config.freezing)
            return graph.forward

        monkeypatch.setattr(compiled_module, "compile_fx", backend)
        variant, x = optimized("compile(freezing=true)", Residual(), torch.randn(4, 8)).model, torch.randn(4, 8)
        run(variant, x)
        torch.set_num_threads(2)  # the fixture of all recipe tests puts it back
        run(variant, x)
        assert is_freezing == [True, True]
        assert torch._inductor.config.freezing is False


# --- what it needs ---------------------------------------------------------------------------------------------------


class TestUnfit:
    def test_without_a_compiler_it_says_so(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("CXX", raising=False)
        with pytest.raises(RecipeError, match=r"compile needs a C\+\+ compiler, and .* is not on the PATH: install it"):
            apply("compile", *make("mlp"))

    def test_the_compiler_that_is_named_is_looked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CXX", "no-such-compiler")
        assert "no-such-compiler is not on the PATH" in Compile.unfit("cpu")
        monkeypatch.setenv("CXX", sys.executable)
        assert Compile.unfit("cpu") == ""

    def test_without_pythons_headers_it_says_so(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
        assert "apt install python3-dev" in Compile.unfit("cpu")

    def test_nothing_can_follow_it_and_packed_weights_cannot_come_before(self) -> None:
        with pytest.raises(
            RecipeError, match="compile compiles the model, which cannot be changed any more; write low"
        ):
            parse("compile + low-rank")
        for first in ("int8-dynamic", "int8-static"):
            with pytest.raises(RecipeError, match="needs them in floating point"):
                parse(f"{first} + compile")


# --- what inductor makes of it ---------------------------------------------------------------------------------------

IN_A_FRESH_PROCESS = """
import sys, torch
torch.set_num_threads(1)
model = torch.load(sys.argv[1], weights_only=False)
inputs, expected = torch.load(sys.argv[2])
with torch.inference_mode():
    answer = model(inputs)
assert model.compiler.graphs == 1, model.compiler.graphs
assert (model.compiler.constants != []) == model.settings.freezing
assert (answer - expected).abs().max() <= 1e-5 * expected.abs().max()
assert torch._inductor.config.freezing is False
"""


def is_the_same_in_a_fresh_process(model: nn.Module, inputs: Any, expected: torch.Tensor, folder: Path) -> None:
    torch.save(model, folder / "model.pt", pickle_module=cloudpickle)
    torch.save((inputs, expected), folder / "inputs.pt")
    in_a_fresh_process(IN_A_FRESH_PROCESS, str(folder / "model.pt"), str(folder / "inputs.pt"))


def in_a_fresh_process(code: str, *arguments: str) -> str:
    """What the code prints."""
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, "PYTHONPATH": paths}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def settings_of_the_process() -> tuple[Any, ...]:
    """What people set, and what our module patches meanwhile. Inductor decides others by itself while it compiles."""
    limits = {name: value for name, value in torch._dynamo.config.get_config_copy().items() if "limit" in name}
    return settings(), torch._inductor.config.freezing, limits


class Widths(nn.Module):
    """About 2.4 MB of weights in matrices, which cost inductor little: it leaves their products to libraries."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(256, 1024), nn.Linear(1024, 256), nn.Linear(256, 256)

    def forward(self, x: torch.Tensor) -> Any:
        return self.third(self.second(torch.relu(self.first(x))))

    WEIGHTS = (2 * 256 * 1024 + 256 * 256 + 1024 + 2 * 256) * FLOAT32


def _by_operator(record: Any) -> bool:
    """Whether an operator of torch's allocated it, called from Python: threads of C++ have no stack here."""
    frames = record.stack_trace(1)
    return bool(frames) and frames[0][1].endswith(f"torch{os.sep}_ops.py")


def counted_and_kept() -> tuple[int, int]:
    """Bytes that compile(freezing=true) of Widths keeps beside the weights: as our meter counts them, and as memray
    finds them still allocated by torch's operators."""
    torch.set_num_threads(1)
    x = torch.randn(4, 256)
    optimized("compile(freezing=true)", Widths(), x)  # what the compiler allocates once for itself
    model = Widths().eval()
    gc.collect()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "allocations.bin"
        with memray.Tracker(file):
            optimization = optimized("compile(freezing=true)", model, x)
            gc.collect()
            counted = weights_bytes(optimization.model) - weights_bytes(model)
        leaked = memray.FileReader(file).get_leaked_allocation_records(merge_threads=True)
        # what operators allocated: a table of Python's or of the compiler's can be as large as weights
        return counted, sum(record.size for record in leaked if _by_operator(record))


@pytest.fixture(scope="module")
def frozen() -> tuple[Optimization, torch.Tensor, torch.Tensor]:
    """compile(freezing=true) of Widths, its inputs, the original's answers."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, x = Widths().eval(), torch.randn(4, 256)
    original = run(model, x)
    return optimized("compile(freezing=true)", model, x), x, original


class TestFreezing:
    def test_answers_as_the_original_here_and_in_a_fresh_process(self, frozen: Any, tmp_path: Path) -> None:
        optimization, x, original = frozen
        assert relative_error(run(optimization.model, x), original) < ROUNDING
        is_the_same_in_a_fresh_process(optimization.model, x, original, tmp_path)

    def test_the_meter_counts_what_it_keeps_beside_the_weights_as_memray_does(self, frozen: Any) -> None:
        # in a process of its own: in one that has run other tests, memray once saw another tensor of 1 MiB alive
        code = f"from {__name__} import counted_and_kept; print(*counted_and_kept())"
        counted, kept = map(int, in_a_fresh_process(code).split())
        assert counted > 0
        assert counted == pytest.approx(kept, rel=0.02, abs=64 * 1024)
        assert f"beside the weights they keep {format_bytes(counted)} of packed and folded" in frozen[0].notes[-1]

    def test_what_is_packed_is_not_saved(self, frozen: Any) -> None:
        buffer = io.BytesIO()
        torch.save(frozen[0].model, buffer, pickle_module=cloudpickle)
        assert len(buffer.getvalue()) == pytest.approx(Widths.WEIGHTS, rel=0.02)

    def test_without_freezing_nothing_is_kept(self, frozen: Any) -> None:
        _, x, original = frozen
        torch.manual_seed(0)
        variant = optimized("compile", Widths(), x).model
        assert relative_error(run(variant, x), original) < ROUNDING
        assert weights_bytes(variant) == Widths.WEIGHTS


class TestInductor:
    def test_several_steps_are_right_and_cover_what_any_of_them_did(self, tmp_path: Path) -> None:
        model, inputs = make("cnn")
        with_statistics(model)
        original, before = run(model, inputs), settings_of_the_process()
        threads, processes = set(threading.enumerate()), children()
        optimization = apply("fold-batchnorm + channels-last + compile(freezing=true, fullgraph=true)", model, inputs)
        assert relative_error(run(optimization.model, inputs), original) < ROUNDING
        assert settings_of_the_process() == before
        assert not [t for t in set(threading.enumerate()) - threads if not t.name.startswith("tqdm")]
        assert children() <= processes  # inductor has left none; pytest-xdist and other tests may have some
        assert optimization.coverage.share == 1
        assert [step.recipe for step in optimization.coverage.steps] == [
            "fold-batchnorm",
            "channels-last",
            "compile(freezing=true, fullgraph=true)",
        ]
        is_the_same_in_a_fresh_process(optimization.model, inputs, original, tmp_path)

    def test_weights_of_torchao_are_compiled(self) -> None:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_

        torch.manual_seed(0)
        model, x = Widths().eval(), torch.randn(4, 256)
        quantize_(model, Int8WeightOnlyConfig())
        with torch.no_grad():
            eager = model(x)
        optimization = optimized("compile", model, x)
        assert relative_error(run(optimization.model, x), eager) < ROUNDING
        assert relative_error(run(saved_and_loaded(optimization.model), x), eager) < ROUNDING
        assert optimization.coverage.share == 1
        assert weights_bytes(optimization.model) == weights_bytes(model) < Widths.WEIGHTS / 3

    def test_16_bits_are_compiled(self) -> None:
        model, x = Widths().eval(), torch.randn(4, 256)
        original = run(model, x)
        variant = optimized("compile", model.bfloat16(), x.bfloat16()).model
        assert relative_error(run(variant, x.bfloat16()), original) < 0.05  # 2^-8 in each of three layers
        assert run(variant, x.bfloat16()).dtype is torch.bfloat16

    def test_what_inductor_cannot_compile_is_an_error_in_words(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CXX", "false")
        with (
            torch._inductor.config.patch({"cpp.cxx": ("false",)}),
            torch._inductor.utils.fresh_cache(),
            pytest.raises(RecipeError, match=r"compile: inductor cannot compile Residual: InvalidCxxCompiler"),
        ):
            optimized("compile", Residual(), torch.randn(2, 8))


def with_statistics(model: nn.Module) -> None:
    """Batch norms as they are after training, not as they are new."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias, module.weight):
                nn.init.normal_(tensor)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]


def children() -> set[str]:
    """Processes that this one has started and that still run."""
    tasks = Path("/proc/self/task").glob("*/children")
    return {pid for task in tasks for pid in task.read_text().split()}
