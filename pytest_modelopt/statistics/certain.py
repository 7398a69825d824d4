"""Bounds of proportions that hold with few examples, too: for what is decided early, and more than once.

Hoeffding (1963), "Probability inequalities for sums of bounded random variables", JASA 58, theorem 1 in its form by
relative entropy (Chernoff's bound). By his section 6 it holds for draws without replacement as well, so the bounds are
of the population and of the whole set. Unlike those of `proportions.py` they are no approximation, and wider.
"""

from __future__ import annotations

import math


def certain_share(count: int, examples: int, alpha: float) -> tuple[float, float]:
    """One-sided bounds (lower, upper) of a share, `count` of `examples` of which were seen; each fails at most with
    the probability `alpha`."""
    if examples <= 0 or not 0 <= count <= examples or not 0 < alpha < 1:
        raise ValueError(f"need 0 <= count <= N, N > 0 and 0 < alpha < 1, got {count}, {examples}, {alpha}")
    seen, most = count / examples, math.log(1 / alpha) / examples
    return _farthest(seen, 0.0, most), _farthest(seen, 1.0, most)


def certain_drop(lost: int, won: int, examples: int, alpha: float, most_won: float = 1.0) -> float:
    """Lower bound of the drop, as a share in -1..1: of `examples`, `lost` are right in the original only, and `won` in
    the variant only, of which no more than the share `most_won` can be. It fails at most with the probability
    `alpha`."""
    if lost + won > examples:
        raise ValueError(f"need lost + won <= N, got {lost}, {won}, {examples}")
    return certain_share(lost, examples, alpha / 2)[0] - min(most_won, certain_share(won, examples, alpha / 2)[1])


def _farthest(seen: float, end: float, most: float) -> float:
    """The share between `seen` and `end` whose relative entropy is `most`, by bisection; on the side of `end`."""
    near, far = seen, end
    if _entropy(seen, far) <= most:
        return far
    for _ in range(60):
        middle = (near + far) / 2
        if _entropy(seen, middle) <= most:
            near = middle
        else:
            far = middle
    return far


def _entropy(seen: float, share: float) -> float:
    """Of what was seen relative to the share, in nats."""
    total = 0.0
    for of_seen, of_share in ((seen, share), (1 - seen, 1 - share)):
        if of_seen > 0:
            if of_share <= 0:
                return math.inf
            total += of_seen * math.log(of_seen / of_share)
    return total
