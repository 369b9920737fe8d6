"""How many samples of one kind one sample of another kind is worth, for any number of samples per dimension (T16)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from theory.proportional import FEWEST, MOST, ProportionalLaw

MOST_WORTH = 1024
"""Beyond this worth is inf, and below its inverse 0."""
PER_DOUBLING = 4
"""Numbers that are tried in each doubling: angles that rise with the number do so over more than that."""


def sample_worth(offered: ProportionalLaw, plain: ProportionalLaw) -> float:
    """How many plain samples one offered sample is worth: the w at which w n plain samples give the same angle to mu as n offered ones.

        angle(others, w n plain samples) = angle(others, n offered samples)                                                       (T16)

    offered, plain: laws in the same dimension, whose last part is the samples in question; the parts before it, the others, such as real
    samples, should be the same in both. The number of plain samples in `plain` does not matter. Angles need not fall with the number: a
    few wrongly labelled samples beside separable ones are worse than none. Of several solutions this is the one nearest to 1, by ratio.
    Averaging without others: w is the squared ratio of the class SNRs (T4). Without a solution from 1 / 1024 to 1024, or as far
    as ProportionalLaw goes: inf if plain samples are worse throughout, 0 if they are better.

    Raises ValueError for laws with different numbers of parts, and where a law does.
    """
    counts, others = (np.atleast_1d(law.samples_per_dim) for law in (offered, plain))
    if len(counts) != len(others):
        raise ValueError(
            f"offered has {len(counts)} parts and plain {len(others)}: give the same others before the samples in question"
        )
    target = _log_tangent(offered)

    def excess(log_worth: float) -> float:
        ratios = (*others[:-1], math.exp(log_worth) * counts[-1])
        return _log_tangent(replace(plain, samples_per_dim=ratios)) - target

    from scipy.optimize import brentq  # 0.2 s to import, which `import theory` should not cost

    here = excess(0.0)
    if abs(here) < 1e-12:
        return 1.0
    ends, ended = {1: (0.0, here), -1: (0.0, here)}, set[int]()
    step, rest = math.log(2) / PER_DOUBLING, math.fsum(others[:-1])
    for i in range(1, PER_DOUBLING * round(math.log2(MOST_WORTH)) + 1):
        for way in (1, -1) if here > 0 else (-1, 1):
            if way in ended or not FEWEST < rest + math.exp(way * i * step) * counts[-1] < MOST:
                continue  # outside of what the law covers
            at, before = ends[way]
            try:
                ends[way] = (way * i * step, excess(way * i * step))
            except ValueError:  # lda with n <= d, or training that returns w = 0: beyond there is no law
                ended.add(way)
                ends[way] = _last_of(excess, at, before, way * i * step)
            if ends[way][1] * before <= 0:
                low, high = sorted((at, ends[way][0]))
                return math.exp(float(brentq(excess, low, high, xtol=1e-10)))
    return math.inf if here > 0 else 0.0


def _last_of(excess: Callable[[float], float], at: float, value: float, beyond: float) -> tuple[float, float]:
    """(x, excess(x)) at the last x between `at`, where there is a law, and `beyond`, where there is none."""
    for _ in range(60):
        middle = (at + beyond) / 2
        try:
            at, value = middle, excess(middle)
        except ValueError:
            beyond = middle
    return at, value


def _log_tangent(law: ProportionalLaw) -> float:
    return math.log(law.across / law.along)
