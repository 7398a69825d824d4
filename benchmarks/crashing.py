"""A model whose call ends its process, as a bug in native code does: for the record of a crashed case."""

from __future__ import annotations

import os
import signal

from torch import Tensor

from example_project.vision import DigitsViT, make_student


class _Crashing(DigitsViT):
    def forward(self, images: Tensor) -> Tensor:
        """Ends the process by the signal of a wrong address."""
        os.kill(os.getpid(), signal.SIGSEGV)
        return super().forward(images)


def load_student() -> DigitsViT:
    """The untrained student; it cannot be called."""
    student = make_student()
    student.__class__ = _Crashing
    return student.eval()
