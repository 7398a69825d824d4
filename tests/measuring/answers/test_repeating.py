"""Answers that do not repeat: planted in real models, found after a pass over the data, and measured by another."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pytest_modelopt.measuring.protocol import Answers, VariantError
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.measuring.worker.answers import repeating
from pytest_modelopt.measuring.worker.answers.quality import sample
from pytest_modelopt.measuring.worker.answers.repeating import KeptAnswer
from pytest_modelopt.measuring.worker.bench import Bench
from pytest_modelopt.results.metric import MetricSpec

SOURCE = """
import os
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

INPUTS = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(300) % 3
calls = []

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.layer = nn.Linear(8, 3)
    def forward(self, x):
        calls.append(len(x))
        return self.layer(x)

class Dropout(Net):
    def forward(self, x):
        return nn.functional.dropout(super().forward(x), 0.5, training=True)

class Noise(Net):
    def forward(self, x):
        return super().forward(x) + torch.rand(len(x), 3)

class OnLargeBatches(Net):
    def forward(self, x):
        return super().forward(x) + (torch.rand(len(x), 3) if len(x) > 8 else 0)

class LaterOnly(Net):
    '''Random for inputs above a threshold, which the first batch has none of.'''
    def forward(self, x):
        scores = super().forward(x)
        return scores + 1e4 * torch.rand(len(x), 3) if x.max() > 100 else scores

class Rounding(Net):
    '''As a kernel that adds in another order each time.'''
    def forward(self, x):
        scores = super().forward(x)
        return scores * (1 + 1e-6 * torch.randn(()))

class Counting(Net):
    '''Keeps a state from call to call.'''
    def __init__(self):
        super().__init__()
        self.past = 0
    def forward(self, x):
        self.past += 1
        return super().forward(x).roll(self.past, dims=1)

class Alternating(Net):
    def forward(self, x):
        return super().forward(x) * (1 + len(calls) % 2)

class InPlace(Net):
    def forward(self, x):
        return super().forward(x.mul_(2))

class SameTensor(Net):
    '''Writes all answers into one tensor, and they differ.'''
    def __init__(self):
        super().__init__()
        self.kept = torch.zeros(300, 3)
    def forward(self, x):
        answer = self.kept[:len(x)]
        answer.copy_(super().forward(x) + torch.rand(len(x), 3))
        return answer

class Limited(Net):
    '''Five batches and no more.'''
    def forward(self, x):
        if len(calls) >= 6:
            raise RuntimeError("used up")
        return super().forward(x)

class SometimesNan(Net):
    '''Its sixth call and those after it answer at random; from the eleventh on some answers are not numbers.'''
    def forward(self, x):
        scores = super().forward(x)
        scores = scores + torch.rand(len(x), 3) if len(calls) > 6 else scores
        return scores / 0 if len(calls) > 11 else scores

def make(name):
    return lambda: globals()[name]().eval()

for _name in ("Net", "Dropout", "Noise", "OnLargeBatches", "LaterOnly", "Rounding", "Counting", "Alternating",
              "InPlace", "SameTensor", "Limited", "SometimesNan"):
    globals()[_name.lower()] = make(_name)

def tensors():
    return INPUTS, TARGETS

def growing():
    inputs = INPUTS.clone()
    inputs[256:] += 1000
    return inputs, TARGETS

def one_batch():
    return INPUTS[:60], TARGETS[:60]

def two_batches():
    return INPUTS[:120], TARGETS[:120]

def shuffled():
    return DataLoader(TensorDataset(INPUTS, TARGETS), batch_size=64, shuffle=True)

class NoisyData(Dataset):
    def __len__(self):
        return 300
    def __getitem__(self, index):
        return INPUTS[index] + torch.rand(8), TARGETS[index]

def noisy():
    return NoisyData()

def mean_error(outputs, targets):
    return (outputs[:, 0] - targets).abs().mean()
