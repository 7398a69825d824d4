"""Measures cases: one worker per variant, the original's kept for all recipes of its model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pytest_modelopt.measuring.controller import memory_left
from pytest_modelopt.measuring.controller.base_variants import BaseVariants
from pytest_modelopt.measuring.controller.follow_up import CloserLook
from pytest_modelopt.measuring.controller.fresh_processes import measure_process_memory
from pytest_modelopt.measuring.controller.layer_trials import LayerTrials
from pytest_modelopt.measuring.controller.looks import looked
from pytest_modelopt.measuring.controller.process import WorkerFailed
from pytest_modelopt.measuring.controller.remade_variant import require_same
from pytest_modelopt.measuring.controller.side_by_side import (
    Enough,
    GoesOn,
    alone,
    always,
    compared,
    doubt,
    of_the_original,
    require_same_data,
    with_interval,
)
from pytest_modelopt.measuring.controller.timing.case_timing import CaseTiming, asks
from pytest_modelopt.measuring.controller.timing.interleaved import Turns, Waiting, with_times
from pytest_modelopt.measuring.controller.timing.paired_timing import IsOpen
from pytest_modelopt.measuring.controller.variant_cache import Kept
from pytest_modelopt.measuring.controller.variant_measurement import Measuring
from pytest_modelopt.measuring.controller.worker_context import Failed, Measured, Progress, StepLimits, WorkerContext
from pytest_modelopt.measuring.protocol import Loaded
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.results.base import BaseStatus
from pytest_modelopt.results.case import CaseError, MeasuredCase, PlannedCase, Stage, next_stage
from pytest_modelopt.results.measurement import LayerCoverage, Measurement
from pytest_modelopt.results.record import Environment
from pytest_modelopt.results.timed_pairs import Timing

__all__ = ["Progress", "Runner", "StepLimits"]


@dataclass(frozen=True)
class Request:
    """A case that is to be measured."""

    planned: PlannedCase
    variant: Variant
    is_open: IsOpen


class Runner:
    """Use `measure` for each case, then `close`. What goes wrong in one variant stays in its case."""

    def __init__(
        self,
        limits: StepLimits,
        progress: Progress,
        breaks_memory: Callable[[MeasuredCase], bool] = lambda case: False,
        breaks_answers: Callable[[MeasuredCase], bool] = lambda case: False,
        leaves_loading_open: Callable[[MeasuredCase], bool] = lambda case: True,
    ) -> None:
        """`breaks_memory`, `breaks_answers`: whether the exact figures of a case break a limit on these;
        `leaves_loading_open`: whether a limit on loading is undecided."""
        self._leaves_loading_open = leaves_loading_open
        self._limits = limits
        self._progress = progress
        self._context = WorkerContext(limits, progress)
        self._measuring = Measuring(self._context, progress)
        self._closer_look = CloserLook(self._context, self._measuring, breaks_memory, breaks_answers)
        self._timing = CaseTiming(self._context, lambda: self._measuring.environment)
        self._original = Kept(self._context, self._measuring)
        self._optimized = Kept(self._context, self._measuring)
        self._base = BaseVariants(self._context, self._measuring)

    @property
    def environment(self) -> Environment | None:
        """Of the machine; None until the first worker runs."""
        return self._measuring.environment

    def new_file(self, purpose: str) -> Path:
        """A path of its own in a folder that only this user can read and that is gone after `close`."""
        return self._context.new_file(purpose)

    def measure(
        self,
        planned: PlannedCase,
        variant: Variant,
        is_open: IsOpen,
        *,
        keep: bool = False,
        goes_on: GoesOn = always,
        turns: Turns | None = None,
    ) -> MeasuredCase:
        """The case with everything that could be measured, or with its error; verdicts are not made here.

        A variant without a recipe is measured beside the original like any other: as a copy of it, in its own worker.
        `keep`: the same variant is compared with its base next, and need not be made again for that. `goes_on` may end
        it before all is measured; then the figures that are missing have no reason. `turns`: where its times are open
        after one launch, it waits there, and what is returned has no times yet.
        """
        case = next_stage(MeasuredCase, planned)
        return self._where_files_last(
            lambda: self._measure(case, variant, is_open, keep=keep, goes_on=goes_on, turns=turns)
        )

    def measure_in_turns(self, requests: Sequence[Request], found: dict[str, MeasuredCase]) -> None:
        """Put cases of one model into `found`, by id, as `measure` gives them; the launches of their timing take turns.
        What interrupts that leaves each there as far as it was measured."""
        turns = Turns(self._context)
        try:
            for each in requests:
                found[each.planned.id] = self.measure(each.planned, each.variant, each.is_open, turns=turns)
            for case in turns.finish():
                found[case.id] = case
        finally:
            turns.close()

    def _where_files_last(self, measure: Callable[[], MeasuredCase]) -> MeasuredCase:
        """The case, measured once more where something has removed the run's temporary folder meanwhile: what failed
        then is no fault of the case. Where that happens again, it is the case's own doing, or nothing can help."""
        folder = self._context.folder
        case = measure()
        if folder.is_dir():
            return case
        self.forget_original()
        again = self._context.folder
        case = measure()
        if case.error is None:
            return case
        if again.is_dir():
            why = f"(something removed the temporary folder {folder}, and so what the case had there)"
        else:
            why = f"(something removed the temporary folder {folder} while the case was measured, and then {again})"
        return replace(case, error=replace(case.error, message=f"{case.error.message} {why}"))

    def _measure(
        self,
        case: MeasuredCase,
        variant: Variant,
        is_open: IsOpen,
        *,
        keep: bool,
        goes_on: GoesOn = always,
        turns: Turns | None = None,
    ) -> MeasuredCase:
        original = self._measured_original(variant, case.name)
        if original.error is not None:
            return replace(case, error=of_the_original(original.error), reference=original.measurement)
        try:
            follow = partial(self._follow, original=original, case=case, goes_on=goes_on)
            optimized = self._optimized.get(variant, case.name, follow)
            if optimized.error is not None:
                return replace(compared(case, original, optimized), error=optimized.error)
            doubt(original, optimized)
            return self._put_side_by_side(case, original, optimized, is_open, goes_on, turns)
        except Enough as enough:
            return enough.case
        finally:
            if turns is not None and turns.holds(self._optimized.measured):
                self._optimized.hand_over()
            elif not keep and variant.is_at_last:
                self._optimized.forget()

    def measure_original(
        self, planned: PlannedCase, variant: Variant, is_open: IsOpen, *, is_timed: bool
    ) -> MeasuredCase:
        """The case of the model as it is, on both sides of the comparison. `is_timed`: beside a copy of itself, in a
        worker of its own."""
        case = next_stage(MeasuredCase, planned)
        if is_timed:
            return self._where_files_last(lambda: self._measure(case, variant, is_open, keep=False))
        return self._where_files_last(lambda: self._measure_original(case, variant))

    def _measure_original(self, case: MeasuredCase, variant: Variant) -> MeasuredCase:
        original = self._measured_original(variant, case.name)
        if original.error is not None:
            return replace(case, error=original.error, reference=original.measurement)
        if _needs_process_memory(case, original):
            measure_process_memory(self._context, original, case.name)
        return compared(case, original, original)

    def measure_against(self, case: MeasuredCase, head: Variant, base: Variant | None, is_open: IsOpen) -> MeasuredCase:
        """The case of `head` (with or without a recipe) against the same variant of another revision, on head's data.

        `case.base` says what the base is; what goes wrong with it goes there, what goes wrong with head is the case's
        error. Without a variant at the base only head is measured: a saved record has the rest.
        """
        return self._where_files_last(lambda: self._measure_against(case, head, base, is_open))

    def _measure_against(
        self, case: MeasuredCase, head: Variant, base: Variant | None, is_open: IsOpen
    ) -> MeasuredCase:
        assert case.base is not None
        original = self._measured_original(head, case.name)
        ours = original
        if not head.is_original and original.error is None:
            ours = self._optimized.get(head, case.name, lambda made: self._follow(made, original, case))
        if ours.error is None:
            doubt(original, ours)
        if ours.error is not None:
            error = of_the_original(ours.error) if ours is original and not head.is_original else ours.error
            return replace(case, error=error, variant=ours.measurement)
        if base is None:
            return alone(case, ours)
        theirs = self._base.measured_variant(base, original, case.name)
        if theirs.error is not None:
            why = f"{theirs.error.message}"
            status: BaseStatus = "unusable" if theirs.is_mixed else "failed"
            return replace(alone(case, ours), base=replace(case.base, status=status, why=why))
        found = self._put_side_by_side(case, theirs, ours, is_open)
        notes = self._base.notes(base, original, case.name)
        return replace(found, base=replace(case.base, notes=notes), coverage=None)

    def look(self, variant: Variant, name: str) -> tuple[Measurement, tuple[LayerCoverage, ...]]:
        """The original with what its file and its peak are made of, and its layers. Raises WorkerFailed."""
        original = self._measured_original(variant, name)
        if original.error is not None:
            raise WorkerFailed(original.error.message, original.error.output)
        try:
            self._measuring.look_into(original, name)
            layers = self._context.ask(original, name, "layers", "looking at its layers", stage="compare")
        except Failed as failed:
            raise WorkerFailed(failed.error.message, failed.error.output) from None
        finally:
            self._context.end(original)  # looking may leave other strides behind; whoever needs it gets a fresh one
        assert original.measurement is not None
        return original.measurement, layers

    def layer_trials(self, case: PlannedCase, variant: Variant, pass_s: float) -> LayerTrials:
        """A worker, opened, in which the variant's recipe is tried on some layers. Raises WorkerFailed."""
        original = self._measured_original(variant, case.name)
        if original.error is not None:
            raise WorkerFailed(original.error.message, original.error.output)
        trials = LayerTrials(self._context, self._measuring, original, variant)
        try:
            trials.open(next_stage(MeasuredCase, case), pass_s)
        except Failed as failed:
            trials.close()
            raise WorkerFailed(failed.error.message, failed.error.output) from None
        except BaseException:
            trials.close()
            raise
        return trials

    def time(self, case: MeasuredCase, variant: Variant, is_open: IsOpen) -> MeasuredCase:
        """The case with its times, which alone were missing; its variant is made anew in a worker of its own."""
        original = self._measured_original(variant, case.name)
        if original.error is not None:
            return replace(case, error=of_the_original(original.error))
        optimized = Measured(variant, measurement=case.variant, examples=original.examples)
        try:
            if variant.generation is not None:
                self._share_inputs(original, optimized, case.name)
            self._measuring.load(optimized, case.name)
            timings = dict(self._timing.begin(case, original, optimized, is_open).take_all())
            loading = self._load(case, original, optimized)
        except Failed as failed:
            return replace(case, error=failed.error)
        finally:
            self._context.discard(optimized)
        found = replace(case, variant=optimized.measurement, loading=loading)
        return replace(found, timing=timings.pop("whole", None), phases=timings)

    def would_run(self, head: Variant, base: Variant, name: str) -> tuple[str, ...] | None:
        """The linked files of head that `base` reads while it is measured; None where it cannot be measured."""
        return self._base.would_run(base, self._measured_original(head, name), name)

    @property
    def original_failed(self) -> bool:
        """Whether it is the original for which the last case is in error."""
        return self._original.measured is not None and self._original.measured.error is not None

    def optimize(self, variant: Variant, path: Path, inputs: Path, name: str) -> Loaded:
        """Apply the variant's recipe, save the result to `path`, and the inputs of the call. Raises WorkerFailed."""
        measured = Measured(variant)
        try:
            self._measuring.load(measured, name)
            assert measured.worker is not None
            assert measured.loaded is not None
            measured.worker.request("save", path=str(path), limit_s=self._limits.step_limit_s)
            measured.worker.request("save_inputs", path=str(inputs), limit_s=self._limits.step_limit_s)
            return measured.loaded
        except Failed as failed:
            raise WorkerFailed(failed.error.message, failed.error.output) from None
        finally:
            self._context.end(measured)

    def export(self, variant: Variant, path: Path, name: str, recorded: Measurement | None) -> tuple[Path, ...]:
        """Make the variant and write it as it is shipped to `path`, which has no suffix; with `recorded` only where it
        is what was measured then. Raises WorkerFailed."""

        def load(made: Measured) -> None:
            self._measuring.load(made, name)
            if recorded is not None:
                require_same(self._context, made, recorded, name)

        return self._export(variant, path, load)

    def export_saved(self, variant: Variant, saved: Path, inputs: Path, path: Path, name: str) -> tuple[Path, ...]:
        """As `export`, of what `optimize` has saved. Raises WorkerFailed."""

        def load(measured: Measured) -> None:
            self._measuring.start(measured, name, f"writes the {variant.label}")
            files = {"path": str(saved), "inputs_file": str(inputs)}
            self._context.ask(measured, name, "reload", "loading it", stage="load", **files)

        return self._export(variant, path, load)

    def _export(self, variant: Variant, path: Path, load: Callable[[Measured], None]) -> tuple[Path, ...]:
        measured = Measured(variant)
        try:
            load(measured)
            assert measured.worker is not None
            files = measured.worker.request("export", path=str(path), limit_s=self._limits.step_limit_s)
        except Failed as failed:
            raise WorkerFailed(failed.error.message, failed.error.output) from None
        finally:
            self._context.end(measured)
        return tuple(map(Path, files))

    def forget_original(self) -> None:
        """End the kept workers: the next case has another model."""
        for kept in (self._original, self._optimized):
            kept.forget()
        self._base.forget()

    def close(self) -> None:
        """End all workers and remove the folder. May be called twice."""
        self.forget_original()
        self._context.close()

    # --- the variants ------------------------------------------------------------------------------------------------

    def _measured_original(self, variant: Variant, name: str) -> Measured:
        """The original of `variant`, measured once for all recipes of its model."""

        def measure(original: Measured) -> None:
            self._measuring.read(original, name)
            self._measuring.measure(original, name)

        return self._original.get(variant.original, name, measure)

    def _follow(self, optimized: Measured, original: Measured, case: MeasuredCase, goes_on: GoesOn = always) -> None:
        """Measure another variant on the examples of the original. Raises Enough where it does not go on."""

        def ask(stage: Stage) -> None:
            found = compared(case, original, optimized)
            if not goes_on(found, stage):
                raise Enough(found)

        def look() -> None:
            found = compared(case, original, optimized)
            for seen in looked(self._context, original, optimized, case.name) if goes_on is not always else ():
                if not goes_on(replace(found, agreement=seen), "look"):
                    raise Enough(found)

        if optimized.variant.candidate is None and original.worker is not None and original.measurement is not None:
            before = original.measurement
            if why := memory_left.of_the_same_again(before, original.worker.pid, optimized.variant.label):
                raise Failed(CaseError("load", why))
        optimized.examples = original.examples
        if optimized.variant.generation is not None:
            self._share_inputs(original, optimized, case.name)
        self._measuring.measure(optimized, case.name, original.outputs, ask, look)
        require_same_data(original, optimized)

    def _share_inputs(self, original: Measured, optimized: Measured, name: str) -> None:
        """Both are given the tokens that the original generates."""
        if original.variant.points:
            optimized.inputs = original.inputs  # of all operating points at which it has been
            return
        path = self._context.new_file("inputs")
        optimized.files.append(path)
        saving = "saving the inputs of the measured call"
        self._context.ask(original, name, "save_inputs", saving, stage="load", path=str(path))
        optimized.inputs = {optimized.variant.workload: path}

    # --- the comparison ----------------------------------------------------------------------------------------------

    def _put_side_by_side(
        self,
        case: MeasuredCase,
        before: Measured,
        after: Measured,
        is_open: IsOpen,
        goes_on: GoesOn = always,
        turns: Turns | None = None,
    ) -> MeasuredCase:
        """The comparison of two measured variants: what needs both of them, and their figures."""
        anew = partial(self._where_files_last, partial(self._measure, case, after.variant, is_open, keep=False))
        try:
            case = with_interval(self._context, case, before, after)
            if _needs_process_memory(case, before, after):
                measure_process_memory(self._context, before, case.name)
                measure_process_memory(self._context, after, case.name)
            if not goes_on(compared(case, before, after), "timing"):
                return compared(case, before, after)
            self._closer_look.take(case, before, after)
            case = replace(case, loading=self._load(case, before, after))
            timing = self._timing.begin(case, before, after, is_open)
            if turns is None or not turns.take(Waiting(case, before, after, timing, anew)):
                timing.take_all()
        except Failed as failed:
            return replace(compared(case, before, after), error=failed.error)
        return with_times(case, before, after, timing)

    def _load(self, case: MeasuredCase, before: Measured, after: Measured) -> Timing | None:
        if not asks(case, "max_load_time", "min_load_speedup"):
            return None
        known = compared(case, before, after)

        def is_open(timing: Timing) -> bool:
            return self._leaves_loading_open(replace(known, loading=timing))

        return self._timing.load(case.name, before, after, is_open)


def _needs_process_memory(case: MeasuredCase, *sides: Measured) -> bool:
    """Where a limit asks for it, or one side allocates where no other meter sees it; then of both, by the same one."""
    is_hidden = any(side.measurement is not None and side.measurement.outside_of_torch for side in sides)
    return is_hidden or asks(case, "max_process_memory")
