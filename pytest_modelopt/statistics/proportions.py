"""Bounds for proportions: what a share, or a drop, on N examples says about the population that they come from.

A drop is the difference of two paired proportions: Tango (1998), "Equivalence test and confidence interval for the
difference in proportions for the paired-sample design", Statistics in Medicine 17. A single share is bounded by Wilson
(1927), "Probable inference, the law of succession, and statistical inference", JASA 22. Unlike Wald's intervals both
stay honest with few or no cases: 0 changed of 300 examples does not prove that nothing changes.
"""

from __future__ import annotations

import math
from statistics import NormalDist

from pytest_modelopt.statistics.timing import student_quantile

Z_ONE_SIDED_95 = 1.6448536269514722


def shared_z(parts: int) -> float:
    """The quantile of a one-sided bound where its 5% are shared equally by so many (Bonferroni)."""
    return Z_ONE_SIDED_95 if parts == 1 else NormalDist().inv_cdf(1 - 0.05 / parts)


def drop_bounds(
    right_to_wrong: int, wrong_to_right: int, examples: int, z: float = Z_ONE_SIDED_95
) -> tuple[float, float]:
    """One-sided bounds (lower, upper) of the drop in the population, as fractions in -1..1; 95% unless `z` says else.

    `right_to_wrong` (b) are the examples that only the original answers rightly, `wrong_to_right` (c) those that only
    the variant does; the drop on the set itself is (b - c) / N. Each bound alone holds with that probability.
    """
    b, c, n = right_to_wrong, wrong_to_right, examples
    if n <= 0 or b < 0 or c < 0 or b + c > n:
        raise ValueError(f"need 0 <= b, c and b + c <= N and N > 0, got b={b}, c={c}, N={n}")
    drop = (b - c) / n
    upper = _solve(b, c, n, drop, 1.0, -z)
    lower = _solve(b, c, n, -1.0, drop, z)
    return lower, upper


def share_bounds(count: int, examples: int, z: float = Z_ONE_SIDED_95) -> tuple[float, float]:
    """Wilson's one-sided bounds (lower, upper) of a share in the population, `count` of `examples` of which were seen.

    Each bound alone holds with 95%, unless `z` says else.
    """
    if examples <= 0 or not 0 <= count <= examples:
        raise ValueError(f"need 0 <= count <= N and N > 0, got count={count}, N={examples}")
    return _wilson(count / examples, examples, z)


def _wilson(share: float, examples: float, z: float) -> tuple[float, float]:
    weight = z * z / examples
    middle = (share + weight / 2) / (1 + weight)
    half = math.sqrt(weight * (share * (1 - share) + weight / 4)) / (1 + weight)
    return middle - half, 1.0 if share == 1 else middle + half  # which is 1 but for rounding


def clustered_examples(count: int, squares: int, clusters: int, size: int, z: float = Z_ONE_SIDED_95) -> float:
    """As how many independent ones the `clusters` times `size` members count, of which `count` were hit.

    `squares` is the sum over the clusters of their hits squared. By the variance between the clusters: Korn, Graubard
    (1998), "Confidence intervals for proportions with small expected number of positive counts estimated from survey
    data", Survey Methodology 24, with Student's t for few clusters. Where none or all were hit nothing shows how alike
    the members of a cluster are, nor do two clusters: then each counts once.
    """
    members = clusters * size
    if clusters < 1 or size < 1 or not 0 <= count <= members or squares < count:
        raise ValueError(f"need hits of {clusters} clusters of {size}, got count={count}, squares={squares}")
    if count in (0, members) or clusters < 3:
        return float(clusters)
    share, mean = count / members, count / clusters
    between = max(0.0, squares - clusters * mean * mean) / (clusters - 1) / size**2 / clusters
    alike = members if not between else min(members, share * (1 - share) / between)
    return alike * (z / student_quantile(NormalDist().cdf(z), clusters - 1)) ** 2


def clustered_share_bounds(
    count: int, squares: int, clusters: int, size: int, z: float = Z_ONE_SIDED_95
) -> tuple[float, float]:
    """As `share_bounds`, of members of clusters that are alike within: tokens of sequences. Arguments as in
    `clustered_examples`."""
    return _wilson(count / (clusters * size), clustered_examples(count, squares, clusters, size, z), z)


def drop_statistic(b: int, c: int, n: int, difference: float) -> float:
    """Tango's score statistic Z for the hypothesis that the true drop is `difference`; it falls as that grows."""
    a_term = 2 * n
    b_term = -b - c + (2 * n - b + c) * difference
    c_term = -c * difference * (1 - difference)
    root = math.sqrt(max(0.0, b_term * b_term - 4 * a_term * c_term))
    q = (root - b_term) / (2 * a_term)
    variance = n * (2 * q + difference * (1 - difference))
    distance = b - c - n * difference
    if variance <= 0:
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / math.sqrt(variance)


def _solve(b: int, c: int, n: int, low: float, high: float, target: float) -> float:
    """The difference in [low, high] at which the falling score passes `target`, by bisection to machine precision."""
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if drop_statistic(b, c, n, middle) > target:
            low = middle
        else:
            high = middle
    return (low + high) / 2
