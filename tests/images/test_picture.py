"""The picture other rooms work on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rasr.images import Origin, Picture


def test_sizes_and_a_change_of_pixels() -> None:
    beyond = np.ones((3, 5, 3), np.float32)
    picture = Picture(
        np.zeros((3, 5, 3), np.float32), np.ones((3, 5), np.float32), Origin(bits=16), Path("a.png"), ("n",), beyond
    )
    assert (picture.width, picture.height) == (5, 3)
    larger = picture.with_pixels(np.ones((6, 10, 3), np.float32), np.ones((6, 10), np.float32))
    assert (larger.width, larger.height) == (10, 6)
    assert (larger.origin, larger.path, larger.notes) == (picture.origin, picture.path, picture.notes)
    assert larger.beyond is beyond
    assert picture.with_pixels(picture.pixels).alpha is None


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((3, 5), np.float32), np.zeros((3, 5, 4), np.float32), np.zeros((3, 5, 3)), np.zeros((3, 5, 3), np.uint8)],
    ids=["plane", "four channels", "float64", "uint8"],
)
def test_pixels_of_another_shape_or_kind_are_refused(pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"pixels must be \(H, W, 3\) float32"):
        Picture(pixels)


def test_alpha_must_match() -> None:
    with pytest.raises(ValueError, match="does not match pixels"):
        Picture(np.zeros((3, 5, 3), np.float32), np.zeros((5, 3), np.float32))
