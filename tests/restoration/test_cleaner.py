"""Cleaned pictures are made once while they fit, and told apart by content and size."""

from __future__ import annotations

import numpy as np
import pytest

from rasr.images import FloatImage
from rasr.restoration.cleaner import CleanedPictures


def picture(value: float) -> FloatImage:
    return np.full((4, 4, 3), value, np.float32)


def test_a_picture_is_cleaned_once_for_each_size() -> None:
    made: list[float] = []

    def clean(value: float) -> FloatImage:
        made.append(value)
        return picture(value)

    kept = CleanedPictures()
    first, saved = kept.get(picture(0.1), (16, 16), lambda: clean(0.1))
    assert saved == 0
    again, saved = kept.get(picture(0.1), (16, 16), lambda: clean(9))
    assert again is first
    assert saved > 0
    kept.get(picture(0.1), (8, 8), lambda: clean(0.2))
    kept.get(picture(0.3), (16, 16), lambda: clean(0.3))
    assert made == [0.1, 0.2, 0.3]
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0, 0] = 1


def test_the_least_recently_used_leave_first() -> None:
    kept = CleanedPictures(limit=2 * picture(0).nbytes)
    for value in (0.1, 0.2):
        kept.get(picture(value), (4, 4), lambda v=value: picture(v))  # type: ignore[misc]
    kept.get(picture(0.1), (4, 4), lambda: picture(9))
    kept.get(picture(0.3), (4, 4), lambda: picture(0.3))
    assert kept.get(picture(0.1), (4, 4), lambda: picture(9))[0][0, 0, 0] == np.float32(0.1)
    assert kept.get(picture(0.2), (4, 4), lambda: picture(9))[0][0, 0, 0] == 9
    small = CleanedPictures(limit=10)
    first, _ = small.get(picture(0.5), (4, 4), lambda: picture(0.5))
    assert small.get(picture(0.5), (4, 4), lambda: picture(0.5))[0] is not first
