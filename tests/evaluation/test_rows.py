"""The intervals keep their promise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from rasr.evaluation.method import MethodInfo
from rasr.evaluation.rows import Interval, Row

Draw = Callable[[np.random.Generator], np.ndarray]


@pytest.mark.parametrize(
    ("draw", "truth"),
    [
        (lambda rng: rng.normal(0.4, 1.0, 37), 0.4),
        (lambda rng: rng.gamma(2.0, 0.5, 37), 1.0),
    ],
    ids=["normal", "skewed"],
)
def test_intervals_cover_the_true_mean_95_percent_of_the_time(draw: Draw, truth: float) -> None:
    rng = np.random.default_rng(20261123)
    intervals = [Interval.of(draw(rng), seed=trial) for trial in range(1000)]
    coverage = np.mean([interval.low <= truth <= interval.high for interval in intervals if interval])
    assert 0.93 <= coverage <= 0.97


def test_pairing_is_by_name() -> None:
    ours = {f"p{i}": i + 0.5 + 0.01 * (i % 3) for i in range(20)} | {"only-ours": 900.0}
    theirs = {f"p{i}": float(i) for i in reversed(range(20))} | {"only-theirs": -900.0}
    info = MethodInfo("m", "Other", "", uses_reference=False)
    rows = [Row(info, "none", 20, scores={"PSNR": scores}) for scores in (ours, theirs)]
    interval = rows[0].difference("PSNR", rows[1])
    assert interval is not None
    assert interval.count == 20
    assert 0.5 <= interval.low < interval.mean < interval.high <= 0.53
    assert interval.decided


def test_no_interval_of_too_few_pictures() -> None:
    assert Interval.of([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]) is None


def test_equal_differences_have_no_width_and_are_undecided_at_zero() -> None:
    interval = Interval.of([0.0] * 10)
    assert interval is not None
    assert (interval.low, interval.high, interval.decided) == (0.0, 0.0, False)


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(3).normal(size=30)
    assert Interval.of(values, seed=1) == Interval.of(values, seed=1)
    assert Interval.of(values, seed=1) != Interval.of(values, seed=2)
