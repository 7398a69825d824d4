"""Metrics without labels: the original's pass leaves what the variant's pass is compared with."""

from __future__ import annotations

import re
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torchmetrics.functional.audio import signal_noise_ratio

from pytest_modelopt.measuring.protocol import Answers, VariantError
from pytest_modelopt.measuring.worker.metrics.agreement import MOST_DB, Agreement, Cosine, Sqnr
from tests.measuring.answering import answer


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def compared(kind: Any, before: torch.Tensor, after: torch.Tensor, folder: Path, **how: Any) -> tuple[Answers, Answers]:
    """The original's answers and the variant's."""
    path = folder / "outputs.pt"
    original = answer(before, None, kind(path, None), **how)
    return original, answer(after, None, kind(None, path), **how)


def test_agreement_is_the_share_of_the_same_predictions(tmp_path: Path) -> None:
    before = torch.eye(4)[[0, 1, 2, 3, 0]]
    after = torch.eye(4)[[0, 1, 3, 3, 1]]
    original, variant = compared(Agreement, before, after, tmp_path, size=2)
    assert (original.score, original.correct) == (1.0, bytes([1] * 5))
    assert (variant.score, variant.correct) == (0.6, bytes([1, 1, 0, 1, 0]))
    assert variant.predictions is not None
    assert list(variant.predictions) == [0, 1, 3, 3, 1]
    assert (variant.targets, variant.classes) == (None, 4)


def test_an_answer_is_gone_before_the_next_call(tmp_path: Path) -> None:
    """Of a language model it is as large as the weights."""
    given: list[weakref.ref[torch.Tensor]] = []

    class Watching(torch.nn.Module):
        def forward(self, index: torch.Tensor) -> torch.Tensor:
            assert [each() for each in given] == [None] * len(given)
            output = torch.eye(4)[index % 4]
            given.append(weakref.ref(output))
            return output

    answer(Watching(), None, Agreement(tmp_path / "outputs.pt", None), size=2, examples=6)
    assert len(given) == 3


def test_cosine_is_the_mean_over_the_examples(tmp_path: Path) -> None:
    before = drawn(0, 100, 3, 4)
    after = before + 0.3 * drawn(1, 100, 3, 4)
    each = torch.nn.functional.cosine_similarity(before.flatten(1).double(), after.flatten(1).double())
    original, variant = compared(Cosine, before, after, tmp_path, slices=[0] * 40 + [1] * 60)
    assert original.score == 1.0
    assert variant.score == pytest.approx(float(each.mean()), abs=1e-12)
    assert variant.slice_scores == pytest.approx((float(each[:40].mean()), float(each[40:].mean())), abs=1e-12)
    assert original.slice_scores == (1.0, 1.0)
    assert (variant.width, len(variant.summands or ())) == (1, 100)


def test_equal_outputs_have_a_cosine_of_exactly_1_and_zeros_are_equal_to_zeros_only(tmp_path: Path) -> None:
    before = torch.cat([drawn(0, 997, 13), torch.zeros(3, 13)])
    assert compared(Cosine, before, before.clone(), tmp_path)[1].score == 1.0
    after = before.clone()
    after[998] = 1.0
    variant = compared(Cosine, before, after, tmp_path)[1]
    assert list(variant.summands or ())[-3:] == [1.0, 0.0, 1.0]


def test_sqnr_is_the_signal_to_noise_ratio_over_everything(tmp_path: Path) -> None:
    before = drawn(0, 130, 2, 5)
    after = before + 0.01 * drawn(1, 130, 2, 5)
    expected = signal_noise_ratio(after.flatten().double(), before.flatten().double())
    original, variant = compared(Sqnr, before, after, tmp_path)
    assert variant.score == pytest.approx(float(expected), abs=1e-9)
    assert original.score is None
    assert "does not differ from itself" in original.why_not["score"]
    assert "nothing can drop" in variant.why_not["interval"]


def test_a_tenth_of_the_amplitude_as_noise_is_20_decibels(tmp_path: Path) -> None:
    before = torch.ones(7, 3)
    assert compared(Sqnr, before, before * 1.1, tmp_path)[1].score == pytest.approx(20, abs=1e-4)


@pytest.mark.parametrize(("noise", "words"), [(0.0, "number for number"), (1e-20, "less than 300 dB can tell")])
def test_no_noise_to_speak_of_is_300_decibels_and_it_is_said(tmp_path: Path, noise: float, words: str) -> None:
    before = drawn(0, 10, 4).double()
    before[0, 0] = 0.0
    after = before.clone()
    after[0, 0] = noise
    variant = compared(Sqnr, before, after, tmp_path)[1]
    assert variant.score == MOST_DB == 300
    assert [words in note for note in variant.notes] == [True]


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VariantError, match=re.escape("agreement needs outputs of shape (examples, classes), and got")):
        answer(torch.zeros(4, 2, 2), None, Agreement(None, None))
    with pytest.raises(VariantError, match=re.escape("cosine needs one output for each example, and got (1, 4) for 4")):
        answer(Flattened(), None, Cosine(None, None), examples=4)
    with pytest.raises(VariantError, match="all outputs of the original are zero"):
        compared(Sqnr, torch.zeros(4, 2), torch.ones(4, 2), tmp_path)
    with pytest.raises(VariantError, match=re.escape("the original gives the shape (4, 2) and the variant (4, 3)")):
        compared(Sqnr, torch.ones(4, 2), torch.ones(4, 3), tmp_path)
    few = tmp_path / "few.pt"
    answer(torch.ones(2, 2), None, Cosine(few, None), size=2)
    with pytest.raises(VariantError, match="was given more batches than the original"):
        answer(torch.ones(4, 2), None, Cosine(None, few), size=2)


class Flattened(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.float().reshape(1, -1)


def test_outputs_in_the_same_direction_have_a_cosine_of_1_and_not_more(tmp_path: Path) -> None:
    before = drawn(0, 2000, 7)
    variant = compared(Cosine, before, 3 * before, tmp_path)[1]
    assert max(variant.summands or ()) <= 1.0
    assert min(variant.summands or ()) > 1 - 1e-6


def test_the_file_holds_no_more_than_the_batches(tmp_path: Path) -> None:
    """Each batch is a view of one large tensor, whose storage must not be written again and again."""
    outputs = drawn(0, 6400, 100)

    class View(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return outputs[int(x[0]) : int(x[-1]) + 1]

    answer(View(), None, Cosine(tmp_path / "o.pt", None), size=64, examples=6400)
    assert outputs.nbytes < (tmp_path / "o.pt").stat().st_size < 1.2 * outputs.nbytes


def test_minus_infinity_is_a_score_and_counts_for_nothing_where_both_have_it(tmp_path: Path) -> None:
    before, after = drawn(0, 10, 6), drawn(1, 10, 6)
    masked = (before.clone(), after.clone())
    for side in masked:
        side[:, 2:4] = -torch.inf
    kept = (before[:, [0, 1, 4, 5]], after[:, [0, 1, 4, 5]])
    for kind in (Cosine, Sqnr, Agreement):
        path = tmp_path / kind.__name__
        path.mkdir()
        expected = compared(kind, *kept, path)[1].score
        assert compared(kind, *masked, path)[1].score == pytest.approx(expected, abs=1e-12)
    masked[1][7, 2] = 0.0
    for kind in (Cosine, Sqnr):
        with pytest.raises(VariantError, match=r"has no value where only one side is -inf, first in example 7"):
            compared(kind, *masked, tmp_path, size=4)
