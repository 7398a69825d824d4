"""Figures of one case that contradict each other: the record is refused, by every command, with both of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_modelopt.cli.main import main
from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.results.answers import Agreement, Changed, Interval, Repeat, Slices
from pytest_modelopt.results.candidate import Provenance
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.consistency.contradictions import TIMED_LIMITS, disagreement, disagreement_of
from pytest_modelopt.results.consistency.small_files import format_small_file
from pytest_modelopt.results.json import dumps
from pytest_modelopt.results.measurement import Coverage, LayerCoverage, ProcessMemory, RecipeStep
from pytest_modelopt.results.observations import Observations
from pytest_modelopt.results.verdicts import Waiver
from pytest_modelopt.results.wrong_pairs import Pairing
from tests.reporting.records_by_hand import MIB, case, limit, measurement, record, timing, variant_changed

SEEN = Observations(target_classes=3, rarer_targets=200, output_classes=4, predicted_classes=3, most_predicted=150)
"""Of 360 examples: 160 are of the most frequent class."""
CASE = case(
    limits=(limit("max_size", MIB, "1 MiB"),),
    reference=replace(measurement(None, score=351 / 360), observations=SEEN),
    variant=replace(
        measurement("int8-dynamic", weights=MIB, peak=MIB, size=MIB, score=350 / 360),
        repeat=Repeat(360, 348 / 360, 2),
        process_memory=ProcessMemory((5, 6, 7), "VmHWM"),
    ),
    agreement=Agreement(360, 2, 1, 4, Changed((3, 5, 8, 9), (1, 1, 2, 0), (1, 1, 1, 1), (0, 2, 2, 2))),
    timing=timing(20),
    coverage=Coverage(
        (LayerCoverage("a", "Linear", 400, 100, 90, 90), LayerCoverage("b", "Linear", 600, 0, 10, 0)),
        (RecipeStep("int8-dynamic", 100, 1000),),
    ),
)
CASE = replace(CASE, slices=Slices(("0", "1", "2"), True, (160, 150, 50), (0.0, 1 / 150, 0.0), (0, 2, 0), (0, 1, 0)))


def changed(path: str, value: Any) -> dict[str, Any]:
    """The record of `CASE` as JSON data, with another value at `path`: names and positions."""
    data: dict[str, Any] = json.loads(dumps(record(CASE)))
    *parents, last = path.split(".")
    inner: Any = data["cases"][0]
    for name in parents:
        inner = inner[int(name) if name.isdecimal() else name]
    inner[int(last) if last.isdecimal() else last] = value
    return data


EARLIER = {"runs": 4, "freedom": 3, "speedup": 0.5, "latency": 0.5}
CONTRADICTIONS: dict[str, tuple[str, Any, str]] = {
    "a score below what the counts say": ("variant.score", 0.65, "reference.score 0.975 and variant.score 0.65 are"),
    "a score above": ("variant.score", 1.0, "351 and 360 right answers"),
    "a score above the best": ("variant.score", 1.5, "variant.score is 1.5, but accuracy lies from 0 to 1"),
    "a score below the worst": ("reference.score", -0.1, "reference.score is -0.1, but accuracy"),
    "a score that no count gives": ("variant.score", 0.9723, "variant.score is 0.9723, which is no share of 360"),
    "fewer lost": ("agreement.right_to_wrong", 1, "agreement counts 1 lost, 1 won and 4 flips of 360"),
    "fewer flips than lost and won": ("agreement.flips", 2, "cannot turn right or wrong while the prediction stays"),
    "fewer flips than are listed": ("agreement.flips", 3, "agreement.flips is 3, and agreement.changed lists 4"),
    "an example listed twice": ("agreement.changed.index", [3, 3, 8, 9], "agreement.changed.index must rise"),
    "an example that there is not": ("agreement.changed.index", [3, 5, 8, 360], "below the 360 examples"),
    "a target that makes it no loss": ("agreement.changed.target", [2, 1, 2, 0], "lists 1 such examples"),
    "other examples": ("agreement.examples", 720, "reference.examples is 360"),
    "of other data": ("variant.data_fingerprint", "ff", "are of different examples"),
    "no original": ("reference", None, "reference is null, but the case has no error"),
    "no variant": ("variant", None, "variant is null, but the case has no error"),
    "a base that is none": ("base", {"name": "b", "status": "new", "why": "x", "notes": []}, "base.status is new"),
    "lower is better": ("higher_is_better", False, "accuracy is better when it is higher"),
    "no metric": ("metric", None, "metric is null, but there is a score"),
    "a metric that counts nothing": ("metric", "cosine", "is its own measure"),
    "top-K counts, too": ("metric", "shop:score", "shop:score is not right-or-wrong per example"),
    "a file smaller than the weights": (
        "variant.size_bytes",
        1,
        "variant.size_bytes is 1, variant.weights_bytes 1048576",
    ),
    "weights larger than the file": ("variant.weights_bytes", MIB + 1, "weights_bytes 1048577, and no note says why"),
    "less than nothing": ("variant.size_bytes", -5, "variant.size_bytes is -5"),
    "a file without bytes": ("reference.size_bytes", 0, "reference.size_bytes is 0"),
    "weights below nothing": ("variant.weights_bytes", -MIB, f"variant.weights_bytes is {-MIB}"),
    "a peak below nothing": ("variant.call_peak_bytes", -1, "variant.call_peak_bytes is -1"),
    "hidden bytes below nothing": ("variant.hidden_bytes", -1, "variant.hidden_bytes is -1"),
    "a process of no bytes": ("variant.process_memory.peaks_bytes", [0, 6, 7], "peaks_bytes must hold the peak"),
    "no process": ("variant.process_memory.peaks_bytes", [], "peaks_bytes must hold the peak"),
    "a second pass over less": ("variant.repeat.examples", 300, "variant.repeat.examples is 300"),
    "a second pass that moved more": ("variant.repeat.score", 0.5, "differ by 170 of 360 examples"),
    "slices of less": ("slices.examples", [160, 150, 40], "slices.examples add up to 350"),
    "slices that lost less": ("slices.right_to_wrong", [0, 1, 0], "slices add up to 1 right to wrong"),
    "a slice's drop": ("slices.drops", [0.0, 0.0, 0.0], "slices.drops of 1 is 0, and 2 lost and 1 won of 150"),
    "slices without counts": ("agreement", None, "slices counts answers that turned, and agreement is null"),
    "other classes": ("slices.examples", [159, 151, 50], "slices.drops of 1"),
    "classes that were not seen": ("reference.observations.target_classes", 4, "slices tells 3 classes"),
    "one class for all": ("reference.observations.predicted_classes", 1, "150 of 360 examples cannot be the most"),
    "an answer beyond the outputs": ("reference.observations.output_classes", 2, "output_classes 2"),
    "more rare ones than may be": (
        "reference.observations.rarer_targets",
        300,
        "slices tells 3 classes and 200 examples of the rarer",
    ),
    "an interval beside counts": ("no_interval", "why", "agreement gives the bounds of the drop"),
    "too few examples beside counts": ("interval_lacks_examples", True, "agreement gives the bounds of the drop"),
    "more changed than there is": ("coverage.layers.0.changed_bytes", 401, "401 of 400 bytes cannot be changed"),
    "changed less than nothing": ("coverage.layers.1.changed_bytes", -1, "-1 of 600 bytes cannot be changed"),
    "some multiply-adds": ("coverage.layers.0.changed_multiply_adds", 50, "changes all or none, not 50"),
    "layers of other steps": ("coverage.layers.0.weight_bytes", 100, "coverage.layers add up to 700"),
    "steps of other layers": ("coverage.steps.0.changed_bytes", 900, "coverage.layers add up to 100"),
    "no thread": ("timing.threads", 0, "timing.threads is 0"),
    "other threads": ("threads", 4, "timing.threads is 1, and threads 4"),
    "pairs after the end": ("timing.seconds", 0.5, "timing.seconds is 0.5, which its pairs do not fit into"),
    "a canary without time": ("timing.conditions.canary_at_best_ns", 0, "canary_at_best_ns is 0"),
    "earlier runs of which none can differ": ("timing.earlier", EARLIER | {"runs": 1}, "timing.earlier has 1 runs"),
    "more deviations than runs": ("timing.earlier", EARLIER | {"freedom": 4}, "4 of them independent"),
    "runs of which most stand alone": ("timing.earlier", EARLIER | {"freedom": 1}, "4 runs, 1 of them independent"),
    "squares beyond any time": ("timing.earlier", EARLIER | {"speedup": 1e308}, "squares of 1e+308, 0.5, 0"),
    "squares below nothing": ("timing.earlier", EARLIER | {"latency": -0.1}, "squares of 0.5, -0.1, 0"),
    "an original that differs beyond any time": (
        "timing.earlier",
        EARLIER | {"original": 1e308},
        "squares of 0.5, 0.5, 1e+308",
    ),
    "a figure that follows beyond any time": (
        "timing.earlier",
        EARLIER | {"speedup_with_original": -1e308},
        "timing.earlier has products of -1e+308 and 0 with the original, whose squares are 0",
    ),
    "a speedup that follows more than its original": (
        "timing.earlier",
        EARLIER | {"own": 4, "original": 0.5, "speedup_with_original": -0.5, "latency_with_original": 0.5},
        "timing.earlier has products of -0.5 and 0.5 with the original, whose squares are 0.5",
    ),
    "more runs of these programs than of all": (
        "timing.earlier",
        EARLIER | {"own": 5},
        "4 runs, 3 of them independent, 5 of these programs",
    ),
    "an original that took no time": (
        "timing.earlier",
        EARLIER | {"own": 4, "fastest_s": 0.0},
        "timing.earlier.fastest_s is 0, with 4 runs of these programs",
    ),
    "an original that took forever": (
        "timing.earlier",
        EARLIER | {"own": 4, "fastest_s": 1e300},
        "timing.earlier.fastest_s is 1e+300, with 4 runs of these programs",
    ),
    "a fastest run of other programs": (
        "timing.earlier",
        EARLIER | {"fastest_s": 0.001},
        "timing.earlier.fastest_s is 0.001, with 0 runs of these programs",
    ),
    "a canary that took no time": (
        "timing.earlier",
        EARLIER | {"own": 4, "canary_at_fastest_ns": 0.0},
        "timing.earlier.canary_at_fastest_ns is 0, with 4 runs of these programs",
    ),
    "faster than its block": ("timing.pairs.variant_ns.7", 2_500_000, "timing.pairs.variant_ns[7] is 2500000"),
    "a block of delays": ("timing.pairs.variant_delayed_ns.7", 10**9, "of which others had 1000000000"),
}


def test_the_figures_that_are_changed_below_agree() -> None:
    assert disagreement_of(CASE) == ""


@pytest.mark.parametrize(("path", "value", "told"), CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_the_record_is_refused_by_every_command(
    path: str,
    value: Any,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)  # the name of the file takes room in a line that is cut
    file = Path("record.json")
    file.write_text(json.dumps(changed(path, value)), encoding="utf-8")
    for command in (["report"], ["merge"], ["comment"], ["update", "--budgets", "none.yaml"]):
        assert main([command[0], str(file), *command[1:]]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(f"{file}: cases[0] (digits-vit/int8-dynamic): its figures contradict each other: ")
        assert told in err


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda of: replace(of, metric="agreement"),
            "reference.score is 0.975: under agreement it is its own",
        ),
        (lambda of: replace(of, metric="top-3"), ""),  # a right answer may be lost while the first prediction stays
        (lambda of: replace(of, metric="top-3", agreement=replace(of.agreement, flips=0, changed=None)), ""),
        (lambda of: replace(of, metric="MulticlassAccuracy(num_classes=3)", agreement=None, slices=None), ""),
        (
            lambda of: replace(
                of,
                metric="MulticlassAccuracy(num_classes=3)",
                agreement=None,
                slices=None,
                variant=replace(of.variant, score=1.1, repeat=None),
            ),
            "variant.score is 1.1, but MulticlassAccuracy",
        ),
        (
            lambda of: replace(
                of, metric="shop:score", agreement=None, slices=None, variant=replace(of.variant, score=93.5)
            ),
            "",
        ),
    ],
)
def test_what_follows_from_a_metric(change: Callable[[Case], Case], told: str) -> None:
    found = disagreement_of(change(CASE))
    assert found.startswith(told) if told else not found


@pytest.mark.parametrize("metric", ["accuracy", "agreement", "cosine", "sqnr"])
def test_a_model_without_data_has_no_score_to_contradict(metric: str) -> None:
    sides = [replace(measurement(recipe), score=None, examples=0, data_fingerprint=None) for recipe in (None, "bf16")]
    assert not disagreement_of(case(metric=metric, reference=sides[0], variant=sides[1]))


def test_targets_of_which_prepare_makes_many_of_one_example() -> None:
    """A metric of tokens: 40 targets of 8 examples, of which 30 differ from the next one's."""
    seen = Observations(pairing=Pairing(40, 0.9, 0.1, changed=30, neighbours=3.0, others=3.0))
    original = replace(measurement(None, score=0.9), examples=8, observations=seen)
    variant = replace(measurement("bf16", score=0.8), examples=8)
    assert not disagreement_of(case(metric="shop:tokens", reference=original, variant=variant))


