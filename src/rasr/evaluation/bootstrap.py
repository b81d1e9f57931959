"""Paired bootstrap intervals: whether a difference between two methods is more than the luck of these pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Interval", "mean_interval", "paired_difference"]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with the interval that covers the true one with probability ``level``."""

    mean: float
    low: float
    high: float
    count: int
    level: float = 0.95

    @property
    def decided(self) -> bool:
        """Whether zero lies outside the interval."""
        return self.low > 0 or self.high < 0


def mean_interval(
    values: Sequence[float] | NDArray[np.float64], *, level: float = 0.95, seed: int = 0
) -> Interval | None:
    """Studentised (bootstrap-t) interval of the mean of (N,) values, 4000 resamples; None for fewer than eight.

    Each resample's deviation is divided by its own standard error (Efron 1979; Hall 1988), which keeps its promise on
    small and skewed sets: measured coverage of the 95 % interval is 93–96 % at 20 to 100 values, where the usual
    percentile interval falls to 90 % (docs/decisions.md).
    """
    x = np.asarray(values, dtype=np.float64)
    count = len(x)
    if count < 8:  # resamples of fewer are so often one value repeated that the interval means nothing
        return None
    mean, deviation = float(x.mean()), float(x.std(ddof=1))
    if deviation <= 1e-12 * max(1.0, abs(mean)):
        return Interval(mean, mean, mean, count, level)
    draws = x[np.random.default_rng(seed).integers(0, count, (4000, count))]
    deviations = draws.std(axis=1, ddof=1)
    usable = deviations > 1e-9 * deviation  # a draw of one value repeated has no spread to divide by
    t = (draws.mean(axis=1)[usable] - mean) / deviations[usable]
    tail = (1 - level) / 2
    below, above = np.quantile(t, [tail, 1 - tail])
    return Interval(mean, float(mean - above * deviation), float(mean - below * deviation), count, level)


def paired_difference(
    ours: dict[str, float], baseline: dict[str, float], *, level: float = 0.95, seed: int = 0
) -> Interval | None:
    """Interval of the mean of ours − baseline over the pictures both have; None for fewer than eight."""
    shared = sorted(ours.keys() & baseline.keys())
    return mean_interval([ours[name] - baseline[name] for name in shared], level=level, seed=seed)
