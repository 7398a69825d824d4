"""Can this machine judge a timed limit? An original against copies of itself: identical ones, and slower ones.

Nothing is optimized, so the right answer is known: an identical copy that fails is a false alarm, a slowed one that
does not fail is a miss.
"""

from pytest_modelopt.selftest.trial import Trial, trial

__all__ = ["Trial", "trial"]
