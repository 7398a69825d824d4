"""Distribution by pytest-xdist in which the cases of one model go to one process, which measures the original once."""

from __future__ import annotations

from typing import Any


def models_together(config: Any, log: Any, budgets: str) -> Any:
    """As `--dist load`, but its chunks end where a model of the file `budgets` ends. All other tests go where they
    would go without it.
    """
    from xdist.scheduler import LoadScheduling

    class ModelsTogether(LoadScheduling):
        def _send_tests(self, node: Any, num: int) -> None:
            ids = [self.collection[index] for index in self.pending]
            while 0 < num < len(ids) and _model(ids[num - 1], budgets) == _model(ids[num], budgets) is not None:
                num += 1
            super()._send_tests(node, num)

    return ModelsTogether(config, log)


def _model(test_id: str, budgets: str) -> str | None:
    """The model that a case belongs to; None for other tests. Names of models and recipes may hold colons."""
    path, _, names = test_id.partition("::")
    return f"{path}::{names.partition('::')[0]}" if path.rpartition("/")[2] == budgets else None
