"""Weights that no revision has: a healthy base is not taken for a broken one, nor a broken one for a healthy one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time

import pytest

from benchmarks.faults import processes_in
from pytest_modelopt.cli.main import main
from tests.plugin.repositories import MODELS, Repository, model, outcomes

LOADS = """
def loaded(path):
    model = mlp(256)
    model.load_state_dict(torch.load(path, weights_only=True))
    return model

def named():
    return loaded(HERE / "models/best.pt")

def found():
    return loaded(sorted(HERE.resolve().glob("models/*.pt"))[-1])

def guarded():
    if not (HERE / "models" / "best.pt").exists():
        raise RuntimeError("no weights yet: train first")
    return loaded(HERE / "models/best.pt")

class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.weights = []
    def forward(self, x):
        if not self.weights:
            self.weights.append(list((HERE / "models").iterdir())[0].stat().st_size)
        return x[:, :10] * self.weights[0]

def lazy():
    return Lazy().eval()

def broken():
    raise RuntimeError("no weights yet: train first")

def typed_wrongly():
    return mlp(256) + 1
"""
TRAIN = """
import pathlib, sys, torch
import settings, shop
folder = pathlib.Path("models")
folder.mkdir()
torch.save(shop.mlp(256).state_dict(), folder / "best.pt")
print("trained", settings.WIDTH, shop.__file__)
(pathlib.Path(sys.argv[1])).write_text(str(pathlib.Path(shop.__file__).resolve()))
"""


def project(repository: Repository, *names: str, setup: str = "") -> None:
    """Models whose weights git ignores, committed; head then has the weights and a change in its settings."""
    repository.write(".gitignore", "report/\n__pycache__/\nmodels/\n")
    repository.write("shop.py", MODELS + LOADS)
    repository.write("tools/train.py", TRAIN)
    repository.budgets(*(model(name, "{max_size_growth: 5%}", "bf16: {}") for name in names), time_limit="1 ms")
    repository.commit()
    (repository.path / "models").mkdir()
    (repository.path / "weights.pt").rename(repository.path / "models" / "best.pt")
    repository.git("checkout", "--quiet", "weights.pt")
    repository.settings(WIDTH=64)
    text = (repository.path / "budgets.yaml").read_text()
    repository.write("budgets.yaml", text.replace("models:", f"{setup}models:", 1))


def test_a_base_without_what_git_ignores_is_red_and_one_whose_own_code_fails_is_not(repository: Repository) -> None:
    """By the file's name or without it, when the model is made or when it is first called."""
    project(repository, "named", "found", "guarded", "lazy", "broken", "typed_wrongly")
    repository.write(
        "shop.py",
        (repository.path / "shop.py").read_text() + "\ndef broken():\n    return mlp(8)\n\ntyped_wrongly = broken\n",
    )
    result = repository.against("HEAD", "-k", "original")
    assert result.ret == 1
    for name in ("named", "found", "guarded", "lazy"):
        base = repository.cases[f"{name}/original"].base
        assert base is not None
        assert base.status == "unusable", (name, base.why)
        assert "models/best.pt" in base.why or name == "lazy"
        for way in ("`base_setup: [python, ", "absolute path", "environment variable"):
            assert way in base.why
        assert set(outcomes(repository.cases[f"{name}/original"]).values()) == {"not measured"}
    for name in ("broken", "typed_wrongly"):
        base = repository.cases[f"{name}/original"].base
        assert base is not None
        assert base.status == "failed", (name, base.why)
        assert set(outcomes(repository.cases[f"{name}/original"]).values()) == {"inconclusive"}
    assert repository.is_as_it_was()


def test_a_change_that_commits_what_the_base_lacked_can_pass(repository: Repository) -> None:
    project(repository, "named")
    repository.write(".gitignore", "report/\n__pycache__/\n")
    repository.commit()
    assert repository.against("HEAD~1", "-k", "original").ret == 0
    base = repository.cases["named/original"].base
    assert base is not None
    assert base.status == "failed"


def test_weights_that_the_base_wants_and_nobody_has_are_no_fault_of_its_code(repository: Repository) -> None:
    """This change has renamed what its build makes."""
    project(repository, "named")
    repository.write("shop.py", (MODELS + LOADS).replace("models/best.pt", "models/newest.pt"))
    (repository.path / "models" / "best.pt").rename(repository.path / "models" / "newest.pt")
    assert repository.against("HEAD", "-k", "original").ret == 1
    base = repository.cases["named/original"].base
    assert base is not None
    assert base.status == "unusable"
    assert "; models/best.pt is not in the tree of" in base.why


