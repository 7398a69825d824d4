"""The tail of single calls: a quantile of their times, and its error by what is independent of each other.

The calls of a block share its moment, so they count for less than as many calls at random. The share of calls beyond
the quantile is estimated by blocks, with the variance between these, and never less than that of independent calls.
The shares at the two ends of its interval are turned back into times by the calls themselves (Woodruff (1952),
Confidence intervals for medians and other position measures), so nothing is assumed of their distribution. Where the
upper share is beyond the slowest call, nothing is known. To this comes what holds for any timed figure: the spread of
the segments, the launches, the state of the machine.

No block is left out for being slow, as it is for the latency: what is slow in one call of twenty would go with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from pytest_modelopt.statistics.samples import STARVED, Samples
from pytest_modelopt.statistics.timing import (
    ALPHA_PASS,
    LOOKS,
    PRIOR_FREEDOM,
    PRIOR_LATENCY,
    SENSITIVITY_LATENCY,
    Estimate,
    estimated,
    student_quantile,
)

QUANTILE = 0.95


def tail_latency(samples: Samples) -> Estimate:
    """Seconds within which 95% of the variant's single calls are done. Needs at least one call in each pair."""
    calls = samples.variant_calls_s

    def figure(pairs: Sequence[int]) -> float:
        return math.log(_at(sorted(each for i in pairs for each in calls[i]), QUANTILE))

    freedom = PRIOR_FREEDOM + len(samples.segments()) - 1
    sampling = _sampling_error(calls, student_quantile(1 - LOOKS * ALPHA_PASS, freedom))
    starvation = STARVED * fmean(delay for _, delay in samples.delays) if samples.delays else 0.0
    return estimated(
        samples,
        figure,
        PRIOR_LATENCY,
        SENSITIVITY_LATENCY,
        earlier=samples.of_latency,
        between_pairs=sampling**2,
        starvation=starvation,
    )


def _at(ordered: Sequence[float], share: float) -> float:
    """The smallest time within which at least this share of the calls are done; infinite beyond the slowest."""
    index = math.ceil(share * len(ordered) - 1e-9) - 1
    return ordered[max(0, index)] if index < len(ordered) else math.inf


def _sampling_error(blocks: Sequence[Sequence[float]], errors: float) -> float:
    """Standard error of the quantile's logarithm, from its distance to the time that is `errors` of them away."""
    ordered = sorted(each for block in blocks for each in block)
    quantile, count = _at(ordered, QUANTILE), len(ordered)
    beyond = sum(each > quantile for each in ordered) / count
    between = sum((sum(each > quantile for each in block) - beyond * len(block)) ** 2 for block in blocks)
    independent = QUANTILE * (1 - QUANTILE) / count
    share = errors * math.sqrt(max(between / count**2 * len(blocks) / max(1, len(blocks) - 1), independent))
    high, low = _at(ordered, QUANTILE + share), _at(ordered, QUANTILE - share)
    return max(math.log(high / quantile), math.log(quantile / low)) / errors
