"""Bands of detail: what is the picture's, what is a photo's, and the errors by which they are weighed."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rasr.images import FloatImage
from rasr.registration.alignment import Alignment
from rasr.registration.bands import EDGES, Detail, Weighing, bands
from rasr.registration.planes import blur, luma

Stereo = tuple[FloatImage, FloatImage]


@pytest.fixture(scope="module")
def truth(stereo: Stereo) -> FloatImage:
    return np.ascontiguousarray(stereo[0][100:260, 220:412])


def seen(pixels: FloatImage, confidence: float | FloatImage = 1.0) -> Alignment:
    sure = np.broadcast_to(np.float32(confidence), pixels.shape[:2])
    return Alignment(pixels, np.ascontiguousarray(sure), np.zeros((*pixels.shape[:2], 2), np.float32))


def weighed(picture: FloatImage, *photos: Alignment, noise: FloatImage | None = None, strength: float = 1.0) -> Detail:
    removed = np.zeros(picture.shape[:2], np.float32) if noise is None else noise
    weighing = Weighing(picture, picture, removed)
    for number, photo in enumerate(photos):
        weighing.put(number, photo)
    return weighing.detail(strength)


def moved(pixels: FloatImage, by: float) -> FloatImage:
    shift = np.array([[1, 0, by], [0, 1, 0]], np.float32)
    size = (pixels.shape[1], pixels.shape[0])
    return cv2.warpAffine(pixels, shift, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)


def test_bands_and_what_is_coarser_make_the_picture(truth: FloatImage) -> None:
    np.testing.assert_allclose(sum(bands(truth), start=blur(truth, EDGES[-1])), truth, atol=1e-5)


def test_where_no_photo_is_sure_nothing_changes(truth: FloatImage) -> None:
    found = weighed(blur(truth, 2), seen(truth, 0.0))
    assert not found.change.any()
    assert not found.shares.any()


def test_a_perfect_picture_takes_nothing(truth: FloatImage) -> None:
    found = weighed(truth, seen(moved(truth, 0.5)))
    assert np.abs(found.change).mean() < 0.002
    assert found.shares.mean() < 0.05


def test_the_blurrier_the_picture_the_more_is_taken(truth: FloatImage) -> None:
    shares = [weighed(blur(truth, sigma), seen(truth)).shares.mean() for sigma in (0.5, 1.0, 2.0, 4.0)]
    assert shares == sorted(shares)
    assert shares[0] < 0.4
    assert shares[-1] > 0.8


def test_the_further_a_photo_lies_off_the_less_is_taken(truth: FloatImage) -> None:
    query = blur(truth, 1.2)
    shares = [weighed(query, seen(moved(truth, by))).shares.mean() for by in (0.0, 0.4, 0.8)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > shares[-1] + 0.05


def test_noise_that_was_removed_is_an_error_of_the_picture(truth: FloatImage) -> None:
    noise = np.random.default_rng(0).normal(0, 0.06, truth.shape[:2]).astype(np.float32)
    clean = weighed(blur(truth, 0.8), seen(truth)).shares.mean()
    assert weighed(blur(truth, 0.8), seen(truth), noise=noise).shares.mean() > clean + 0.1


def test_the_better_of_two_photos_gives_more(truth: FloatImage) -> None:
    found = weighed(blur(truth, 1.5), seen(moved(truth, 0.9)), seen(truth))
    assert found.shares[1].mean() > 1.2 * found.shares[0].mean()
    assert found.shares.sum(0).max() <= 1 + 1e-5


def test_the_blend_is_closer_to_the_truth_than_either(truth: FloatImage) -> None:
    """Half a pixel off, and half the size: each knows something that the other does not."""
    query, photo = blur(truth, 1.0), moved(truth, 0.5)
    blend = query + weighed(query, seen(photo)).change
    errors = [float(((luma(one) - luma(truth)) ** 2).mean()) for one in (query, photo, blend)]
    assert errors[2] < min(errors[:2])


@settings(max_examples=15, deadline=None)
@given(strength=st.floats(0, 1), height=st.integers(5, 40), width=st.integers(5, 40), seed=st.integers(0, 9))
def test_shares_are_shares_and_strength_scales(strength: float, height: int, width: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    picture, photo = random.random((2, height, width, 3), np.float32)
    sure = random.random((height, width), np.float32)
    whole, part = (weighed(picture, seen(photo, sure), strength=one) for one in (1.0, strength))
    assert np.isfinite(whole.change).all()
    assert whole.shares.min() >= 0
    assert whole.shares.max() <= 1 + 1e-5
    np.testing.assert_allclose(part.change, strength * whole.change, atol=1e-5)
    np.testing.assert_allclose(part.shares, strength * whole.shares, atol=1e-5)
