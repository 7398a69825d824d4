"""The sign test as an e-process: evidence that stays valid however often one looks at it.

Let s of n pairs lie on the good side of a limit (ties count for neither side). With a uniform mixture over the
probability p in (1/2, 1],

    E(n, s) = 2^(n+1) / ((n+1) C(n, s)) * P[Binomial(n+1, 1/2) <= s]

is an e-process against the hypothesis "the median lies on the bad side": by Ville's inequality the probability that it
ever reaches 1/alpha is at most alpha, at any stopping time. No model of the noise is assumed: when the two sides are
equal and share one core, the coin that orders each pair makes every sign fair. (Howard, Ramdas, McAuliffe, Sekhon
2021, "Time-uniform, nonparametric, nonasymptotic confidence sequences"; the mixture is the Beta(1, 1) case of Robbins'
method.)
"""

from __future__ import annotations

from functools import lru_cache


def e_value(pairs: int, successes: int) -> float:
    """Evidence against "the median is on the bad side" after `successes` of `pairs` untied pairs; 1.0 is none at all.

    Since P[Binomial(n+1, 1/2) <= s] = sum_k C(n+1, k) / 2^(n+1), the powers of two cancel and

        E(n, s) = 1 / (n+1) * sum over k = 0..s of C(n+1, k) / C(n, s),

    whose terms follow from each other by a ratio: only positive numbers are added, so nothing cancels, and a value
    beyond the range of a float is `inf`, which is the right answer for a comparison.
    """
    if not 0 <= successes <= pairs:
        raise ValueError(f"need 0 <= successes <= pairs, got {successes} of {pairs}")
    term = (pairs + 1) / (pairs + 1 - successes)
    total = term
    for k in range(successes, 0, -1):
        term *= k / (pairs + 2 - k)
        total += term
    return total / (pairs + 1)


@lru_cache(maxsize=4096)
def successes_needed(pairs: int, alpha: float) -> int | None:
    """Fewest successes among `pairs` whose evidence reaches 1/alpha; None where even unanimity does not.

    E grows with the number of successes, so a bisection finds it.
    """
    if e_value(pairs, pairs) < 1 / alpha:
        return None
    low, high = 0, pairs
    while low < high:
        middle = (low + high) // 2
        if e_value(pairs, middle) >= 1 / alpha:
            high = middle
        else:
            low = middle + 1
    return low
