"""What a rule may look at: one case with the machine that it ran on, and short ways to its facts."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from pytest_modelopt.limits.latency import latencies_s
from pytest_modelopt.optimizing.expression import RecipeError, parse, step_texts
from pytest_modelopt.optimizing.recipe import Recipe
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.observations import Observations
from pytest_modelopt.results.record import Environment
from pytest_modelopt.results.verdicts import Limit

_NOTHING_SEEN = Observations()


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
        return tuple(step.partition("(")[0].strip() for step in step_texts(self.case.recipe))

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """The steps that are known here; a record may hold others, which its project added."""
        with contextlib.suppress(RecipeError):
            return parse(self.case.recipe).steps
        found: list[Recipe] = []
        for text in step_texts(self.case.recipe):
            with contextlib.suppress(RecipeError):
                found += parse(text).steps
        return tuple(found)

    def limit(self, name: str) -> Limit | None:
        return next((limit for limit in self.case.limits if limit.name == name), None)

    @property
    def on_cpu(self) -> bool:
        return self.case.device == "cpu"

    @property
    def is_int8(self) -> bool:
        """Whether the variant multiplies int8 numbers."""
        return bool(self.variant.packed_modules) or any(recipe.multiplies_int8 for recipe in self.recipes)

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
