"""Layers tried one by one in a worker: a planted layer is found, and kept alone; figures are those of whole runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_modelopt.diagnosis.examine import examine
from pytest_modelopt.exploring.cache import Cache
from pytest_modelopt.exploring.mixing import kept_layers
from pytest_modelopt.exploring.sensitivity import Sensitivity
from pytest_modelopt.judging.judge import judge
from pytest_modelopt.measuring.controller.runner import Runner, StepLimits
from pytest_modelopt.measuring.variant import Variant, environment_now
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.plugin.progress import Silent
from pytest_modelopt.reporting.messages.findings import format_finding
from pytest_modelopt.results.case import PlannedCase
from pytest_modelopt.results.metric import MetricSpec
from tests.measuring.planted_layers import PLANTED

MOST_LOST = 0.05

Variants = Callable[[str, str], Variant]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted")
    (folder / "planted_layers_shop.py").write_text(PLANTED, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def variant(planted: Path) -> Variants:
    def made(kind: str, recipe: str) -> Variant:
        return Variant(
            model=f"planted_layers_shop:{kind}",
            recipe=parse(recipe),
            data=f"planted_layers_shop:{kind}_data",
            calibration=f"planted_layers_shop:{kind}_calibration" if "static" in recipe else None,
            example_inputs=None,
            metric=MetricSpec(),
            import_paths=(str(planted),),
            working_directory=str(planted),
            environment=environment_now(),
        )

    return made


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    limits = StepLimits(time_limit_s=0.001, step_limit_s=120, bisect_s=60)
    made = Runner(limits, Silent(), breaks_answers=lambda case: (case.drop or 0.0) > MOST_LOST)
    yield made
    made.close()


def planned(recipe: str) -> PlannedCase:
    return PlannedCase(id=f"m/{recipe}", model="m", recipe=recipe, limits=(), batch_size=1)


@pytest.mark.parametrize(
    ("kind", "recipe", "layer"),
    [
        ("transformer", "int8-dynamic", "planted.layer"),
        ("convolutional", "int8-static", "planted.layer"),
        ("recurrent", "int8-dynamic", "lstm.layer"),
    ],
)
def test_a_layer_that_must_not_be_quantized_is_found_and_it_alone_is_kept(
    runner: Runner, variant: Variants, tmp_path: Path, kind: str, recipe: str, layer: str
) -> None:
    with runner.layer_trials(planned(recipe), variant(kind, recipe), 60) as trials:
        found = Sensitivity(parse(recipe), Cache(tmp_path, "m"), trials.groups)
        found.measure(trials)
        assert not found.left
        worst, *others = found.told("m", unit_interval=True).ranked
        assert worst.group.name == layer
        assert worst.examples == 240
        assert worst.flips is not None
        assert worst.flips > 240 / 3
        assert all(other.flips is not None and other.flips < 240 / 20 for other in others)
        kept = kept_layers(found.costs, lambda groups: (trials.keep(groups).case.drop or 0.0) < 0.02)
        assert kept == [worst.group]
        whole = runner.measure(
            planned("kept"), replace(variant(kind, recipe), recipe=parse(recipe).keeping([layer])), lambda *_: True
        )
        tried = trials.keep([worst.group])
        assert whole.agreement == tried.case.agreement
        assert whole.drop == tried.case.drop
        assert whole.reference is not None
        assert whole.variant is not None
        assert tried.saved_bytes is not None
        assert whole.reference.weights_bytes is not None
        assert whole.variant.weights_bytes == whole.reference.weights_bytes - tried.saved_bytes


@pytest.mark.parametrize(
    ("kind", "recipe", "layers"),
    [
        ("recurrent", "int8-dynamic", {"lstm.layer": "LSTM"}),
        (
            "efficient",
            "prune-structured(ratio=0.3, round_to=1)",
            {"stem": "Conv2d", "depthwise": "Conv2d (depthwise)"},
        ),
        ("rejecting", "int8-static", {"head": "Linear"}),
    ],
)
def test_a_broken_limit_names_the_layers_that_did_it_and_the_way_out(
    runner: Runner, variant: Variants, kind: str, recipe: str, layers: dict[str, str]
) -> None:
    """The figures are those of the recipe that the sentence tells, measured as any other."""
    case = runner.measure(planned(recipe), variant(kind, recipe), lambda *_: True)
    assert case.error is None, case.error
    assert case.reference is not None
    assert case.variant is not None
    assert case.variant.observations is not None
    assert case.reference.score == 0.875
    assert case.variant.score is not None
    assert case.variant.score < 0.7
    found = case.variant.observations.layers_at_fault
    assert found is not None, case.variant.observations.unobserved
    assert found.layers == layers
    assert found.is_least
    assert found.examples == 240
    assert (found.original_score, found.broken_score) == (0.875, case.variant.score)
    kept = parse(recipe).keeping(list(layers))
    again = runner.measure(planned(kept.text), replace(variant(kind, recipe), recipe=kept), lambda *_: True)
    assert again.variant is not None
    assert found.kept_score == again.variant.score
    assert again.drop is not None
    assert again.drop <= MOST_LOST
    assert again.variant.observations is not None
    assert again.variant.observations.layers_at_fault is None, "no limit is broken"
    (finding,) = [each for each in examine(judge(case, timed_limits=1), None) if each.rule == "layers-at-fault"]
    text = format_finding(case, finding)
    named = " and ".join(f"`{name}` ({kind})" for name, kind in layers.items())
    assert text.startswith(f"the answers break through {named}: `{kept}` scores ")
    assert "where the original scores 87.5%" in text
