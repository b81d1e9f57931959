"""Faces: found, and given detail only by photos that are sure of them."""

import cv2
import numpy as np
import pytest
import skimage.data

from rasr.images import FloatImage
from rasr.registration.faces import Face, find_faces, spare_faces
from rasr.registration.fusion import fuse
from tests.registration.conftest import compare


@pytest.fixture(scope="module")
def portrait() -> FloatImage:
    """A woman before a flag and a model of a shuttle, 512×512; her face is 100 pixels wide."""
    return (skimage.data.astronaut() / 255).astype(np.float32)


def test_a_face_is_found_and_widened(portrait: FloatImage) -> None:
    face = min(find_faces(portrait), key=lambda one: one.top)
    assert abs(face.left + face.right - 2 * 224) < 20
    assert abs(face.top + face.bottom - 2 * 114) < 30
    assert 80 < face.side < 120


def test_a_motorcycle_and_a_stamp_have_no_face(stereo: tuple[FloatImage, FloatImage]) -> None:
    assert find_faces(stereo[0]) == []
    assert find_faces(np.zeros((20, 20, 3), np.float32)) == []


def test_half_a_face_is_no_face() -> None:
    confidence = np.zeros((100, 100), np.float32)
    confidence[:, :50] = 1
    face = Face(30, 30, 70, 70)
    spared = spare_faces(confidence, [face], (0, 0))
    assert not spared[30:70, 30:70].any()
    np.testing.assert_array_equal(spared[:, :15], confidence[:, :15])
    assert np.abs(np.diff(spared[50, 15:31])).max() < 0.4, "no step"
    sure = np.full((100, 100), 0.9, np.float32)
    np.testing.assert_array_equal(spare_faces(sure, [face], (0, 0)), sure)
    np.testing.assert_array_equal(spare_faces(sure * 0.5, [face], (200, 0)), sure * 0.5)


def test_another_face_is_not_put_in_place_of_the_one_in_the_picture(portrait: FloatImage) -> None:
    query = cv2.GaussianBlur(portrait, (0, 0), 1.5)
    photo = portrait.copy()
    head = photo[60:170, 170:280]
    photo[60:170, 170:280] = cv2.flip(head, 1)[:, :, ::-1] * 0.8  # someone else looks the other way
    seen = compare(query, photo)
    assert seen.same_scene
    picture = query.copy()
    faces = find_faces(query)
    evidence = fuse(picture, query, [(photo, seen)], faces=faces)
    face = min(faces, key=lambda one: one.top)
    assert evidence.total.mean() > 40, "the rest of the photo is of use"
    np.testing.assert_array_equal(
        picture[face.top : face.bottom, face.left : face.right], query[face.top : face.bottom, face.left : face.right]
    )


def test_the_same_face_is_given_its_detail(portrait: FloatImage) -> None:
    query = cv2.GaussianBlur(portrait, (0, 0), 1.5)
    shifted = np.ascontiguousarray(portrait[4:, 3:])
    evidence = fuse(query.copy(), query, [(shifted, compare(query, shifted))], faces=find_faces(query))
    assert evidence.total[90:140, 200:250].mean() > 150  # all but what the picture shows itself
