"""Can the gate be believed here? On the user's own model, with variants and copies whose right verdict is known.

*Controls* say whether it can pass and can fail: the original against itself, a recipe that changes no answer, most
weights at zero. *Trials* say which timed limit this machine can judge: identical copies, of which one that fails is a
false alarm, and slowed ones, of which one that does not fail is a miss.
"""

from pytest_modelopt.selftest.trial import Trial, trial

__all__ = ["Trial", "trial"]
