"""Search for the smallest sample size that reaches a goal."""

from __future__ import annotations

from collections.abc import Callable

LARGEST_COUNT = 10**18


def smallest_count(reached: Callable[[int], bool], goal: str) -> int:
    """Smallest n >= 1 with reached(n), for a goal that stays reached for all larger n: doubling, then bisection.

    Raises ValueError naming `goal` if 10^18 samples do not reach it.
    """
    high = 1
    while not reached(high):
        if high > LARGEST_COUNT:
            raise ValueError(f"{goal} needs more than {LARGEST_COUNT:.0e} samples: ask for less")
        high *= 2
    low = high // 2  # not reached, or 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high
