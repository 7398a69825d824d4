"""A change that touches no model is green, in every one of six whole checks against its base."""

from __future__ import annotations

import pytest

from tests.plugin.repositories import Repository, model, outcomes

CHECKS = 6
TIMED_EACH = 5
"""One check of five is timed as users' are. `benchmarks/unchanged.py` makes twenty, of larger models, and times all."""
STRICT = "{max_memory_growth: 0%, max_size_growth: 0%, max_accuracy_loss: 0 pp, max_slowdown: 30%}"
"""Equal figures are equal, so no growth at all is allowed; a call of this model takes microseconds."""


@pytest.mark.slow
def test_a_change_of_the_readme_only_is_green_in_all_of_six_runs(repository: Repository) -> None:
    repository.budgets(model("steady", STRICT, "bf16: {}"), time_limit="3 s")
    repository.write("README.md", "before")
    repository.commit()
    repository.write("README.md", "after")
    repository.commit()
    for number in range(CHECKS):
        result = repository.against("HEAD~1", *(["--modelopt-time-limit", "1 ms"] if number % TIMED_EACH else []))
        assert result.ret == 0
        assert list(repository.cases) == ["steady/original", "steady/bf16"]
        for case in repository.cases.values():
            timed = outcomes(case).pop("max_slowdown")
            assert timed in ("pass", "inconclusive")
            exact = {name: outcome for name, outcome in outcomes(case).items() if name != "max_slowdown"}
            assert set(exact.values()) == {"pass"}
        assert repository.is_as_it_was()
