"""Matching and homographies."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasr.images import FloatImage
from rasr.registration.features import extract
from rasr.registration.matching import homography, is_plausible, match, nearest, scale_at, transform

numbers = st.floats(-0.2, 0.2)


def test_a_stereo_pair_has_many_matches_and_another_photo_few(
    stereo: tuple[FloatImage, FloatImage], query: FloatImage, other: FloatImage
) -> None:
    one, right = extract(query, 640), extract(stereo[1], 1024)
    assert len(match(one, right)) > 150
    assert len(match(one, extract(other, 1024))) < 30
    assert len(nearest(one, right)) > 30


def test_nothing_is_matched_with_nothing(query: FloatImage) -> None:
    empty = extract(np.zeros((4, 300, 3), np.float32), 600)
    assert match(extract(query, 640), empty).shape == (0, 2)
    assert nearest(empty, empty).shape == (0, 2)


def test_a_homography_is_found_among_outliers_and_is_the_same_each_time() -> None:
    random = np.random.default_rng(3)
    true = np.array([[0.9, -0.2, 30], [0.25, 1.1, -10], [1e-4, -5e-5, 1]])
    source = random.uniform(0, 400, (200, 2)).astype(np.float32)
    target = transform(true, source).astype(np.float32)
    target[:80] = random.uniform(0, 400, (80, 2))
    found = homography(source, target, 3.0)
    assert found is not None
    matrix, agree = found
    np.testing.assert_allclose(matrix / matrix[2, 2], true, rtol=1e-3, atol=1e-3)
    assert agree[80:].all()
    again = homography(source, target, 3.0)
    assert again is not None
    np.testing.assert_array_equal(matrix, again[0])


def test_few_points_have_no_homography() -> None:
    assert homography(np.zeros((4, 2), np.float32), np.zeros((4, 2), np.float32), 3.0) is None


@given(st.floats(0.2, 8), st.floats(-3.1, 3.1))
def test_the_scale_of_a_similarity_is_its_scale(scale: float, angle: float) -> None:
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    matrix = np.array([[c, -s, 5.0], [s, c, -7.0], [0, 0, 1]])
    assert scale_at(matrix, (31.0, 17.0)) == pytest.approx(scale)
    assert is_plausible(matrix, (320, 240))


@pytest.mark.parametrize(
    "matrix",
    [
        [[-1, 0, 300], [0, 1, 0], [0, 0, 1]],  # a mirror
        [[1, 0, 0], [0, 1, 0], [-0.005, 0, 1]],  # a horizon within the picture
        [[0.01, 0, 0], [0, 0.01, 0], [0, 0, 1]],  # the whole picture in three pixels
        [[20, 0, 0], [0, 20, 0], [0, 0, 1]],
    ],
)
def test_what_no_camera_sees_is_not_plausible(matrix: list[list[float]]) -> None:
    assert not is_plausible(np.array(matrix, np.float64), (320, 240))
