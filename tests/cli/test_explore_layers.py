"""`explore` on a model of which one layer must stay: the mixed recipe wins, and --sensitivity says why."""

from __future__ import annotations

import pytest

from pytest_modelopt.cli.exploration import explore_gauge
from pytest_modelopt.cli.main import main
from tests.measuring.planted_layers import PLANTED


def test_the_planted_layer_is_kept_and_told(
    pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    pytester.makepyfile(planted_layers_shop=PLANTED)
    model = ["planted_layers_shop:transformer", "--data", "planted_layers_shop:transformer_data", "--time-limit", "1 s"]
    call = ["explore", *model, "--recipe", "int8-dynamic"]
    assert main([*call, "--max-accuracy-drop", "5pp", "--aim", "size"]) == 0
    told = capsys.readouterr().out
    assert "`int8-dynamic(keep=planted.layer)` won: no other one is known to keep all limits" in told
    assert "int8-dynamic (max_accuracy_drop 5pp)" in told
    assert main(["report", "modelopt-report/explore.json", "--html", "explore.html"]) == 0
    page = (pytester.path / "explore.html").read_text(encoding="utf-8")
    _, _, of_layers = page.partition('<section aria-labelledby="sensitivity">')
    assert of_layers.index('<tr><th scope="row">planted.layer') < of_layers.index('<tr><th scope="row">embed')
    capsys.readouterr()

    monkeypatch.setattr(explore_gauge.GateGauge, "layer_trials", None)  # all of it is known: no worker is asked again
    assert main([*call, "--sensitivity", "--html", "layers.html"]) == 0
    told = capsys.readouterr().out
    page = (pytester.path / "layers.html").read_text(encoding="utf-8")
    assert page.index('<tr><th scope="row">planted.layer') < page.index('<tr><th scope="row">embed')
    assert "harm of planted.layer: 100% of the worst layer&#39;s" in page
    rows = [line for line in told.splitlines() if " Linear " in line]
    assert rows[0].startswith("planted.layer")
    assert rows[0].endswith("#" * 20)
    assert len(rows) == 7  # embed, two of each encoder layer, planted, head
    assert main(["explore", *model, "--recipe", "onnxruntime", "--sensitivity"]) == 2
    assert "--sensitivity: onnxruntime changes the model as a whole, and not layer by layer" in capsys.readouterr().err
