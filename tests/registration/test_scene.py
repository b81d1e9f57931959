"""Same scene or not."""

import cv2
import numpy as np
import pytest

from rasr.images import FloatImage
from rasr.registration.matching import transform
from rasr.registration.scene import warp
from tests.registration.conftest import compare


def test_another_view_is_the_same_scene(stereo: tuple[FloatImage, FloatImage], query: FloatImage) -> None:
    found = compare(query, stereo[1])
    assert found.same_scene
    assert found.turned == 0
    assert found.covered > 0.25
    assert found.why == f"Same scene: {found.matches} places of it found again in {found.covered:.0%} of the picture."
    # The pair is rectified: the right photo shows the same rows.
    places = transform(found.to_reference, np.array([[40.0, 160.0], [280.0, 160.0]]))
    np.testing.assert_allclose(places[:, 1], 90 + 160, atol=6)


@pytest.mark.parametrize("turned", [1, 2, 3])
def test_a_turned_photo_is_found(stereo: tuple[FloatImage, FloatImage], query: FloatImage, turned: int) -> None:
    found = compare(query, np.ascontiguousarray(np.rot90(stereo[1], turned)))
    assert found.same_scene
    assert found.turned == 90 * turned


@pytest.mark.parametrize("scale", [0.5, 2.0, 4.0])
def test_a_photo_at_another_scale_is_found(
    query: FloatImage, stereo: tuple[FloatImage, FloatImage], scale: float
) -> None:
    photo = cv2.resize(
        stereo[1], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    )
    assert compare(query, photo.clip(0, 1)).same_scene


def test_a_photo_in_perspective_is_found(query: FloatImage, stereo: tuple[FloatImage, FloatImage]) -> None:
    tilt = np.array([[1, 0.1, 0], [0.05, 1, 0], [3e-4, 2e-4, 1]])
    assert compare(query, cv2.warpPerspective(stereo[1], tilt, (741, 500))).same_scene


def test_another_photo_is_not_the_same_scene(query: FloatImage, other: FloatImage) -> None:
    found = compare(query, other)
    assert not found.same_scene
    assert found.why.startswith("Not the same scene")


@pytest.mark.parametrize("shape", [(1, 1), (3, 700), (16, 16), (64, 64)])
def test_tiny_and_empty_pictures_match_nothing(shape: tuple[int, int], stereo: tuple[FloatImage, FloatImage]) -> None:
    assert not compare(np.full((*shape, 3), 0.5, np.float32), stereo[1]).same_scene


def test_a_mirrored_photo_is_not_taken(query: FloatImage, stereo: tuple[FloatImage, FloatImage]) -> None:
    assert not compare(query, np.ascontiguousarray(stereo[1][:, ::-1])).same_scene


def test_warping_by_a_shift_shows_the_shifted_place(stereo: tuple[FloatImage, FloatImage]) -> None:
    shift = np.array([[1.0, 0, 40], [0, 1.0, 25], [0, 0, 1.0]])
    seen, inside = warp(stereo[0], shift, (100, 80))
    np.testing.assert_allclose(seen, stereo[0][25:105, 40:140], atol=1e-5)
    assert inside.all()


def test_warping_a_finer_photo_averages_it(stereo: tuple[FloatImage, FloatImage]) -> None:
    finer = cv2.resize(stereo[0], None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC).clip(0, 1)
    to_finer = np.array([[3.0, 0, 1], [0, 3.0, 1], [0, 0, 1.0]])
    seen, _ = warp(finer, to_finer, (741, 500))
    assert np.abs(seen - stereo[0])[8:-8, 8:-8].mean() < 0.01