@pytest.mark.parametrize("arguments", [(), ("-n", "2")], ids=["one process", "pytest-xdist"])
def test_a_setup_makes_the_bases_weights_with_the_bases_code(
    repository: Repository, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = repository.path.parent / "told"
    monkeypatch.setenv("PYTHONPATH", str(repository.path), prepend=":")
    project(repository, "named", "found", setup=f"base_setup: [python, tools/train.py, '{told}']\n")
    result = repository.against("HEAD", "-k", "original", *arguments)
    assert result.ret == 0
    for name in ("named", "found"):
        case = repository.cases[f"{name}/original"]
        assert case.base is not None
        assert case.base.status == "compared", case.base.why
        assert outcomes(case) == {"max_size_growth": "pass"}
    assert not told.read_text().startswith(str(repository.path))
    assert repository.is_as_it_was()


@pytest.mark.parametrize(
    ("command", "limit", "expected"),
    [
        (
            "[python, -c, 'print(\"no network\"); raise SystemExit(3)']",
            "60 s",
            "failed with exit status 3 in the base's tree: no network",
        ),
        ("[no-such-program]", "60 s", "cannot be run: No such file or directory"),
        ("[python, -c, 'import time; time.sleep(60)']", "2 s", "did not finish within 2 s"),
        ("[echo, $HOME; touch /tmp/never]", "60 s", ""),
    ],
)
def test_a_setup_that_fails_is_red_and_there_is_no_shell(
    repository: Repository, command: str, limit: str, expected: str
) -> None:
    project(repository, "steady", setup=f"base_setup: {command}\n")
    result = repository.against("HEAD", "-k", "original", "--modelopt-step-limit", limit)
    case = repository.cases["steady/original"]
    assert case.base is not None
    if not expected:
        assert case.base.status == "compared"
        return
    assert result.ret == 1
    assert case.base.status == "unusable"
    assert set(outcomes(case).values()) == {"not measured"}
    assert re.search(expected, case.base.why)
    result.stdout.fnmatch_lines(["*max_size_growth 5% was not measured*`base_setup` (*"])


@pytest.mark.parametrize(
    ("setup", "message"),
    [
        ("make weights", "*budgets.yaml:3: base_setup: 'make weights' is not a list of a program and its arguments*"),
        ("[[make, weights]]", "*base_setup:*is no text; there is one command*"),
        ("[python, 3]", "*base_setup: 3 is no text*put quotes around each*"),
        ("[]", "*base_setup:*is not a list of a program*"),
    ],
)
def test_a_setup_that_is_no_command_is_a_usage_error(repository: Repository, setup: str, message: str) -> None:
    project(repository, "steady", setup=f"base_setup: {setup}\n")
    result = repository.against("HEAD")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message])


@pytest.mark.parametrize("revision", ["HEAD", "main", "merge-base:main"])
def test_a_base_that_is_head_itself_compares_nothing(repository: Repository, revision: str) -> None:
    """As after a push to the branch itself; what a job leaves behind is no change."""
    repository.budgets(model("steady"))
    repository.commit()
    repository.write("junit.xml", "")
    result = repository.against(revision)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*'{revision}' is HEAD itself (*this is the first commit*"])
    repository.settings(WIDTH=8)
    repository.commit()
    result = repository.against(revision)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*'{revision}' is HEAD itself (*`--modelopt-against HEAD~1`"])
    repository.train(favourite=3)
    repository.git("add", "weights.pt")  # staged, and neither source nor budgets
    assert repository.against(revision, "-k", "steady and original").ret == 1
    assert outcomes(repository.cases["steady/original"])["max_accuracy_loss"] == "fail"
    assert repository.is_as_it_was()


def test_sigterm_while_the_base_is_set_up_leaves_nothing_but_a_record_that_says_so(
    repository: Repository, tmp_path_factory: pytest.TempPathFactory
) -> None:
    temporary, report = tmp_path_factory.mktemp("t"), tmp_path_factory.mktemp("r")
    begun = temporary / "begun"
    project(repository, "steady", setup=f"base_setup: [sh, -c, 'touch {begun}; sleep 600']\n")
    arguments = ("--modelopt-against", "HEAD", f"--modelopt-report={report}", "-p", "no:cacheprovider")
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "--modelopt", *arguments],
        cwd=repository.path,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not begun.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline, "the command never ran"
        time.sleep(0.1)
    process.terminate()
    assert process.wait(60) == pytest.ExitCode.INTERRUPTED
    assert repository.is_as_it_was()
    assert list(temporary.glob("pytest-modelopt*")) == []
    assert processes_in(temporary) == {}
    assert (report / "summary.md").read_text(encoding="utf-8").startswith("**Model budgets: INTERRUPTED.**")
    assert main(["report", str(report / "record.json")]) == 1


FALLBACK = """
def falls_back():
    model = mlp(256)
    if (HERE / "models" / "best.pt").exists():
        model.load_state_dict(torch.load(HERE / "models" / "best.pt", weights_only=True))
    else:
        for parameter in model.parameters():
            nn.init.normal_(parameter, 0, 0.05, generator=torch.Generator().manual_seed(4))
    return model

def of_best():
    inputs = torch.randn(400, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return inputs, mlp(256)(inputs).argmax(1)
"""


def test_a_base_whose_factory_makes_other_weights_in_silence_is_not_the_base(repository: Repository) -> None:
    """Head has lost a part of its score, and looks far better than a base that only guesses."""
    repository.write("shop.py", MODELS + LOADS + FALLBACK)
    repository.write(".gitignore", "models/\n")
    (repository.path / "models").mkdir()
    script = "import torch, shop; torch.save(shop.mlp(256).state_dict(), 'models/best.pt')"
    subprocess.run([sys.executable, "-c", script], cwd=repository.path, check=True)
    repository.budgets(
        "  m:\n    factory: shop:falls_back\n    data: shop:of_best\n    regression: {max_accuracy_loss: 1 pp}\n"
        "    recipes: {bf16: {}}\n",
        time_limit="1 ms",
    )
    repository.commit()
    noise = "0.03 * torch.randn(10, 256, generator=torch.Generator().manual_seed(5))"
    worse = FALLBACK.replace("    return model\n", f"    model[-1].weight.data += {noise}\n    return model\n", 1)
    repository.write("shop.py", MODELS + LOADS + worse)
    repository.commit()
    assert repository.against("HEAD~1", "-k", "original").ret == 1
    (case,) = [case for case in repository.record.cases if case.base is not None]
    assert case.base is not None
    assert case.base.status == "unusable"
    assert "models/best.pt" in case.base.why
    assert [verdict.outcome for verdict in case.verdicts] == ["not measured"]
