"""A photo with much to match, and what another camera sees of it."""

from functools import cache

import cv2
import numpy as np
import pytest
import skimage.data
import xxhash

from rasr.images import FloatImage
from rasr.registration.features import LocalFeatures, extract_reference
from rasr.registration.scene import SceneMatch, SceneQuery


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


_kept: dict[str, FloatImage] = {}


def compare(query: FloatImage, photo: FloatImage) -> SceneMatch:
    """What is found between two pictures; what was found once is not looked for again."""
    return _compare(_key(query), _key(photo))


def _key(pixels: FloatImage) -> str:
    key = f"{xxhash.xxh3_128_hexdigest(np.ascontiguousarray(pixels).data)}{pixels.shape}"
    _kept[key] = pixels
    return key


@cache
def _query(key: str) -> SceneQuery:
    return SceneQuery(_kept[key])


@cache
def _features(key: str) -> tuple[LocalFeatures, ...]:
    return extract_reference(_kept[key])


@cache
def _compare(query: str, photo: str) -> SceneMatch:
    return _query(query).compare(_features(photo), lambda: _kept[photo])
