"""What a worker saw of a variant beside its figures: raw facts, from which the doctor finds why it did not help."""

from __future__ import annotations

from dataclasses import dataclass, field

from pytest_modelopt.results.wrong_pairs import Pairing


@dataclass(frozen=True, slots=True)
class Ranges:
    """Of one floating-point input: its smallest and its largest number in calibration and in the evaluated data."""

    input: str
    """Its name, or its position from 0."""
    seen: tuple[float, float]
    evaluated: tuple[float, float]
    outside: int
    """Evaluated examples with a number that lies beyond what was seen by more than half of the width of that."""
    examples: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """The calibration data that the recipes really took. None of it is in the evaluation data: that is refused."""

    batches: int
    """In the longest pass over them."""
    examples: int
    """Different ones, of those that were looked at."""
    looked_at: int
    """Examples of all passes."""
    constant: int = 0
    """How many of those hold one single value again and again, as a black image does."""
    classes: tuple[int, ...] | None = None
    """The targets that came with them; None where they are not classes, or too many."""
    ranges: tuple[Ranges, ...] = ()
    """Of the inputs of which both are known."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The numbers that a variant answers with, of the first examples: what is scored, -inf aside."""

    values: int
    distinct: int
    """Different ones among them."""
    deviation: float
    """Their standard deviation."""
    extremes: int
    """How many of them are the smallest or the largest one."""


@dataclass(frozen=True, slots=True)
class OtherInputs:
    """How often a candidate agrees with the original, of a few examples, where its inputs are prepared otherwise."""

    answers: int
    """That were compared: one for each example, or for each position of a sequence or an image."""
    commonest: int
    """How many of the original's are its most frequent one; 0 where they are numbers and no classes."""
    agreeing: dict[str, int]
    """By what was done to the inputs, such as 'multiplied by 255'; '' is as they are given."""
    shifts: tuple[float, ...] = ()
    """Of the first outputs: candidate less original, where that is the same for all examples; else empty."""
    renamed: tuple[tuple[int, int, int], ...] = ()
    """The original's class, the candidate's that stands for it most often, and how often: each class in one of them at
    most. Of the inputs as they are given; empty where the answers are numbers."""


@dataclass(frozen=True, slots=True)
class LayersAtFault:
    """The layers that a recipe must keep for its limits on answers, found by keeping some, on some examples."""

    layers: dict[str, str]
    """Name -> kind: the class, and whether it is depthwise."""
    kept_bytes: int
    """Of their weights."""
    changed_bytes: int
    """Of the weights of all layers that the recipe changes."""
    examples: int
    original_score: float | None
    broken_score: float | None
    """With no layer kept."""
    kept_score: float | None
    broken_flips: int | None
    kept_flips: int | None
    trials: int
    is_least: bool
    """Whether no layer of them can be left out; False where the time was over before."""


@dataclass(frozen=True, slots=True)
class Makeup:
    """What a variant's file and the peak of its call are made of."""

    tensors: dict[str, int]
    """Bytes of each tensor in the file, what several share under the first name."""
    other_bytes: int
    """Of the file: structure, code, settings."""
    operations: dict[str, int] = field(default_factory=dict)
    """Of its graphs, by the layer that they came from."""
    peak_in: str = ""
    """The layer, and its operator, in whose call the most was in use; '' where nobody could see that."""
    peak_own_bytes: int = 0
    """What that call had asked for itself by then, and not given back."""


_OF_THE_CPU = ("CPUExecutionProvider", "AzureExecutionProvider", "CPU")
"""Azure's runs nothing but operators that call a service by name; it is in every wheel for the CPU."""


@dataclass(frozen=True, slots=True)
class ProviderSession:
    """A session of another runtime that a variant holds, where it asked for more than the CPU, or got more."""

    runtime: str
    asked: tuple[str, ...]
    """Execution providers in the order in which the project's code named them; of OpenVINO nobody knows."""
    got: tuple[str, ...]
    """Those that the session has, and the devices that OpenVINO runs on."""
    operators: dict[str, int] = field(default_factory=dict)
    """Number of operators by provider; empty where the runtime does not report it."""

    @property
    def accelerators(self) -> tuple[str, ...]:
        """Providers that it asked for before the CPU's: what stands behind that gets nothing to do."""
        names = list(self.asked)
        before = next((place for place, name in enumerate(names) if name in _OF_THE_CPU[::2]), len(names))
        return tuple(name for name in names[:before] if name not in _OF_THE_CPU)

    @property
    def on_accelerators(self) -> tuple[str, ...]:
        """What it got beside the CPU."""
        return tuple(name for name in self.got if name not in _OF_THE_CPU)

    @property
    def fell_back(self) -> bool:
        """Whether it asked for an accelerator and runs on the CPU all the same: it got none, or none runs anything."""
        runs_something = any(self.operators.get(name, 0) > 0 for name in self.on_accelerators)
        return bool(self.accelerators) and (not self.on_accelerators or (bool(self.operators) and not runs_something))


