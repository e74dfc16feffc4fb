"""Whether a series that was sampled over time grows: a straight line by least squares, and how sure it is.

Pure. Samples that follow each other are alike, so they tell less than as many independent ones: the line is fitted
through the means of blocks, and what likeness is left between these widens the error.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist, fmean
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Verdict = Literal["flat", "growing", "falling", "not decided"]

BLOCK_SECONDS = 60.0
LEAST_BLOCKS = 5
CONFIDENCE = 0.95
# Residuals more alike than this have no error worth the name.
MOST_ALIKE = 0.9
HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Trend:
    """A fitted line: its slope an hour with the standard error of that, the mean, and how many blocks it is through."""

    slope: float
    error: float
    mean: float
    blocks: int

    @property
    def interval(self) -> tuple[float, float]:
        """Where the true slope lies, with 95 % confidence."""
        reach = _student(self.blocks - 2) * self.error
        return self.slope - reach, self.slope + reach

    @property
    def holds_zero(self) -> bool:
        """Whether no slope at all would explain what was seen."""
        low, high = self.interval
        return low <= 0.0 <= high

    def verdict(self, tolerance: float) -> Verdict:
        """What the whole interval says against a slope that is tolerated; not decided where it says both."""
        low, high = self.interval
        if low > tolerance:
            return "growing"
        if high < -tolerance:
            return "falling"
        return "flat" if -tolerance <= low and high <= tolerance else "not decided"


def fit(points: Sequence[tuple[float, float]], block_seconds: float = BLOCK_SECONDS) -> Trend:
    """The line through (seconds, value). Raises ValueError where they fill too few blocks."""
    blocks = _means(points, block_seconds)
    count = len(blocks)
    if count < LEAST_BLOCKS:
        message = f"{len(points)} samples fill {count} blocks of {block_seconds:g} s; {LEAST_BLOCKS} are needed"
        raise ValueError(message)
    middle, mean = fmean(at for at, _ in blocks), fmean(value for _, value in blocks)
    spread = sum((at - middle) ** 2 for at, _ in blocks)
    slope = sum((at - middle) * (value - mean) for at, value in blocks) / spread
    left = [value - mean - slope * (at - middle) for at, value in blocks]
    error = math.sqrt(sum(it * it for it in left) / (count - 2) / spread)
    return Trend(slope * HOUR, error * HOUR * _widening(left), mean, count)


def _means(points: Sequence[tuple[float, float]], block_seconds: float) -> list[tuple[float, float]]:
    """The mean of each block, but for a last one that is less than half full."""
    found: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for at, value in points:
        found[int((at - points[0][0]) // block_seconds)].append((at, value))
    blocks = list(found.values())
    if len(blocks) > 1 and 2 * len(blocks[-1]) < len(blocks[0]):
        blocks.pop()
    return [(fmean(at for at, _ in block), fmean(value for _, value in block)) for block in blocks]


def _widening(left: Sequence[float]) -> float:
    """By how much the error grows because residuals that follow each other are alike."""
    power = sum(it * it for it in left)
    if power == 0.0:
        return 1.0
    count = len(left)
    alike = sum(a * b for a, b in pairwise(left)) / power
    alike = (alike * count + 2.0) / (count - 4.0)  # fitting a line makes residuals less alike than what they are of
    alike = min(max(alike, 0.0), MOST_ALIKE)
    return math.sqrt((1.0 + alike) / (1.0 - alike))


def _student(freedom: int) -> float:
    """The quantile of Student's t for a two-sided interval, by the expansion of Cornish and Fisher."""
    z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


def interpolated(share: float, before: Mapping[float, float], after: Mapping[float, float]) -> float | None:
    """The quantile of what a histogram gained between two readings, within its bucket by a straight line.

    The readings hold, by upper bound, how many were at most that. None where nothing came.
    """
    gained = sorted((bound, count - before.get(bound, 0.0)) for bound, count in after.items())
    total = gained[-1][1] if gained else 0.0
    if total <= 0.0:
        return None
    floor, below = 0.0, 0.0
    for bound, count in gained:
        if count >= share * total:
            if math.isinf(bound):
                return floor
            return floor + (bound - floor) * (share * total - below) / (count - below)
        floor, below = bound, count
    raise AssertionError
