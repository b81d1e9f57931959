"""Parallax: fields of few numbers, read from the whole picture and from all photos."""

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from rasr.images import FloatImage
from rasr.registration.alignment import Alignment, Sight
from rasr.registration.fusion import fuse
from rasr.registration.parallax import _Model, agree
from rasr.registration.scene import SceneMatch
from tests.registration.conftest import compare

SIDE = 448
PART = (slice(64, 384), slice(64, 384))
"""The query: the middle 320 × 320 of a scene."""

Stereo = tuple[FloatImage, FloatImage]


@pytest.fixture(scope="module")
def depth() -> NDArray[np.float32]:
    """Hills, and a disc before them."""
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    hills = 4 * np.sin(x / 60) * np.cos(y / 75)
    disc = 8 * np.clip((73 - np.hypot(x - 250, y - 210)) / 6, 0, 1)
    return np.asarray(hills + disc, np.float32)


def view(scene: FloatImage, depth: NDArray[np.float32], moved: tuple[float, float], seed: int) -> FloatImage:
    """What a camera sees that was moved, with its noise: what lies nearer moves more."""
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    places = np.zeros((2, SIDE, SIDE), np.float32)
    for _ in range(20):  # where each pixel of the view lies in the scene
        there = cv2.remap(depth, x + places[0], y + places[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        places = 0.5 * places - 0.5 * np.stack([moved[0] * there, moved[1] * there])
    seen = cv2.remap(scene, x + places[0], y + places[1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    noise = np.random.default_rng(seed).normal(0, 0.02, seen.shape)
    return np.asarray((seen + noise).clip(0, 1), np.float32)


def degraded(truth: FloatImage, noise: float = 0.05) -> FloatImage:
    """A fourth of the size, with noise, and enlarged."""
    small = cv2.resize(truth, (80, 80), interpolation=cv2.INTER_AREA)
    small = small + np.random.default_rng(0).normal(0, noise, small.shape).astype(np.float32)
    small = cv2.GaussianBlur(small, (0, 0), 10 * noise)
    return np.asarray(cv2.resize(small, (320, 320), interpolation=cv2.INTER_CUBIC).clip(0, 1), np.float32)


@pytest.fixture(scope="module")
def scene(stereo: Stereo) -> FloatImage:
    return np.ascontiguousarray(stereo[0][40 : 40 + SIDE, 150 : 150 + SIDE])


def found(query: FloatImage, photo: FloatImage) -> tuple[FloatImage, SceneMatch]:
    seen = compare(query, photo)
    assert seen.same_scene
    return photo, seen


def error(picture: FloatImage, truth: FloatImage) -> float:
    """Root mean square of what is wrong with the detail, away from the border."""
    wrong = picture - truth
    wrong = (wrong - cv2.GaussianBlur(wrong, (0, 0), 6))[16:-16, 16:-16]
    return float(np.sqrt((wrong**2).mean()))


def test_two_photos_of_a_deep_scene_tell_its_shape(scene: FloatImage, depth: NDArray[np.float32]) -> None:
    truth = np.ascontiguousarray(scene[PART])
    query = degraded(truth)
    photos = [found(query, view(scene, depth, moved, seed)) for seed, moved in enumerate([(1.1, 0.2), (-0.5, 0.9)])]
    errors = []
    for used in ([photos[0]], [photos[1]], photos):
        picture = query.copy()
        fuse(picture, query, used)
        errors.append(error(picture, truth))
    assert errors[2] < 0.88 * min(errors[:2])


def test_photos_lie_on_each_other(scene: FloatImage, depth: NDArray[np.float32]) -> None:
    query = degraded(np.ascontiguousarray(scene[PART]))
    photos = [found(query, view(scene, depth, moved, seed)) for seed, moved in enumerate([(1.1, 0.2), (-0.5, 0.9)])]
    sights = [Sight(query, query, *one) for one in photos]
    alone = [sight.align() for sight in sights]
    together = agree(sights, alone)
    assert sorted(together) == [0, 1]
    assert apart(together[0], together[1]) < 0.7 * apart(*alone)


def apart(one: Alignment, other: Alignment) -> float:
    sure = (one.confidence > 0.5) & (other.confidence > 0.5)
    assert sure.mean() > 0.3
    return float(np.abs(one.seen - other.seen)[sure].mean())


def test_a_flat_scene_takes_few_numbers(scene: FloatImage) -> None:
    """The same photo in perspective: aligned by its pieces it follows the noise."""
    query = degraded(np.ascontiguousarray(scene[PART]), 0.12)
    tilt = np.array([[1.02, 0.05, -4], [-0.04, 0.99, 6], [6e-5, -4e-5, 1]])
    photo, seen = found(query, cv2.warpPerspective(scene, tilt, (SIDE, SIDE), flags=cv2.INTER_CUBIC).clip(0, 1))
    sight = Sight(query, query, photo, seen)
    pieces = sight.align()
    whole = agree([sight], [pieces])[0]
    truth = scene[PART]
    wrong = [float(np.abs(one.seen - truth)[16:-16, 16:-16].mean()) for one in (pieces, whole)]
    assert wrong[1] < 0.9 * wrong[0]


def test_one_photo_of_a_deep_scene_stays_as_it_was_aligned(stereo: Stereo, query: FloatImage) -> None:
    sight = Sight(query, query, *found(query, stereo[1]))
    assert agree([sight], [sight.align()]) == {}


def test_where_the_further_photo_ends_nothing_is_its_doing(scene: FloatImage, depth: NDArray[np.float32]) -> None:
    """A second photo that shows the left half only; the first is aligned as before in most of the right."""
    query = degraded(np.ascontiguousarray(scene[PART]))
    photos = [found(query, view(scene, depth, (1.1, 0.2), 0))]
    photos.append(found(query, np.ascontiguousarray(view(scene, depth, (-0.5, 0.9), 1)[:, :230])))
    sights = [Sight(query, query, *one) for one in photos]
    alone = [sight.align() for sight in sights]
    together = {**dict(enumerate(alone)), **agree(sights, alone)}
    right = np.abs(together[0].offsets - alone[0].offsets)[:, 240:]
    assert np.median(right) < 1e-3
    assert not together[1].confidence[:, 240:].any()


@pytest.mark.parametrize("level", [0.0, 0.5])
def test_a_picture_without_anything_to_see_is_no_error(level: float, stereo: Stereo) -> None:
    nothing = np.full((96, 80, 3), level, np.float32)
    seen = SceneMatch(same_scene=True, matches=100, covered=1)
    sights = [Sight(nothing, nothing, photo, seen) for photo in (stereo[0], np.zeros((96, 80, 3), np.float32))]
    for one in agree(sights, [sight.align() for sight in sights]).values():
        assert np.isfinite(one.offsets).all()
        assert np.isfinite(one.confidence).all()


def test_a_field_of_few_numbers_is_told_by_them(stereo: Stereo, query: FloatImage) -> None:
    look = Sight(query, query, *found(query, stereo[1])).look
    model = _Model(look, (), flat=True)
    numbers: NDArray[Any] = np.random.default_rng(0).normal(0, 1.5, (6, 2))
    offsets = model.offsets(numbers, np.zeros((look.size[1], look.size[0], 2), np.float32))
    places = look.grid + offsets
    away = (model.terms(places) @ numbers).reshape(places.shape)
    inside = ((places >= 0) & (places <= np.array(look.size) - 1)).all(-1)
    assert np.abs(places + away - look.grid)[inside].mean() < 0.05, "each place is shown where the model says"
    told = model.near(offsets, inside.astype(np.float32))
    np.testing.assert_allclose(told, numbers, atol=0.2)
