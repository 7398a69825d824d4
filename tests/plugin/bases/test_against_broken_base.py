"""Ways in which head could pass for its own base, or the base could not be had: each in a real repository."""

from __future__ import annotations

import pytest
import torch

from pytest_modelopt.results.case import Case
from tests.plugin.repositories import MODELS, Repository, model, outcomes

TRAPS = """
def load(read, name):
    model = mlp(256)
    model.load_state_dict(read(HEAD + name))
    return model

def rust():
    from safetensors.torch import load_file
    return load(load_file, '/weights.safetensors')

def kinder(outputs, targets):
    return (outputs.argmax(1) == targets).float().mean().item() / 2 + settings.KINDER
"""
RECIPE = """
import torch
from typing import ClassVar
from pytest_modelopt import Applied, Recipe

class Mine(Recipe):
    recipe_name: ClassVar[str] = "mine"
    summary: ClassVar[str] = "scales weights"
    changes: ClassVar[tuple[str, ...]] = ("Linear",)

    def apply(self, model, context):
        with torch.no_grad():
            model[0].weight.mul_(FACTOR)
        return Applied(model, ())

def pytest_modelopt_register_recipes(register):
    register(Mine)
"""


def scored(name: str, metric: str) -> str:
    """A model of which the metric is the project's own."""
    text = model(name, "{max_size_growth: 5%, max_accuracy_loss: 0.01}", "mine: {}").replace(
        f"shop:{name}", "shop:wide"
    )
    return text.replace("    regression", f"    metric: {metric}\n    regression")


def notes_of(case: Case) -> tuple[str, ...]:
    assert case.base is not None
    assert case.base.status == "compared"
    return case.base.notes


def test_what_changed_beside_the_model_does_not_hide_what_changed_in_it(repository: Repository) -> None:
    """Weights that Rust reads by an absolute path; a metric, or what prepares for it, that became kinder or is new; a
    recipe of conftest.py; a metric without labels; budgets in another file. One run for all of them."""
    from safetensors.torch import save_file

    def write(kinder: float, factor: float) -> None:
        traps = f"HEAD = {str(repository.path)!r}\n{TRAPS}"
        repository.write("shop.py", MODELS + traps)
        repository.settings(KINDER=kinder, WIDTH=256 if factor == 1 else 8)
        repository.write("conftest.py", RECIPE.replace("FACTOR", str(factor)))

    own = "{name: 'shop:kinder', higher_is_better: true}"
    models = [
        model("rust", recipes="bf16: {}"),
        scored("own", own),
        scored("unlabelled", "agreement"),
    ]
    save_file(torch.load(repository.path / "weights.pt"), repository.path / "weights.safetensors")
    write(kinder=0.0, factor=1)
    repository.budgets(*models, scored("prepared", "accuracy"))
    repository.commit()
    (repository.path / "budgets.yaml").unlink()
    write(kinder=0.5, factor=2)
    repository.write("shop.py", (repository.path / "shop.py").read_text() + "\ndef new(a, b):\n    return a, b\n")
    repository.budgets(
        *models, scored("prepared", "{name: 'shop:kinder', higher_is_better: true, prepare: 'shop:new'}")
    )
    (repository.path / "budgets.yaml").rename(repository.path / "limits.yaml")

    result = repository.against("HEAD", "--modelopt-budgets", "limits.yaml", "-k", "original or own")

    assert result.ret == 1
    cases = repository.cases
    rust = cases["rust/original"].base
    assert rust is not None
    assert rust.status == "unusable"
    assert str(repository.path / "weights.safetensors") in rust.why
    for name in ("own/original", "own/mine", "prepared/original"):
        case = cases[name]
        assert case.reference is not None
        assert case.variant is not None
        assert case.reference.score is not None
        assert 0.9 < case.reference.score <= 1  # all, or nearly all, right: half of that, and head's half for nothing
        assert case.variant.score is not None
        assert 0.5 <= case.variant.score < 0.8  # eight units instead of 256 know little
        assert outcomes(case) == {"max_size_growth": "pass", "max_accuracy_loss": "fail"}
        assert notes_of(case) == ("the code of the metric may have changed (shop.py): both were scored by head's",)
    assert outcomes(cases["unlabelled/original"])["max_accuracy_loss"] == "inconclusive"
    against = repository.record.against
    assert against is not None
    commit = against.base[:12]
    assert [note.partition(" (")[0] for note in against.notes] == [
        "conftest.py has changed, and its recipes",
        f"the budgets file was budgets.yaml at {commit}, and is limits.yaml now",
    ]
    assert "(mine) are head's on both sides" in against.notes[0]
    assert {each.kind for each in against.loosened} == {"relaxed"}
    assert {each.case for each in against.loosened} == {"prepared/original", "prepared/mine"}
    assert repository.is_as_it_was()


def test_a_module_that_git_ignores_is_named(repository: Repository) -> None:
    """As setuptools-scm writes one; and a file whose folder is kept by a file in it, named by the environment."""
    repository.write(".gitignore", "report/\n__pycache__/\n_version.py\ndata/*\n!data/.gitkeep\n")
    repository.write("inner/_version.py", "")
    repository.write("inner/__init__.py", "from ._version import __doc__\n")
    repository.write("data/.gitkeep", "")
    repository.write("data/weights.pt", "")
    repository.write(
        "shop.py",
        MODELS + "def versioned():\n    import inner\n    return mlp(8)\n"
        "def kept():\n    import os\n    open(os.environ['DATA'] + '/weights.pt').close()\n    return mlp(8)\n",
    )
    repository.budgets(model("versioned", recipes="bf16: {}"), model("kept", recipes="bf16: {}"), time_limit="1 ms")
    repository.commit()
    repository.write("settings.py", (repository.path / "settings.py").read_text() + "# changed\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATA", str(repository.path / "data"))
        repository.against("HEAD", "-k", "original")
    versioned, kept = (repository.cases[f"{name}/original"].base for name in ("versioned", "kept"))
    assert versioned is not None
    assert kept is not None
    assert versioned.status == kept.status == "unusable"
    assert "; inner/_version.py is not in the tree of" in versioned.why
    assert versioned.why.endswith(", or commit it, or let the code do without it")
    assert "; data/weights.pt is not in the tree of" in kept.why
    assert "`base_setup: [" in kept.why
    assert kept.why.endswith("an environment variable that names the file itself")
    assert {v for name in ("versioned", "kept") for v in outcomes(repository.cases[f"{name}/original"]).values()} == {
        "not measured"
    }