mean_error.higher_is_better = False
"""


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Bench]]:
    """A loaded Bench in this process, with a fresh copy of the user's module, whose calls so far are forgotten."""
    (tmp_path / "repeating_user.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    before = torch.get_num_threads()

    def make(model: str = "net", data: str = "tensors", metric: str = "accuracy") -> Bench:
        made = Bench(
            Variant(
                model=f"repeating_user:{model}",
                recipe=None,
                data=f"repeating_user:{data}",
                calibration=None,
                example_inputs=None,
                metric=MetricSpec(metric if metric == "accuracy" else f"repeating_user:{metric}"),
                import_paths=(str(tmp_path),),
                working_directory=str(tmp_path),
            )
        )
        made.load()
        del calls()[:]
        return made

    yield make
    sys.modules.pop("repeating_user", None)
    torch.set_num_threads(before)


def calls() -> list[int]:
    """Examples in each call of the user's model."""
    user: Any = sys.modules["repeating_user"]
    counted: list[int] = user.calls
    return counted


def one_pass(made: Bench, seed: int) -> list[int]:
    """Predictions of the user's model on the user's data, without the plugin: what a pass under `seed` must give."""
    user: Any = sys.modules["repeating_user"]
    torch.manual_seed(seed)
    with torch.inference_mode():
        return torch.cat([made.model(batch) for batch in user.INPUTS.split(64)]).argmax(dim=1).tolist()


def test_a_model_that_repeats_itself_is_asked_twice_more_and_not_scored_again(
    bench: Callable[..., Bench],
) -> None:
    answers = bench().score()
    assert answers.repeat is None
    assert calls() == [64, 64, 64, 64, 44, *(44, 64)]


def test_an_answer_too_large_to_be_kept_is_given_twice_more(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeating, "_KEPT_BYTES", 64 * 3 * 4 - 1)  # only the last batch of 44 fits
    assert bench().score().repeat is None
    assert calls() == [64, 64, 64, 64, 44, 44, *(64, 64)]


@pytest.mark.parametrize("data", ["one_batch", "two_batches"])
def test_a_state_that_takes_two_values_in_turn_is_found(bench: Callable[..., Bench], data: str) -> None:
    assert bench("alternating", data).score().repeat is not None


def test_of_data_in_one_batch_that_one_is_asked_once_more(bench: Callable[..., Bench]) -> None:
    assert bench(data="one_batch").score().repeat is None
    assert calls() == [60, 60]


@pytest.mark.parametrize("model", ["dropout", "noise", "onlargebatches", "counting", "sametensor"])
def test_answers_that_differ_are_scored_a_second_time(bench: Callable[..., Bench], model: str) -> None:
    answers = bench(model).score()
    assert answers.repeat is not None
    assert answers.repeat.examples == 300
    assert answers.repeat.flips is not None
    assert answers.repeat.flips > 0
    assert answers.repeat.score != answers.score
    assert len(calls()) == 5 + 2 + 5  # the pass, two of its batches again, and the second pass


def test_the_flips_are_those_between_the_two_passes(bench: Callable[..., Bench]) -> None:
    """The first pass is the one under the run's own seed, as it is for a model that repeats itself."""
    made = bench("dropout")
    answers: Answers = made.score()
    seed = made._variant.seed
    first = one_pass(made, seed)
    assert answers.predictions is not None
    assert answers.predictions.tolist() == first
    second = one_pass(made, seed + 1)
    user: Any = sys.modules["repeating_user"]
    assert answers.repeat is not None
    assert answers.repeat.flips == sum(a != b for a, b in zip(first, second, strict=True))
    assert answers.repeat.score == sum(a == b for a, b in zip(second, user.TARGETS.tolist(), strict=True)) / 300


def test_a_later_batch_is_asked_too(bench: Callable[..., Bench]) -> None:
    answers = bench("lateronly", "growing").score()
    assert answers.repeat is not None
    assert answers.repeat.flips is not None
    assert 0 < answers.repeat.flips <= 44  # only the last batch is random


@pytest.mark.parametrize("model", ["rounding", "inplace"])
def test_rounding_and_writing_into_the_inputs_are_not_reported(bench: Callable[..., Bench], model: str) -> None:
    assert bench(model).score().repeat is None
    assert len(calls()) == 5 + 2  # and it was not even looked at a second time


def test_a_metric_without_predictions_has_a_second_score_and_no_flips(bench: Callable[..., Bench]) -> None:
    answers = bench("noise", metric="mean_error").score()
    assert answers.repeat is not None
    assert answers.repeat.flips is None
    assert answers.repeat.score is not None
    assert answers.repeat.score != answers.score


def test_a_shuffling_loader_gives_both_passes_the_same_order(bench: Callable[..., Bench]) -> None:
    """Else the second pass would be of other examples at each place, and its flips would mean nothing."""
    made = bench("dropout", "shuffled")
    assert made.score().repeat is not None
    assert made.observe().unobserved == {}


def test_data_that_draws_numbers_of_its_own_cannot_be_passed_over_twice_and_that_is_said(
    bench: Callable[..., Bench],
) -> None:
    made = bench("dropout", "noisy")
    assert made.score().repeat is None
    assert made.observe().unobserved == {
        "repeatability": "it answers differently each time, but the data gave other examples the second time: nothing "
        "to compare"
    }


def test_a_model_that_cannot_be_asked_again_costs_the_case_nothing_and_that_is_said(
    bench: Callable[..., Bench],
) -> None:
    made = bench("limited")
    assert made.score().examples == 300
    reason = made._unobserved["repeatability"]
    assert "RuntimeError: used up" in reason


def test_a_second_pass_that_cannot_be_scored_is_an_error(bench: Callable[..., Bench]) -> None:
    with pytest.raises(VariantError, match=r"not finite.*in a second pass over the data: asked twice, it answers"):
        bench("sometimesnan").score()


# --- two answers -----------------------------------------------------------------------------------------------------


class Output:
    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)


