"""onnxruntime-int8-dynamic from a budgets file to the record: process memory, accuracy and coverage."""

from __future__ import annotations

from collections.abc import Callable

import onnx  # noqa: F401 -- pytester forgets what an inner run imported, and it cannot be imported twice
import onnxruntime  # noqa: F401
import pytest

from pytest_modelopt.results.json import read
from tests.plugin.small_project import one_case

WEIGHTS = 64 * 512 + 512 * 64 + 64 * 10
BIASES = 512 + 64 + 10


def test_int8_in_onnx_runtime_is_gated_by_process_memory_and_accuracy(
    project: Callable[..., pytest.Pytester],
) -> None:
    limits = (
        "{max_process_memory: 40 MB, max_memory: 40 MB, max_size: 100 kB, max_accuracy_drop: 5 pp, min_coverage: 95%}"
    )
    pytester = project(one_case(limits, recipe="onnxruntime-int8-dynamic"))
    result = pytester.runpytest("--modelopt", "--modelopt-report", "report")
    result.assert_outcomes(passed=1)
    (case,) = read(pytester.path / "report" / "record.json").cases
    assert {verdict.limit.name: verdict.outcome for verdict in case.verdicts} == dict.fromkeys(
        ("max_process_memory", "max_memory", "max_size", "max_accuracy_drop", "min_coverage"), "pass"
    )
    assert case.reference is not None
    assert case.variant is not None
    assert (case.reference.runtime, case.variant.runtime) == (None, "ONNX Runtime")
    assert case.variant.process_memory is not None
    assert min(case.variant.process_memory.peaks_bytes) > WEIGHTS + 4 * BIASES
    assert case.coverage is not None
    assert case.coverage.changed_bytes == 4 * WEIGHTS
    assert case.coverage.weight_bytes == 4 * (WEIGHTS + BIASES)
    assert case.variant.size_bytes is not None
    assert case.variant.size_bytes > WEIGHTS + 4 * BIASES


SENTENCES = '''
import torch
from torch import nn

class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = nn.Embedding(50, 16), nn.Linear(16, 4)
    def forward(self, tokens, mask):
        return self.head((self.embed(tokens) * mask.unsqueeze(-1)).sum(1))

def tagger():
    return Tagger().eval()

class Sentences:
    """The first of one token; the names in another order than that of the first batch from the second on."""
    def __iter__(self):
        generator = torch.Generator().manual_seed(1)
        for number, length in enumerate((1, 6, 1, 3)):
            tokens = torch.randint(0, 50, (8, length), generator=generator)
            batch = {"tokens": tokens, "mask": torch.ones(8, length)}
            with torch.no_grad():
                targets = tagger()(**batch).argmax(1)
            yield dict(reversed(batch.items())) if number else batch, targets
'''


def test_a_first_sentence_of_one_token_is_converted(project: Callable[..., pytest.Pytester]) -> None:
    budgets = one_case("{max_flips: 0%}", recipe="onnxruntime", factory="words:tagger", data="words:Sentences")
    pytester = project(budgets)
    pytester.makepyfile(words=SENTENCES)
    pytester.runpytest("--modelopt").assert_outcomes(passed=1)
