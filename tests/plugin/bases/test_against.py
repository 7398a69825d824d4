"""Head against base in real git repositories: what changed is said at its line, what did not is green."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_modelopt.reporting.messages.verdicts import format_verdict
from pytest_modelopt.results import json as record_json
from tests.plugin.repositories import MODELS, Repository, model, outcomes


def test_each_change_has_its_verdict_at_the_line_that_forbids_it(repository: Repository) -> None:
    old = model("gone", recipes="bf16: {}").replace("shop:gone", "shop:steady")
    repository.budgets(model("steady"), model("wide"), model("slow"), model("fragile"), old)
    repository.settings(BROKEN=True)
    base = repository.commit()
    repository.settings(WIDTH=282, TIMES=4)  # 10% more units; four times the work
    repository.budgets(
        model("steady"),
        model("wide", "\n      max_size_growth: 5%\n      max_memory_growth: 20%"),
        model("slow"),
        model("fragile"),
        time_limit="3 s",
    )
    head = repository.commit()
    repository.write("notes.txt", "not committed")

    result = repository.against("HEAD~1")

    assert result.ret == 1
    cases = repository.cases
    assert set(outcomes(cases["steady/original"]).values()) == {"pass"}
    assert set(outcomes(cases["steady/int8-dynamic"]).values()) == {"pass"}
    for name in ("wide/original", "wide/int8-dynamic"):
        assert outcomes(cases[name]) == {"max_memory_growth": "pass", "max_size_growth": "fail"}
        broken = next(verdict for verdict in cases[name].verdicts if verdict.outcome == "fail")
        line = (repository.path / "budgets.yaml").read_text().splitlines()[broken.limit.line - 1]
        assert line.strip() == "max_size_growth: 5%"
        assert base[:12] in format_verdict(cases[name], broken)
    assert outcomes(cases["slow/original"]) == {
        "max_memory_growth": "pass",
        "max_size_growth": "pass",
        "max_accuracy_loss": "pass",
        "max_slowdown": "fail",
    }
    assert set(outcomes(cases["fragile/original"]).values()) == {"inconclusive"}
    why = cases["fragile/original"].base
    assert why is not None
    assert why.status == "failed"
    assert "weights/best.pt" in why.why
    against = repository.record.against
    assert against is not None
    assert (against.base, against.head, against.has_uncommitted) == (base, head, True)
    assert against.removed == ("gone/bf16", "gone/original")
    assert repository.is_as_it_was()


def test_weights_and_data_come_from_their_own_revision(repository: Repository) -> None:
    """Weights that are named relative to the working directory, too. Scores are of head's data for both."""
    repository.budgets(model("steady"))
    repository.commit()
    repository.train(favourite=3)
    repository.settings(EXAMPLES=150)  # neither is committed

    result = repository.against("HEAD")

    assert result.ret == 1
    case = repository.cases["steady/original"]
    assert case.reference is not None
    assert case.variant is not None
    assert case.reference.examples == case.variant.examples == 150
    assert case.reference.score == 1.0  # the data is labelled by the model as it was
    assert case.variant.score is not None
    assert case.variant.score < 0.5
    assert case.reference.data_fingerprint == case.variant.data_fingerprint
    assert case.base is not None
    assert case.base.notes == (
        "the evaluation data has changed: 200 examples at the base, 150 examples now; both were scored on head's",
    )
    assert outcomes(case)["max_accuracy_loss"] == "fail"
    assert outcomes(case)["max_size_growth"] == "pass"


