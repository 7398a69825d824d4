"""Operations of a worker that score a variant: passes over all examples, and over outputs that another one left."""

from __future__ import annotations

import itertools
import sys
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import torch

from pytest_modelopt.measuring.protocol import Answers, Examples, Look
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.measuring.worker.answers import looks, other_inputs, quality, repeating
from pytest_modelopt.measuring.worker.answers.generation_answers import Forced, FreeRunning
from pytest_modelopt.measuring.worker.calls.generation import Step
from pytest_modelopt.measuring.worker.files import size
from pytest_modelopt.measuring.worker.loaded_variant import LoadedVariant
from pytest_modelopt.measuring.worker.metrics.bootstrap import paired_bootstrap
from pytest_modelopt.measuring.worker.metrics.perplexity import Perplexity
from pytest_modelopt.measuring.worker.metrics.recorded_outputs import Recorder, Replayed
from pytest_modelopt.measuring.worker.metrics.scorer import Batch, Scorer
from pytest_modelopt.measuring.worker.metrics.scorer_factory import make_metric
from pytest_modelopt.results.answers import Interval, Repeat
from pytest_modelopt.results.metric import PERPLEXITY
from pytest_modelopt.results.observations import OtherInputs

Watched: TypeAlias = Callable[[Iterable[Batch]], Iterable[Batch]]