@dataclass(frozen=True, slots=True)
class Observations:
    """Facts about one variant as it was measured. One that is None was not looked at, or could not be seen.

    For these `unobserved` says why: fact -> reason. It is empty where nothing went wrong.
    """

    # --- how it is built ---------------------------------------------------------------------------------------------
    digest: str | None = None
    """SHA-256 of the modules, their plain attributes, and the bits and strides of all parameters and buffers; where
    weights are packed, of what is saved."""
    training_modules: int | None = None
    compiled: bool | None = None
    """Whether torch.compile has a part in its call."""
    matrix_weights: int | None = None
    """Numbers in the dense floating-point weights of Linear layers and convolutions."""
    zero_weights: int | None = None
    """How many of them are zero."""
    masked_weights: int | None = None
    """Parameters that `torch.nn.utils.prune` keeps whole beside a mask."""
    mask_bytes: int | None = None
    fake_quantizers: int | None = None
    """Modules that only imitate quantization, or observe for it."""
    quantize_nodes: int | None = None
    """Calls in its graphs that quantize or dequantize around floating-point operators."""
    packed_modules: int | None = None
    """Modules with int8 weights that torch's quantized engine runs."""
    torchao_tensors: int | None = None
    """Weights that are tensors of torchao."""
    fused_layers: int | None = None
    """TransformerEncoderLayers that take torch's fused path in eval mode."""
    float_bytes: dict[str, int] | None = None
    """Bytes of floating-point parameters by dtype."""
    narrow_layers: dict[str, int] | None = None
    """Layers with at most one output channel, or no head: name -> width."""
    derived_layers: dict[str, str] | None = None
    """Class names of the project's own that are derived from layers of torch, which exact matches pass over: name ->
    that of torch's class."""
    untied: tuple[str, ...] | None = None
    """Weights that shared one storage before the recipe and are held apart now, each group as `a = b`."""
    untied_bytes: int | None = None
    """Of one copy of each of them."""

    sessions: tuple[ProviderSession, ...] | None = None
    """Sessions of other runtimes that it holds, but for those that run on the CPU as they were asked to."""

    # --- what it does ------------------------------------------------------------------------------------------------
    settings: dict[str, str] | None = None
    """Settings of the whole process once the variant stood: threads, default dtype, quantized engine, ..."""
    answers: str | None = None
    """SHA-256 of its answer to the inputs of the measured call."""
    varies: bool | None = None
    """Whether two calls on the same inputs gave different answers, beyond rounding."""
    first_call_s: float | None = None
    """The first call after it was made; its lazy preparation is in it."""
    makeup: Makeup | None = None
    """Looked at where its memory or its size is more than the original's, or memory breaks a limit."""
    reloads: bool | None = None
    """Whether it answered the same when saved and loaded again; None where no launch needed that."""
    reload_error: str | None = None
    """Why it could not be loaded again; None where it could, or no launch needed that."""

    # --- on the evaluation data, for accuracy ------------------------------------------------------------------------
    target_classes: int | None = None
    """Different classes among the targets."""
    output_classes: int | None = None
    """Classes for which the model gives scores."""
    rarer_targets: int | None = None
    """Examples whose target is not the most frequent one."""
    predicted_classes: int | None = None
    """Different classes among its predictions."""
    most_predicted: int | None = None
    """Examples for which it predicts its most frequent class."""
    spread: Spread | None = None
    """None where it answers with other things than numbers of floating point."""
    pairing: Pairing | None = None
    """Of an original that is scored against targets, under any metric."""
    worst_score: float | None = None
    """The worst that the metric can give, where that is known."""
    other_inputs: OtherInputs | None = None
    """Of a candidate that breaks a limit on its answers, or gives other ones than the original to most examples."""
    layers_at_fault: LayersAtFault | None = None
    """Of a variant that breaks a limit on its answers, where keeping layers helps."""
    calibration: Calibration | None = None
    """None for the original, and where no recipe took any."""

    unobserved: dict[str, str] = field(default_factory=dict)