@pytest.mark.parametrize("arguments", [(), ("-n", "2", "--dist", "load")], ids=["one process", "pytest-xdist"])
def test_a_change_of_the_readme_only_is_green(repository: Repository, arguments: tuple[str, ...]) -> None:
    repository.budgets(model("steady"))
    repository.write("README.md", "before")
    base = repository.commit()
    repository.git("switch", "--quiet", "--create", "topic")
    repository.write("README.md", "after")
    repository.commit()
    result = repository.against("merge-base:main", *arguments)
    assert result.ret == 0
    record = repository.record
    assert record.against is not None
    assert (record.against.base, record.against.loosened, record.against.notes) == (base, (), ())
    for case in repository.cases.values():
        assert case.reference is not None
        assert case.variant is not None
        assert case.reference.memory_bytes == case.variant.memory_bytes
        assert case.reference.size_bytes == case.variant.size_bytes
        assert case.drop == 0
        exact = {name: outcome for name, outcome in outcomes(case).items() if name != "max_slowdown"}
        assert set(exact.values()) == {"pass"}
    assert len(repository.cases) == 2
    assert repository.is_as_it_was()


def test_a_package_in_a_folder_of_its_own_is_that_of_the_base(repository: Repository) -> None:
    """As editable installations and pytest's `pythonpath` put it onto the path."""
    repository.budgets(model("steady").replace("shop:steady", "inner.models:wide"))
    repository.write("pytest.ini", "[pytest]\npythonpath = src\n")
    repository.write("src/inner/__init__.py", "WIDTH = 256\n")
    repository.write("src/inner/models.py", "import shop, inner\ndef wide():\n    return shop.mlp(inner.WIDTH)\n")
    repository.commit()
    repository.write("src/inner/__init__.py", "WIDTH = 512\n")
    repository.against("HEAD")
    assert outcomes(repository.cases["steady/original"])["max_size_growth"] == "fail"


def test_a_base_that_imports_heads_modules_is_not_compared(repository: Repository) -> None:
    repository.budgets(model("wide"))
    folder = repository.path / "elsewhere"
    repository.write("elsewhere/layers.py", "")
    repository.write(
        "budgets.yaml",
        (repository.path / "budgets.yaml").read_text() + model("steady"),
    )
    repository.write(
        "shop.py", f"import sys\nsys.path.insert(0, {str(folder)!r})\nimport layers\n" + textwrap.dedent(MODELS)
    )
    repository.commit()
    repository.write("settings.py", (repository.path / "settings.py").read_text() + "# changed\n")
    result = repository.against("HEAD")
    assert result.ret == 1
    case = repository.cases["wide/original"]
    assert case.base is not None
    assert case.base.status == "unusable"
    assert f"layers ({folder / 'layers.py'})" in case.base.why
    assert set(outcomes(case).values()) == {"not measured"}