def test_an_area_under_a_curve_may_be_a_little_more_than_one() -> None:
    """Its float32 numbers are rounded before they are added up."""
    sides = [measurement(recipe, score=1.00001) for recipe in (None, "bf16")]
    assert not disagreement_of(case(metric="BinaryAUROC", reference=sides[0], variant=sides[1]))


@pytest.mark.parametrize(("low", "high", "is_refused"), [(0.0, 0.1, True), (0.38, 0.5, False), (0.2, 0.35, False)])
def test_a_drop_lies_near_its_interval(low: float, high: float, is_refused: bool) -> None:
    """41.0 and 40.7: a skewed score may lie beside its bounds, but not far from them."""
    sides = [measurement(recipe, score=score) for recipe, score in ((None, 41.0), ("bf16", 40.7))]
    of = case(metric="shop:score", reference=sides[0], variant=sides[1])
    told = disagreement_of(replace(of, interval=Interval(low, high)))
    expected = "the scores differ by 0.3, far from the interval of that drop, 0 to 0.1"
    assert told == (expected if is_refused else "")


@pytest.mark.parametrize("metric", ["MulticlassF1Score", "torchmetrics.classification.BinaryAUROC(max_fpr=0.5)"])
def test_a_share_is_better_when_it_is_higher(metric: str) -> None:
    sides = [measurement(recipe, score=score) for recipe, score in ((None, 0.9), ("bf16", 0.335))]
    told = disagreement_of(case(metric=metric, higher_is_better=False, reference=sides[0], variant=sides[1]))
    assert told == f"higher_is_better is false, but {metric} is better when it is higher"


