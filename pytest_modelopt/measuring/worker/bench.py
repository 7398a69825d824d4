"""What a worker answers, one method for each operation that the pytest process may ask for. One Bench, one variant."""

from __future__ import annotations

import torch

from pytest_modelopt.measuring.protocol import Sample
from pytest_modelopt.measuring.worker import observe, source_loading
from pytest_modelopt.measuring.worker.answers import quality
from pytest_modelopt.measuring.worker.calls.called_model import seen
from pytest_modelopt.measuring.worker.calls.timed_blocks import TimedBlocks
from pytest_modelopt.measuring.worker.files.saving import Saving
from pytest_modelopt.measuring.worker.footprint import Footprint
from pytest_modelopt.measuring.worker.held_sessions import held_sessions
from pytest_modelopt.measuring.worker.layer_trials import LayerTrials
from pytest_modelopt.results.observations import Observations


class Bench(LayerTrials, Footprint, TimedBlocks, Saving):
    """All operations on one variant, of which each file beside this one holds a kind."""

    def observe(self) -> Observations:
        """What else can be seen of the variant. After `score`, where there is any."""
        self._set_threads()
        source_loading.seed_everything(self._variant.seed)
        with self._looking("sessions"):
            self._known["sessions"] = held_sessions((self.model, self._function))
        known = self._known | {"calibration": self._data.calibration_seen.calibration()}
        return observe.observe(seen(self.model), self._call, known, self._ties, self._unobserved)

    def answer(self) -> Sample:
        """What the model answers to the inputs of the measured call."""
        self._set_threads()
        source_loading.seed_everything(self._variant.seed)
        with torch.inference_mode():
            return quality.sample(self._device.bring_back(quality.run(self._called, self._call_inputs())))
