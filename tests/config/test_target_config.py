"""`targets:` of a budgets file: which machine is one, which limits hold there, and each mistake."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_modelopt.config.loader import BudgetsFile, CaseEntry, load_budgets
from pytest_modelopt.config.problems import BudgetsError
from pytest_modelopt.optimizing.this_machine import fingerprint
from pytest_modelopt.results.record import Target
from pytest_modelopt.results.target import Fingerprint, is_for, lacks

SERVER = Fingerprint("x86_64", frozenset({"avx2", "avx512_vnni"}), 8, "", {"torch": "2.13.0+cpu", "openvino": "2025.4"})
LAPTOP = Fingerprint("arm64", frozenset({"asimddp"}), 4)
START = """version: 1
targets:
  server: {instructions: avx512_vnni, required: true, max_memory: 5 MB, max_size: 5 MB}
  arm: {architecture: aarch64}
  big: {cores: 8, max_memory: 7 MB}
  gpu: {gpu: H100, max_memory: 1 kB}
models:
  m:
    factory: a:b
    data: a:b
"""
RECIPES = "    recipes: {bf16: }\n"


def load(folder: Path, text: str) -> BudgetsFile:
    path = folder / "budgets.yaml"
    path.write_text(text, encoding="utf-8")
    return load_budgets(path, relative_to=folder)


def on(machine: Fingerprint, entry: CaseEntry) -> dict[str, str]:
    return {limit.name: f"{limit.text} ({limit.line})" for limit in entry.limits_on(machine)}


def test_limits_hold_everywhere_and_those_of_a_target_on_its_machines(tmp_path: Path) -> None:
    text = START + (
        "    targets: {arm: {max_memory: 3 MB, min_coverage: 9%}, server: {max_size: 6 MB}}\n"
        "    original: {max_memory: 8 MB, targets: {server: {max_memory: 4 MB}}}\n"
        "    candidates: {student: {factory: a:c, targets: {arm: {max_size: 2 MB}}}}\n"
        "    recipes:\n"
        "      int8-dynamic: {max_memory: 6 MB, targets: {arm: {max_memory: 4 MB}}}\n"
    )
    found = {entry.name: entry for entry in load(tmp_path, text).cases}
    recipe = found["m/int8-dynamic"]
    assert on(SERVER, recipe) == {"max_memory": "5 MB (3)", "max_size": "6 MB (11)"}
    assert on(LAPTOP, recipe) == {"max_memory": "4 MB (15)", "min_coverage": "9% (11)"}
    assert on(replace(SERVER, instructions=frozenset()), recipe) == {"max_memory": "6 MB (15)"}, "of two the stricter"
    assert on(replace(LAPTOP, architecture="riscv64"), recipe) == {"max_memory": "6 MB (15)"}
    assert on(replace(SERVER, gpu="NVIDIA H100"), recipe) == on(SERVER, recipe), "it runs beside the GPU"
    assert on(SERVER, found["m/original"]) == {"max_memory": "4 MB (12)"}
    assert on(LAPTOP, found["m/original"]) == {"max_memory": "8 MB (12)"}
    assert on(LAPTOP, found["m/student"]) == {"max_memory": "3 MB (11)", "max_size": "2 MB (13)"}, "no coverage"
    for entry in found.values():
        assert entry.limits == entry.limits_on(fingerprint()), "what a run here is judged by"


@pytest.mark.parametrize(
    ("everywhere", "there", "holds"),
    [
        ("1.2x", "1.5x", "1.5x"),
        ("1.5x", "1.2x", "1.5x"),
        ("1.2x", "{limit: 1.5x, level: warn}", "1.2x"),
        ("{limit: 1.2x, level: warn}", "1.1x", "1.1x"),
    ],
)
def test_a_target_never_takes_a_limit_away(tmp_path: Path, everywhere: str, there: str, holds: str) -> None:
    text = START + f"    recipes: {{bf16: {{min_speedup: {everywhere}, targets: {{arm: {{min_speedup: {there}}}}}}}}}\n"
    [entry] = load(tmp_path, text).cases
    [limit] = [limit for limit in entry.limits_on(LAPTOP) if limit.name == "min_speedup"]
    assert limit.text == holds


def test_what_a_limit_of_the_file_means_depends_on_the_metric_of_each_model(tmp_path: Path) -> None:
    text = START.replace("max_memory: 5 MB", "max_accuracy_drop: 0.5") + RECIPES
    text += "  n:\n    factory: a:b\n    data: a:b\n    metric: sqnr\n" + RECIPES
    with pytest.raises(BudgetsError, match=r"budgets.yaml:3: max_accuracy_drop of the target server: with `sqnr`"):
        load(tmp_path, text)
    [of_m, of_n] = load(tmp_path, text.replace("sqnr", "cosine")).cases
    assert of_m.limits_on(SERVER) == of_n.limits_on(SERVER)


def test_a_pattern_states_limits_at_a_target_for_all_its_models(tmp_path: Path) -> None:
    text = START + "    recipes: {bf16: }\n  '*': {targets: {arm: {max_size: 9 MB}}}\n"
    [entry] = load(tmp_path, text).cases
    assert on(LAPTOP, entry) == {"max_size": "9 MB (12)"}


def test_what_a_model_states_takes_no_limit_of_a_target_away(tmp_path: Path) -> None:
    """Neither that of a pattern nor of `defaults:`, which would go before it at a workload."""
    at = "targets: {arm: {max_size: 1 B}}"
    for own in ("budget: {max_size: 9 MB}", "recipes: {bf16: {max_size: 9 MB}}"):
        for shared in (f"  '*': {{recipes: {{bf16: {{{at}}}}}}}\n", f"defaults: {{recipes: {{bf16: {{{at}}}}}}}\n"):
            [entry] = load(tmp_path, f"{START}    {own}\n{shared}").cases
            assert on(LAPTOP, entry)["max_size"].startswith("1 B"), (own, shared)
    text = START + "    original: {max_size: 9 MB}\n  '*': {original: {" + at + "}}\n"
    [entry] = load(tmp_path, text).cases
    assert on(LAPTOP, entry)["max_size"].startswith("1 B")


def test_what_explore_keeps_is_what_holds_on_this_machine(tmp_path: Path) -> None:
    text = START.replace("cores: 8", "cores: 1") + "    budget: {max_memory: 9 MB, max_flips: 1%}\n" + RECIPES
    [model] = load(tmp_path, text).models
    assert {limit.name: limit.text for limit in model.budget} == {
        limit.name: limit.text for limit in load(tmp_path, text).cases[0].limits
    }
    assert "7 MB" in {limit.text for limit in model.budget} or "5 MB" in {limit.text for limit in model.budget}


def test_the_ceiling_of_a_waiver_is_beyond_the_strictest_of_its_limits(tmp_path: Path) -> None:
    text = START + "    recipes: {bf16: {max_size: 9 MB, targets: {arm: {max_size: 1 kB}}}}\nwaivers:\n"
    waiver = "  - {case: m/bf16, limit: max_size, until: 2999-01-01, reason: x, ceiling: %s}\n"
    assert load(tmp_path, text + waiver % "10 kB").cases
    with pytest.raises(BudgetsError, match="'1 kB' is not looser than the limit, 1 kB"):
        load(tmp_path, text + waiver % "1 kB")


def test_a_waiver_may_be_of_a_limit_that_holds_on_a_target_only(tmp_path: Path) -> None:
    text = (
        START + "    recipes: {bf16: }\nwaivers:\n  - {case: m/bf16, limit: max_size, until: 2999-01-01, reason: x}\n"
    )
    [entry] = load(tmp_path, text).cases
    [waived] = [limit for limit in entry.limits_on(SERVER) if limit.waiver]
    assert waived.name == "max_size"


@pytest.mark.parametrize(
    ("target", "machine", "why"),
    [
        (Target("t", "aarch64"), LAPTOP, ()),
        (Target("t", "arm64"), replace(LAPTOP, architecture="aarch64"), ()),
        (Target("t", "x86_64"), LAPTOP, ("is arm64 and not x86_64",)),
        (Target("t", "x86_64"), replace(LAPTOP, architecture=""), ("is of an unknown architecture and not x86_64",)),
        (Target("t", instructions=("avx2", "amx_int8")), SERVER, ("lacks amx_int8",)),
        (Target("t", cores=8), SERVER, ()),
        (Target("t", cores=9), SERVER, ("has 8 of 9 cores",)),
        (Target("t", device="cpu"), SERVER, ()),
        (Target("t", device="cuda"), SERVER, ("has no NVIDIA GPU",)),
        (Target("t", device="cuda", gpu="h100"), replace(SERVER, gpu="NVIDIA H100 PCIe"), ()),
        (Target("t", device="cuda", gpu="A10"), replace(SERVER, gpu="NVIDIA T4"), ("has NVIDIA T4 and not A10",)),
        (Target("t", runtime={"torch": ">=2.13", "openvino": "==2025.*"}), SERVER, ()),
        (Target("t", runtime={"torch": "<2.13"}), SERVER, ("has torch 2.13.0+cpu and not <2.13",)),
        (Target("t", runtime={"onnxruntime": ">=1"}), SERVER, ("has no onnxruntime",)),
        (
            Target("t", runtime={"torch": "what a record claims"}),
            SERVER,
            ("has torch 2.13.0+cpu and not what a record claims",),
        ),
        (Target("t", "s390x", cores=9), SERVER, ("is x86_64 and not s390x", "has 8 of 9 cores")),
    ],
)
def test_why_a_machine_is_no_target(target: Target, machine: Fingerprint, why: tuple[str, ...]) -> None:
    assert lacks(target, machine) == why


def test_a_case_counts_for_a_target_of_its_device() -> None:
    assert [is_for(Target("t", device=each), "cuda:1") for each in ("", "cpu", "cuda")] == [True, False, True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            START + "    targets: {amr: {max_size: 1 B}}\n" + RECIPES,
            ":11: m names the target 'amr', which `targets:` of the file has not; did you mean 'arm'?",
        ),
        (START + "    recipes: {bf16: {targets: {x: {max_size: 1 B}}}}\n", ":11: m/bf16 names the target 'x', which"),
        (START + "    original: {targets: {x: {max_size: 1 B}}}\n", ":11: m/original names the target 'x', which"),
        (
            START + "    targets: {arm: {max_sizes: 1 B}}\n" + RECIPES,
            ":11: m on the target arm: unknown limit 'max_sizes'",
        ),
        (START + "    targets: {arm: {max_size: 1}}\n" + RECIPES, ":11: max_size of m on the target arm: "),
        (START + "    original: {targets: {arm: {max_flips: 1%}}}\n", "max_flips"),
        (
            START.replace("{cores: 8,", "{") + RECIPES,
            ":5: the target big: it names no kind of machine; state at least one of architecture,",
        ),
        (
            START.replace("cores: 8", "cores: true") + RECIPES,
            ":5: cores of the target big: true is not a number of cores",
        ),
        (
            START.replace("avx512_vnni", "avx512vnni") + RECIPES,
            "there is no instruction set 'avx512vnni' that is known here; did you mean 'avx512_vnni'?",
        ),
        (START.replace("avx512_vnni", "[]") + RECIPES, "is not a list of instruction sets"),
        (START.replace("required: true", "required: maybe") + RECIPES, "'maybe' is neither `true` nor `false`"),
        (
            START.replace("gpu: H100", "gpu: H100, device: cpu") + RECIPES,
            "`gpu:` names a GPU, and `device: cpu` runs its cases beside it",
        ),
        (START.replace("gpu: H100", "device: cuda:1") + RECIPES, "is not a kind of device; write `cpu` or `cuda`"),
        (START.replace("gpu: H100", "gpu: ''") + RECIPES, "is not a part of a GPU's name"),
        (START.replace("aarch64", "'ARM v8'") + RECIPES, "'ARM v8' is not an architecture; write for example `x86_64`"),
        (
            START.replace("cores: 8", "runtime: {onxruntime: '>=1'}") + RECIPES,
            "is not a package whose version records hold; did you mean 'onnxruntime'?",
        ),
        (START.replace("cores: 8", "runtime: {torch: 2.13}") + RECIPES, "2.13 is not a version as pip takes it"),
        (START.replace("cores: 8", "runtime: {torch: new}") + RECIPES, "'new' is not a version as pip takes it"),
        (
            START + "    targets: {gpu: {max_size: 1 B}}\n" + RECIPES,
            ":11: the cases of the target gpu run on cuda, and no case of m does, so",
        ),
        (
            START + "    recipes: {bf16: {targets: {gpu: {max_size: 1 B}}}}\n",
            ":11: the cases of the target gpu run on cuda",
        ),
        (
            START
            + "    metric: a:score\n    recipes: {bf16: {min_accuracy: 0.9, targets: {arm: {min_accuracy: 0.1}}}}\n",
            ":12: min_accuracy of m/bf16 is stated at a target and elsewhere, and nobody knows which is stricter: say",
        ),
        (
            START + "    recipes: {bf16: {targets: {arm: {regression: {max_size_growth: 1%}}}}}\n",
            "limits against a base know no targets; move `regression:` to the recipe or the model",
        ),
        (START.replace("avx512_vnni", "[[x]]") + RECIPES, "is not a list of instruction sets"),
        (
            START.replace("cores: 8", "runtime: {torch: '>=" + "9" * 5000 + "'}") + RECIPES,
            "is not a version as pip takes it",
        ),
        (START.replace("aarch64", '"x86_64\\n"') + RECIPES, "is not an architecture"),
        (START.replace("  arm:", "  'a,b':") + RECIPES, ":4: the target 'a,b' contains `,`"),
        (START.replace("cores: 8", "core: 8") + RECIPES, "unknown key 'core'; did you mean 'cores'?"),
        (START.replace("  arm:", "  a/rm:") + RECIPES, ":4: the target 'a/rm' contains `/`"),
        (START.replace("cores: 8", "cores: 8, max_memory_growth: 1%") + RECIPES, "max_memory_growth"),
        (
            "version: 1\ntargets:\nmodels:\n  m:\n    factory: a:b\n    data: a:b\n" + RECIPES,
            ":2: targets: there is nothing in it; add at least one entry below it, for example `server:`",
        ),
    ],
)
def test_mistakes_name_the_place_and_the_way_out(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BudgetsError) as raised:
        load(tmp_path, text)
    assert message in str(raised.value)
    assert len(raised.value.problems) == 1, "told once"