ONES = torch.ones(3)
SAME = [
    (ONES, ONES.clone()),
    (ONES * 1000, torch.tensor([1000.0, 1000.5, 999.5])),  # a two-thousandth of the largest
    (torch.tensor([float("nan"), float("inf"), 1.0]), torch.tensor([float("nan"), float("inf"), 1.0])),
    (torch.ones(3, dtype=torch.bfloat16), torch.ones(3, dtype=torch.bfloat16) + 2**-7),  # one step of bfloat16
    (torch.zeros(0), torch.zeros(0)),
    ({"text": ["a", "b"], "scores": ONES}, {"text": ["a", "b"], "scores": ONES}),
    (torch.eye(2).to_sparse(), torch.eye(2).to_sparse()),
]
OTHERS = [
    (ONES * 1000, torch.tensor([1000.0, 1000.0, 998.0])),
    (ONES, torch.ones(4)),
    (ONES, ONES.double()),
    (ONES, (ONES, ONES)),
    (torch.tensor([float("nan"), 1.0]), torch.tensor([0.0, 1.0])),
    (torch.tensor([float("inf"), 1.0]), torch.tensor([-float("inf"), 1.0])),
    # The numbers of a token count something: 50,000 and 50,001 are different words.
    (torch.tensor([50_000, 1]), torch.tensor([50_001, 1])),
    # Scores beside hidden states a thousand times as large.
    ((torch.tensor([0.1, 0.9]), ONES * 1e4), (torch.tensor([0.9, 0.1]), ONES * 1e4)),
    (Output(logits=ONES), Output(logits=-ONES)),
    (["to be"], ["not to be"]),
    ((torch.ones(1 << 20), torch.zeros(1)), (torch.ones(1 << 20), torch.ones(1))),
]


@pytest.mark.parametrize(("first", "second"), SAME, ids=str)
def test_the_same_answer(first: Any, second: Any) -> None:
    assert KeptAnswer(first).is_like(second)


@pytest.mark.parametrize(("first", "second"), OTHERS, ids=lambda value: type(value).__name__)
def test_another_answer(first: Any, second: Any) -> None:
    assert not KeptAnswer(first).is_like(second)


def test_all_numbers_of_a_large_answer_are_compared() -> None:
    first = nn.init.normal_(torch.empty(3 << 20))
    second = first * (1 + 1e-6)
    assert KeptAnswer(first).is_like(second)
    second[-1] += 1
    assert not KeptAnswer(first).is_like(second)


def test_minus_infinity_is_like_itself_and_like_nothing_else() -> None:
    before = torch.tensor([-torch.inf, 100.0])
    for now, is_like in [([-torch.inf, 100.001], True), ([-torch.inf, 101.0], False), ([0.0, 100.0], False)]:
        after = torch.tensor(now)
        assert KeptAnswer(before).is_like(after) is is_like
        assert sample(before).is_like(sample(after)) is is_like