def test_no_two_cases_have_one_id_on_one_machine() -> None:
    made = record(CASE, CASE)
    assert "another case has the same id, budgets.yaml::digits-vit/int8-dynamic" in disagreement(made)


def test_weights_in_floating_point_are_weights() -> None:
    seen = replace(SEEN, float_bytes={"float32": 74_952})
    of = variant_changed(CASE, weights_bytes=0, observations=seen)
    assert "variant.weights_bytes is 0, but variant.observations.float_bytes counts 74952" in disagreement_of(of)


def test_a_run_has_as_many_timed_limits_as_its_tests_may_state() -> None:
    """Among more of them the risk of a false FAIL would be shared until none is left."""
    assert sum(kind.is_timed for kind in LIMITS.values()) == TIMED_LIMITS
    of = replace(record(CASE, replace(CASE, id=f"{CASE.id}#2")), planned=(CASE.id,), collected=("another",))
    assert not disagreement(replace(of, timed_limits=18))
    assert disagreement(replace(of, timed_limits=19)) == "timed_limits: must be from 0 to 18 with 2 known tests, not 19"
    assert disagreement(replace(of, timed_limits=-1)) == "timed_limits: must be from 0 to 18 with 2 known tests, not -1"


def test_a_file_that_is_smaller_than_the_weights_says_so_with_these_figures() -> None:
    small = measurement("bf16", weights=MIB, size=2)
    for side in (small, replace(small, size_bytes=1), replace(small, weights_bytes=MIB + 1)):
        told = disagreement_of(case(variant=replace(side, notes=(format_small_file(small),))))
        assert ("and no note says why" in told) == (side is not small)
    assert not disagreement_of(case(variant=replace(small, weights_bytes=None, runtime="LiteRT")))


