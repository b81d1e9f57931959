"""A photo with much to match, and what another camera sees of it."""

import cv2
import numpy as np
import pytest
import skimage.data

from rasr.images import FloatImage


@pytest.fixture(scope="session")
def stereo() -> tuple[FloatImage, FloatImage]:
    """scikit-image's motorcycle, left and right, 500×741."""
    left, right, _ = skimage.data.stereo_motorcycle()
    return (left / 255).astype(np.float32), (right / 255).astype(np.float32)


@pytest.fixture(scope="session")
def query(stereo: tuple[FloatImage, FloatImage]) -> FloatImage:
    """The centre of the left photo, softened as a restoration leaves it: 320×320."""
    left = stereo[0][90:410, 210:530]
    return cv2.GaussianBlur(np.ascontiguousarray(left), (0, 0), 1.5)


@pytest.fixture(scope="session")
def other() -> FloatImage:
    """A photo of something else."""
    return (skimage.data.astronaut() / 255).astype(np.float32)
