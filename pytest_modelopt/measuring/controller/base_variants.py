"""The variants of the base: measured on head's data, each in a worker that imports from the base's tree."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pytest_modelopt.measuring.controller.variant_cache import Kept
from pytest_modelopt.measuring.controller.variant_measurement import Measuring
from pytest_modelopt.measuring.controller.worker_context import Failed, Measured, WorkerContext
from pytest_modelopt.measuring.protocol import Examples
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.measuring.worker.other_tree import in_tree


class BaseVariants:
    """The base's original is kept for all recipes of its model, one optimized variant until the next is asked for."""

    def __init__(self, context: WorkerContext, measuring: Measuring) -> None:
        self._context = context
        self._measuring = measuring
        self._original = Kept(context, measuring)
        self._optimized = Kept(context, measuring)
        self._notes: dict[Variant, tuple[str, ...]] = {}

    def measured_variant(self, base: Variant, head: Measured, name: str) -> Measured:
        """The variant `base` on the data and the inputs of head's original, or with its error."""
        if base.is_original:
            return self._original.get(base, name, lambda made: self._measure(made, head, None, name))
        reference = None
        if base.metric.is_unlabelled:  # its score compares with what its own original answers
            original = self.measured_variant(base.original, head, name)
            if original.error is not None:
                return original
            reference = original.outputs
        return self._optimized.get(base, name, lambda made: self._measure(made, head, reference, name))

    def would_run(self, base: Variant, head: Measured, name: str) -> tuple[str, ...] | None:
        """The linked files of head that `base` reads while it is measured; None where it cannot be measured."""
        trial = Measured(base)
        try:
            try:
                self._measure(trial, head, None, name)
            except Failed:
                if not trial.is_mixed:  # else it ran, with what the links lead to
                    raise
            used: tuple[str, ...] = self._context.ask(
                trial, name, "linked_to_head", "looking at what it used", stage="load"
            )
        except Failed:
            return None
        finally:
            self._context.discard(trial)
        return used

    def notes(self, base: Variant, head: Measured, name: str) -> tuple[str, ...]:
        """What should be known about the comparison: whether the data has changed. Looked at once for each model."""
        original = base.original.first
        if original not in self._notes:
            metric = self._look_at_metric(original, head, name)
            self._notes[original] = (*self._look_at_data(original, head.examples, name), *metric)
        return self._notes[original]

    def forget(self) -> None:
        """End the workers and remove their files."""
        self._original.forget()
        self._optimized.forget()

    def _measure(self, made: Measured, head: Measured, reference: Path | None, name: str) -> None:
        made.examples = head.examples
        made.inputs = head.inputs  # of all operating points at which head has been
        if not head.variant.points:
            path = self._context.new_file("inputs")
            made.files.append(path)
            made.inputs = {"": path}
            saving = "saving the inputs of the measured call"
            self._context.ask(head, name, "save_inputs", saving, stage="load", path=str(path))
        made.scored_by = head if made.variant.metric.is_of_project else None
        self._measuring.measure(made, name, reference)

    def _look_at_metric(self, original: Variant, head: Measured, name: str) -> tuple[str, ...]:
        if original.tree is None or not original.tree.differs or not original.metric.is_of_project:
            return ()
        files: tuple[str, ...] = self._context.ask(head, name, "metric_files", "looking at the metric", stage="score")
        changed = [file for file in files if _differs(Path(file), Path(in_tree(file, original.tree)))]
        if not changed:
            return ()
        told = ", ".join(Path(file).name for file in changed)
        return (f"the code of the metric may have changed ({told}): both were scored by head's",)

    def _look_at_data(self, original: Variant, of_head: Examples | None, name: str) -> tuple[str, ...]:
        if original.data is None or of_head is None or original.tree is None or not original.tree.differs:
            return ()
        looking = Measured(replace(original, slices=None))
        try:
            self._measuring.start(looking, name, "reads the base's data")
            path = self._context.new_file("examples")
            looking.files.append(path)
            then: Examples = self._context.ask(looking, name, "read", "reading the base's data", path=str(path))
            looking.files.append(Path(then.hashes_path))
        except Failed as failed:
            return (
                f"both were scored on head's data; whether the base had the same is unknown, since its own cannot be "
                f"read: {failed.error.message}",
            )
        finally:
            self._context.discard(looking)
        if then.fingerprint == of_head.fingerprint:
            return ()
        return (
            f"the evaluation data has changed: {_count(then)} at the base, {_count(of_head)} now; both were scored on "
            "head's",
        )


def _differs(head: Path, base: Path) -> bool:
    try:
        return head.read_bytes() != base.read_bytes()
    except OSError:  # the base has no such file
        return True


def _count(found: Examples) -> str:
    return f"{found.count:,} example{'' if found.count == 1 else 's'}"
