"""What a rule may look at: one case with the machine that it ran on, and short ways to its facts."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pytest_modelopt.limits.latency import latencies_s
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.observations import Observations
from pytest_modelopt.results.record import Environment
from pytest_modelopt.results.verdicts import Limit

_NOTHING_SEEN = Observations()
INT8_PRODUCTS = frozenset(
    {
        "int8-dynamic",
        "int8-static",
        "torchao-int8-dynamic",
        "torchao-pt2e-int8",
        "onnxruntime-int8-dynamic",
        "onnxruntime-int8-static",
        "openvino-int8",
        "litert-int8",
    }
)
"""Recipes whose variants multiply in int8."""
_IN_FLOAT = re.compile(r"[(\s](weights_only=true|activations=float)[,)]")
"""Parameters with which they store weights in int8 and multiply in floating point."""


@dataclass(frozen=True)
class Evidence:
    """One case, measured and judged. What was not observed is None, and a rule that needs it is silent."""

    case: Case
    environment: Environment | None

    @property
    def original(self) -> Observations:
        side = self.case.reference
        return side.observations or _NOTHING_SEEN if side is not None else _NOTHING_SEEN

    @property
    def variant(self) -> Observations:
        side = self.case.variant
        return side.observations or _NOTHING_SEEN if side is not None else _NOTHING_SEEN

    @property
    def steps(self) -> tuple[str, ...]:
        """Names of the recipes, without their parameters."""
        return tuple(step.partition("(")[0] for step in self._whole_steps)

    @property
    def _whole_steps(self) -> list[str]:
        """Of the expression, split at each '+'; one within parentheses belongs to a value."""
        steps, step, depth = list[str](), list[str](), 0
        for part in re.split(r"([+()])", self.case.recipe):
            depth += {"(": 1, ")": -1}.get(part, 0)
            if part == "+" and depth <= 0:
                steps.append("".join(step))
                step = []
            else:
                step.append(part)
        return [each.strip() for each in (*steps, "".join(step))]

    def limit(self, name: str) -> Limit | None:
        return next((limit for limit in self.case.limits if limit.name == name), None)

    @property
    def on_cpu(self) -> bool:
        return self.case.device == "cpu"

    @property
    def is_int8(self) -> bool:
        """Whether the variant multiplies int8 numbers; weight-only recipes and a project's own are not known to."""
        multiplies = [step.partition("(")[0] for step in self._whole_steps if not _IN_FLOAT.search(step)]
        return bool(self.variant.packed_modules) or not INT8_PRODUCTS.isdisjoint(multiplies)

    @property
    def latencies_s(self) -> tuple[float, float] | None:
        """Seconds of one call of the original and of the variant; None where nothing was timed."""
        timing = self.case.timing
        if timing is None or not timing.pairs:
            return None
        return latencies_s(timing)

    @property
    def lacks_int8_products(self) -> bool:
        """Whether this is an x86 processor without an instruction for int8 products (VNNI, AMX)."""
        flags = set(self.environment.cpu_flags) if self.environment is not None else set()
        return "avx2" in flags and not flags & {"avx512_vnni", "avx_vnni", "amx_int8"}