@pytest.mark.parametrize(("mib", "are_large", "is_refused"), [(32, False, False), (33, False, True), (33, True, False)])
def test_a_large_model_is_not_timed_as_a_small_one(mib: int, are_large: bool, is_refused: bool) -> None:
    of = timing(20)
    of = replace(of, conditions=replace(of.conditions, are_large=are_large))
    told = disagreement_of(case(reference=measurement(None, weights=mib * MIB, size=40 * MIB), timing=of))
    assert ("are_large is false, and a side holds 34603008 bytes" in told) == is_refused


def test_a_candidate_is_as_large_as_its_files_and_what_they_read() -> None:
    for size, is_refused in ((999, True), (1000, False), (1001, False)):
        files = Provenance("a.onnx", {"a.onnx": 100, "a.bin": 900})
        side = replace(measurement("a", weights=1, size=size), provenance=files)
        assert ("variant.provenance.files counts 1000" in disagreement_of(case(variant=side))) == is_refused


@pytest.mark.parametrize(("until", "is_refused"), [("2026-11-22", True), ("2026-11-23", False), ("2027-01-01", False)])
def test_a_waiver_that_had_run_out_was_none(until: str, is_refused: bool) -> None:
    """The record by hand was started on 2026-11-24, which was the day before elsewhere."""
    waived = replace(limit("max_size", 1.0, "1 B"), waiver=Waiver(until, "why", "budgets.yaml", 3))
    told = disagreement(record(replace(CASE, limits=(waived,))))
    assert ("the waiver of max_size holds until 2026-11-22" in told) == is_refused


