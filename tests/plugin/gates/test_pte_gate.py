"""A gate on `.pte` files, from `export` to the verdicts on a commit against its base, held against plain ExecuTorch."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch

from pytest_modelopt.cli.main import main
from tests.optimizing.make_pte_files import FOLDER, small
from tests.plugin.repositories import Repository, outcomes

SHOP = """
import torch
from torch import nn

def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 5)).eval()

def data():
    inputs = torch.randn(64, 12, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return inputs, small()(inputs).argmax(1)
"""
MODEL = """  small:
    factory: shop:small
    data: shop:data
    budget: {max_accuracy_drop: 0 pp, min_coverage: 10%}
    regression: {max_size_growth: 5%}
    candidates:
      open: {file: dist/open.pte, max_memory: 1 MB}
"""
PARTS = ("outside.pte", "outside.ptd")


def sums(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in PARTS}


def by_hand(file: Path) -> float:
    """The score of a program of two examples, or of more, by a plain loop over the runtime."""
    from executorch.extension.pybindings import _C as library

    data = file.with_suffix(".ptd")
    program = library._load_program(str(file), data_path=str(data) if data.exists() else None)
    method = program.load_method("forward")
    inputs = torch.randn(64, 12, generator=torch.Generator().manual_seed(1))
    found = torch.cat([method([inputs[start : start + 2].contiguous()])[0].clone() for start in range(0, 64, 2)])
    with torch.no_grad():
        return float((found.argmax(1) == small()(inputs).argmax(1)).double().mean())


@pytest.fixture
def shipped(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """Two commits: in the second one, `outside` keeps its weights in a file of their own, which takes more bytes."""
    repository.write("shop.py", SHOP)
    dist = repository.path / "dist"
    dist.mkdir()
    shutil.copy(FOLDER / "open.pte", dist)
    shutil.copy(FOLDER / "fixed.pte", dist / "outside.pte")
    repository.budgets(MODEL + "      outside: {file: dist/outside.pte}\n")
    repository.commit()
    for name in PARTS:
        shutil.copy(FOLDER / name, dist)
    monkeypatch.chdir(repository.path)
    stated = f"      outside: {{file: dist/outside.pte, sha256: {json.dumps(sums(FOLDER))}}}\n"
    repository.budgets(MODEL + stated + "      released: {file: released/outside.pte}\n")
    return repository


def test_what_is_gated_is_what_is_exported_and_has_the_figures_of_the_runtime_itself(
    shipped: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    _export_the_files_themselves(shipped.path, capsys)
    result = shipped.against("HEAD", "-v")
    absolute = {case.recipe: case for case in shipped.record.cases if case.base is None}
    assert {name: set(outcomes(case).values()) for name, case in absolute.items()} == {
        name: {"pass"} for name in absolute
    }
    against = {case.recipe: outcomes(case) for case in shipped.cases.values() if case.recipe != "original"}
    assert against == {"open": {"max_size_growth": "pass"}, "outside": {"max_size_growth": "fail"}, "released": {}}
    for name, case in absolute.items():
        found = case.variant
        assert found is not None
        assert found.provenance is not None
        assert found.runtime == "ExecuTorch"
        assert found.process_memory is not None
        assert found.unmeasured == {}
        assert found.size_bytes == sum((shipped.path / file).stat().st_size for file in found.provenance.files)
        assert found.score == by_hand(shipped.path / found.provenance.source)
        assert any("`min_coverage` of `budget:` does not bind it" in note for note in found.notes)
        if name != "open":
            assert found.provenance.sums == {
                f"{Path(found.provenance.source).parent}/{part}": each for part, each in sums(FOLDER).items()
            }
    assert absolute["outside"].agreement == absolute["released"].agreement
    assert absolute["open"].timing is not None
    told = result.stdout.str()
    assert "process memory: of fresh processes, by memray, for ExecuTorch" in " ".join(told.split())
    assert any({"open", "candidate"} <= set(line.split()) for line in told.splitlines())
    assert "of the saved file `dist/outside.ptd` (+1.77 KiB) is new or larger" in told
    _export_what_was_measured(shipped.path, capsys)


def _export_the_files_themselves(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With their sums, under their own names, and never over another file."""
    assert main(["export", "small", "outside", "--output", "released"]) == 0
    told = capsys.readouterr().out.splitlines()
    for part, each in sums(FOLDER).items():
        assert (folder / "released" / part).read_bytes() == (FOLDER / part).read_bytes()
        assert f"released/{part}: {(FOLDER / part).stat().st_size:,} bytes, SHA-256 {each}" in told
    assert main(["export", "small", "outside", "--name", "other"]) == 2
    assert "outside is a file, and is written under its own name" in capsys.readouterr().err
    assert main(["export", "small", "outsid"]) == 2
    assert "candidates of small are open, outside, released" in capsys.readouterr().err
    (folder / "taken").mkdir()
    (folder / "taken" / "outside.ptd").write_text("mine", encoding="utf-8")
    assert main(["export", "small", "outside", "--output", "taken"]) == 2
    assert "outside.ptd stands there with other content" in capsys.readouterr().err
    assert [file.name for file in (folder / "taken").iterdir()] == ["outside.ptd"]


def _export_what_was_measured(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the record; a file that was built anew since is not written."""
    record = folder / "report" / "record.json"
    before = record.read_text(encoding="utf-8")
    export = ["export", "small", "released", "--record", str(record), "--output", "again"]
    assert main(export) == 0
    assert "it is what was measured as small/released, and the record" in " ".join(capsys.readouterr().out.split())
    assert json.loads(record.read_text(encoding="utf-8")) == json.loads(before)
    weights = folder / "released" / "outside.ptd"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert main([*export[:-1], "once-more"]) == 2
    assert "made again, the variant is not what was measured: its sum is " in capsys.readouterr().err
    assert not list((folder / "once-more").iterdir())