def test_weights_of_head_are_not_those_of_the_base(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """By an absolute path they are found out; an environment variable that names a folder of head names the base's."""
    where = {
        "absolute": repr(str(repository.path)),
        "variable": "os.environ['SHOP']",
        "shared": "os.environ['CACHE']",
        "lost": "'cache'",
    }
    loads = "".join(
        f"def {name}():\n    model = mlp(256)\n"
        f"    weights = torch.load({folder} + '/weights.pt', weights_only=True)\n"
        "    model.load_state_dict(weights)\n    return model\n"
        for name, folder in where.items()
    )
    repository.write("shop.py", MODELS + f"import os\n{loads}")
    repository.write(".gitignore", "report/\n__pycache__/\ncache/\n")
    repository.write("cache/weights.pt", "")
    shutil.copy(repository.path / "weights.pt", repository.path / "cache" / "weights.pt")
    repository.budgets(*(model(name, recipes="bf16: {}") for name in where))
    repository.commit()
    repository.train(favourite=3)
    monkeypatch.setenv("SHOP", str(repository.path))
    monkeypatch.setenv("CACHE", str(repository.path / "cache"))
    repository.against("HEAD", "-k", "original")
    cases = repository.cases
    absolute, variable = cases["absolute/original"], cases["variable/original"]
    assert absolute.base is not None
    assert absolute.base.status == "unusable"
    assert str(repository.path / "weights.pt") in absolute.base.why
    assert outcomes(variable)["max_accuracy_loss"] == "fail"
    assert set(outcomes(cases["shared/original"]).values()) <= {"pass", "inconclusive"}
    assert cases["shared/original"].drop == 0
    lost = cases["lost/original"].base
    assert lost is not None
    assert lost.status == "unusable"
    assert "; cache/weights.pt is not in the tree of" in lost.why


def test_a_pointer_of_git_lfs_in_place_of_weights_is_named(repository: Repository) -> None:
    repository.budgets(model("steady"))
    weights = (repository.path / "weights.pt").read_bytes()
    repository.write(
        "weights.pt", f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize {len(weights)}\n"
    )
    repository.commit()
    (repository.path / "weights.pt").write_bytes(weights)
    assert repository.against("HEAD").ret == 1
    case = repository.cases["steady/original"]
    assert case.base is not None
    assert case.base.status == "unusable"
    assert "Git LFS pointers instead of their content (weights.pt): run `git lfs fetch" in case.base.why


@pytest.mark.parametrize(
    ("arguments", "expected", "code"),
    [
        (("--modelopt-against", "nowhere"), "*--modelopt-against nowhere: git knows no revision 'nowhere'*", "base"),
        (("--modelopt-baseline", "missing.json"), "*-baseline: *missing.json: No such file or directory*", "record"),
        (("--modelopt-baseline", "settings.py"), "*-baseline: *settings.py: this is not a JSON record*", "record"),
        (
            ("--modelopt-against", "HEAD", "--modelopt-baseline", "x.json"),
            "*--modelopt-against and --modelopt-baseline are two bases*",
            "option",
        ),
    ],
)
def test_a_base_that_is_not_there_is_a_usage_error(
    repository: Repository, arguments: tuple[str, ...], expected: str, code: str
) -> None:
    repository.budgets(model("steady"))
    repository.commit()
    result = repository.run(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([expected, f"see https://*/troubleshooting/#usage-{code}"])
    assert repository.is_as_it_was()


def test_a_base_without_a_budgets_file_and_one_that_cannot_be_read(repository: Repository) -> None:
    repository.write("budgets.yaml", "version: 1\nmodels: {wide: {factory: 7}}\n")
    broken = repository.commit()
    repository.git("rm", "--quiet", "budgets.yaml")
    repository.commit()
    repository.budgets(model("wide"), time_limit="3 s")
    assert repository.against("HEAD").ret == 0
    new = repository.cases["wide/original"].base
    assert new is not None
    assert new.status == "new"
    assert "there is no budgets file at" in new.why
    assert repository.against("HEAD~1").ret == 0
    against = repository.record.against
    assert against is not None
    assert f"the budgets file at {broken[:12]} cannot be read (budgets.yaml:2: " in against.notes[0]
    assert set(outcomes(repository.cases["wide/original"]).values()) == {"pass"}


def test_a_saved_record_as_the_base(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    repository.budgets(model("wide"))
    result = repository.run("--modelopt-save", "saved.json")
    result.stdout.fnmatch_lines(
        [
            "modelopt: the limits of `regression:` were not judged: there is no base (--modelopt-against REV)",
            f"modelopt: the record was saved as {repository.path / 'saved.json'}",
        ]
    )
    repository.settings(WIDTH=282)
    result = repository.run("--modelopt-baseline", "saved.json")
    assert result.ret == 1
    case = repository.cases["wide/original"]
    assert outcomes(case) == {
        "max_memory_growth": "fail",
        "max_size_growth": "fail",
        "max_accuracy_loss": "fail",
        "max_slowdown": "inconclusive",
    }
    assert case.reference is not None
    saved = record_json.read(repository.path / "saved.json")
    assert saved.cases[0].reference is not None
    assert case.reference.size_bytes == saved.cases[0].reference.size_bytes
    # the same file again, as if another machine and another torch had written it
    text = (repository.path / "saved.json").read_text()
    assert saved.environment is not None
    other = text.replace(f'"torch": "{saved.environment.torch}"', '"torch": "2.9.1"')
    assert other != text
    (repository.path / "other.json").write_text(other)
    assert repository.run("--modelopt-baseline", "other.json").ret == 0
    case = repository.cases["wide/original"]
    assert set(outcomes(case).values()) == {"inconclusive"}
    assert all(
        f"not comparable: torch 2.9.1 then, {saved.environment.torch} now" in format_verdict(case, verdict)
        for verdict in case.verdicts
        if verdict.limit.name != "max_slowdown"
    )


def test_an_unfinished_run_is_not_saved(repository: Repository) -> None:
    repository.budgets(model("fragile"))
    repository.settings(BROKEN=True)
    result = repository.run("--modelopt-save", "saved.json")
    result.stdout.fnmatch_lines(
        ["modelopt: the record was not saved as *saved.json: there are errors in it (fragile/*"]
    )
    assert not (repository.path / "saved.json").exists()


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """A run that was started in the background ignores SIGINT, and so would its children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_an_interrupted_check_leaves_no_tree_behind(
    repository: Repository, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    repository.budgets(model("steady"))
    slow = "if str(HERE) != str(pathlib.Path.cwd()):\n    raise SystemExit('moved')\n"
    begun = tmp_path / "begun"
    repository.write(
        "shop.py",
        MODELS + slow + f"if not (HERE / '.git').is_dir():\n    import time\n    pathlib.Path({str(begun)!r}).touch()\n"
        "    time.sleep(600)\n",
    )
    repository.commit()
    repository.settings(WIDTH=8)
    folder = tmp_path_factory.mktemp("t")  # a short name: the fork server's socket in there may have 107 characters
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "--modelopt", "--modelopt-against", "HEAD", "-p", "no:cacheprovider"],
        cwd=repository.path,
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 300
    while not begun.exists():
        assert process.poll() is None, "the run ended before it came to the base"
        assert time.monotonic() < deadline, "the base's module was never imported"
        time.sleep(0.1)
    assert not repository.is_as_it_was()
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(60) == pytest.ExitCode.INTERRUPTED
    assert repository.is_as_it_was()
    assert [path.name for path in folder.iterdir() if path.name.startswith("pytest-modelopt")] == []


def test_a_new_name_or_another_parameter_does_not_hide_what_grew(repository: Repository) -> None:
    repository.budgets(model("wide", recipes="low-rank(ratio=0.5): {}"))
    repository.commit()
    repository.settings(WIDTH=571)  # 123% more
    renamed = model("wide", recipes="low-rank(ratio=0.501): {}").replace("  wide:", "  broad:", 1)
    repository.budgets(renamed)
    result = repository.against("HEAD")
    assert result.ret == 1
    cases = repository.cases
    for name in ("broad/original", "broad/low-rank(ratio=0.501)"):
        assert outcomes(cases[name])["max_size_growth"] == "fail"
        assert outcomes(cases[name])["max_memory_growth"] == "fail"
    base = repository.git("rev-parse", "HEAD")[:12]
    summary = (repository.path / "report" / "summary.md").read_text(encoding="utf-8")
    assert f"broad is compared with wide of {base}" in summary
    assert "broad/low-rank(ratio=0.501) is compared with wide/low-rank(ratio=0.5) of" in summary.replace("\\", "")
    assert repository.record.against is not None
    assert repository.record.against.removed == ()


def test_what_is_not_known_to_be_the_same_is_not_compared_and_not_new(repository: Repository) -> None:
    repository.budgets(model("wide"))
    repository.commit()
    repository.budgets(model("steady").replace("shop:data", "shop:easy"))
    repository.write("shop.py", MODELS + "easy = data\n")
    result = repository.against("HEAD", "-k", "original")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*steady against*", "*not compared *original *"])
    case = repository.cases["steady/original"]
    assert case.base is not None
    assert case.base.status == "unpaired"
    assert set(outcomes(case).values()) == {"inconclusive"}
    assert "wide of " in format_verdict(case, case.verdicts[0])
    assert repository.against("HEAD", "-k", "original", "--modelopt-strict").ret == 1