class Scoring(LoadedVariant):
    """Passes over the evaluation data, and what follows from their answers."""

    def __init__(self, variant: Variant) -> None:
        super().__init__(variant)
        self._has_scored = False

    def score(self, keep: str | None = None, reference: str | None = None) -> Answers:
        """Of all examples. An unlabelled metric writes what it sees to `keep`, or compares it with `reference`."""
        assert self._metric is not None
        self._set_threads_of_answers()
        kept, compared = (Path(path) if path else None for path in (keep, reference))
        generation, is_original = self._variant.generation, self._variant.is_original
        probe = repeating.Probe(self._called, self._device, keeps_answers=generation is None)
        watched = self._data.calibration_seen.evaluated
        tokens = None
        if generation is not None:
            # From the data's own tokens come perplexity, flips and divergence, whatever is scored.
            of_tokens = Perplexity(kept, compared)
            forced = Forced(Step(self.model, self._function), generation)
            answers = self._pass(watched, probe.watch(of_tokens), forced)
            tokens = of_tokens.tokens()
        if generation is None or self._metric.name != PERPLEXITY:
            scorer = self._metric.scorer(kept, compared, is_paired=is_original)
            first = iter if tokens else watched, scorer if tokens else probe.watch(scorer)
            answers = self._pass(*first, self._answering)
        self._has_scored = True
        self._known |= _classes(answers)
        self._known |= {"pairing": answers.pairing, "worst_score": self._metric.worst, "spread": answers.spread}
        if answers.why_unpaired:
            self._unobserved["pairing"] = answers.why_unpaired
        return replace(answers, repeat=self._second_pass(answers, probe, compared or kept), tokens=tokens)

    def look(self, first: float, last: float) -> Look | None:
        """What it answers to the examples that draw a share in [first, last); None where none can be drawn, or where
        the metric is not right-or-wrong. Under `agreement` all are right, since nothing is compared."""
        assert self._metric is not None
        self._set_threads_of_answers()
        numbers = array("q")

        def batches() -> Iterator[Batch]:
            for batch, found in looks.drawn(self._data.evaluation(), first, last):
                numbers.extend(found)
                yield batch

        try:
            made = batches()
            head = next(made, None)
            if head is None:
                return Look(numbers, array("q"), b"")
            found = quality.answer(self.model, itertools.chain([head], made), self._metric.scorer(), self._device)
        except looks.NotDrawn:
            return None
        if found.predictions is None or found.correct is None:
            return None
        return Look(numbers, found.predictions, found.correct)

    def outputs(self, path: str) -> str:
        """Write what the model answers to all examples to `path`, for another worker; the examples' fingerprint."""
        self._set_threads_of_answers()
        return self._pass(iter, Recorder(Path(path)), self._answering).data_fingerprint

    def score_outputs(
        self, path: str, examples: Examples | None, keep: str | None = None, reference: str | None = None
    ) -> Answers:
        """As `score`, of another revision's variant, which has left its outputs in `path`: by this one's metric."""
        self._set_threads_of_answers()
        if self._metric is None:  # a later launch, which was made to be timed
            self._data.use(examples)
            self._metric = make_metric(self._variant.metric, self._loader)
        kept, compared = (Path(file) if file else None for file in (keep, reference))
        return self._pass(iter, self._metric.scorer(kept, compared), Replayed(Path(path)))

    def metric_files(self) -> tuple[str, ...]:
        """Where the code of the metric, and of what prepares for it, stands."""
        sources = (self._variant.metric.name, self._variant.metric.prepare)
        names = [source.partition(":")[0] for source in sources if isinstance(source, str) and ":" in source]
        files = (getattr(sys.modules.get(name), "__file__", None) for name in names)
        return tuple(dict.fromkeys(file for file in files if file is not None))

    def few_answers(self, path: str) -> None:
        """Write what the model answers to a few examples to `path`, for `try_inputs` of another worker."""
        self._set_threads_of_answers()
        with torch.inference_mode():
            size.save(other_inputs.answers(self._run, other_inputs.few(self._data.evaluation())), Path(path))

    def try_inputs(self, path: str) -> OtherInputs | None:
        """Compare the model with those answers, on inputs that are prepared in other ways."""
        self._set_threads_of_answers()
        with torch.inference_mode():
            inputs = list(other_inputs.few(self._data.evaluation()))
            return other_inputs.compare(self._run, inputs, size.load(Path(path)))

    def interval(self, before: array[float], after: array[float], width: int) -> Interval | str:
        """Of the drop from one variant to another, by the summands of both their `Answers`; or why there is none."""
        assert self._metric is not None
        if self._metric.from_sums is None:
            return f"the metric {self._metric.name} is no function of sums over the examples"
        if not self._has_scored:
            return "the worker that scored the variant has ended, and what it knew of the metric with it"
        self._set_threads_of_answers()
        return paired_bootstrap(
            before,
            after,
            width,
            self._metric.from_sums,
            higher_is_better=self._metric.higher_is_better,
            seed=self._variant.seed,
        )

    @property
    def _answering(self) -> Callable[..., Any]:
        """What gives the answers that the metric scores."""
        generation = self._variant.generation
        if generation is None:
            return self.model
        kind = Forced if self._variant.metric.name == PERPLEXITY else FreeRunning
        return kind(Step(self.model, self._function), generation)

    def _pass(self, watched: Watched, scorer: Scorer, model: Callable[..., Any]) -> Answers:
        """Run a model on all of the evaluation data, whose batches pass through `watched`."""
        data = self._data.evaluation()
        answers = quality.answer(model, watched(data), scorer, self._device, self._data.slices)
        return replace(answers, data_fingerprint=data.fingerprint)

    def _second_pass(self, first: Answers, probe: repeating.Probe, reference: Path | None) -> Repeat | None:
        """Of a variant that answers differently when it is asked again; None for one that repeats itself.

        `reference`: what an unlabelled metric compares with; for the original, its own first pass.
        """
        assert self._metric is not None
        metric = self._metric
        repeats = True
        with self._looking("repeatability"):
            repeats = probe.repeats()
        if repeats:
            return None
        repeat = repeating.second_pass(
            first,
            lambda watched: self._pass(watched, metric.scorer(reference=reference), self._answering),
            self._variant.seed,
        )
        if repeat is None:
            self._unobserved["repeatability"] = (
                "it answers differently each time, but the data gave other examples the second time: nothing to compare"
            )
        return repeat


def _classes(answers: Answers) -> dict[str, Any]:
    """How many classes there are among targets and predictions; nothing where a metric knows no classes."""
    if answers.predictions is None or answers.targets is None:
        return {}
    predicted, targets = Counter(answers.predictions), Counter(answers.targets)
    return {
        "target_classes": len(targets),
        "output_classes": answers.classes,
        "rarer_targets": answers.examples - max(targets.values()),
        "predicted_classes": len(predicted),
        "most_predicted": max(predicted.values()),
    }