@pytest.mark.parametrize(
    ("name", "value", "text", "is_refused"),
    [
        ("max_size", 1e12, "1 MiB", True),
        ("max_size", 12345678.0, "12345678", True),  # no unit: no budgets file can say it
        ("max_size", 1048576.0, " 1  MiB", False),
        ("max_size", 1048576.0, "as much as you like", True),
        ("max_accuracy_drop", 1.0, "2 pp", True),
        ("max_accuracy_drop", 0.02, "2 pp", False),
        ("max_accuracy_drop", 0.02, "0.02", False),
        ("min_accuracy", 0.0, "97%", True),
        ("min_speedup", 1.3, "+30%", False),
        ("min_speedup", 0.1, "1.3x", True),
        ("min_speedup", 1.3, "+1.3", False),  # a number of YAML, a sign of which only a percentage may have as text
        ("min_accuracy", 1e-5, "1e-05", False),
        ("min_accuracy", 0.1, f"0.1{300 * '0'}", False),
        ("max_everything", 1.0, "?", False),
    ],
)
def test_a_limit_is_what_its_text_says(
    name: str, value: float, text: str, is_refused: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "record.json"
    file.write_text(dumps(record(replace(CASE, limits=(limit(name, value, text),)))), encoding="utf-8")
    assert (main(["report", str(file)]) == 2) == is_refused
    err = capsys.readouterr().err
    assert (f"{file}: cases[0] (digits-vit/int8-dynamic): {name} contradicts itself: its text is " in err) == is_refused


def test_so_is_the_ceiling_of_a_waiver(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    waiver = Waiver("2027-01-31", "why", "budgets.yaml", 3, ceiling=1e12, ceiling_text="2 MiB")
    file = tmp_path / "record.json"
    waived = replace(limit("max_size", MIB, "1 MiB"), waiver=waiver)
    file.write_text(dumps(record(replace(CASE, limits=(waived,)))), encoding="utf-8")
    assert main(["comment", str(file)]) == 2
    assert "the ceiling of max_size contradicts itself: its text is '2 MiB'" in capsys.readouterr().err
