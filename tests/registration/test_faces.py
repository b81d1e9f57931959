"""Faces: found, and given detail only by photos that are sure of them."""

import cv2
import numpy as np
import pytest
import skimage.data

from rasr.images import FloatImage
from rasr.registration.faces import Face, find_faces, find_faces_seen, spare_faces
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


def test_hair_and_walls_around_a_face_do_not_speak_for_it() -> None:
    """The widened box is sure by nine tenths in the mean, and the face in it is another; or only its mouth is."""
    face = Face(20, 20, 170, 170)
    inside = (slice(45 + 10, 145 - 10), slice(45 + 10, 145 - 10))
    other = np.ones((200, 200), np.float32)
    other[inside] = 0.5
    assert other[20:170, 20:170].mean() > 0.85
    assert not spare_faces(other, [face], (0, 0))[inside].any()
    mouth = np.ones((200, 200), np.float32)
    mouth[115:130, 75:115] = 0.2
    assert mouth[inside].mean() > 0.9
    assert not spare_faces(mouth, [face], (0, 0))[inside].any()
    speck = np.ones((200, 200), np.float32)
    speck[100:104, 100:104] = 0.2
    np.testing.assert_array_equal(spare_faces(speck, [face], (0, 0)), speck)


def test_a_face_that_the_picture_hardly_shows_is_left_as_it_is(portrait: FloatImage) -> None:
    """However sure the photo seems: of so few pixels another person's looks as sure."""
    sure = np.ones((128, 128), np.float32)
    far = np.array([[4.0, 0, 1.5], [0, 4.0, 1.5], [0, 0, 1]])
    face = min(find_faces_seen(portrait, far, (128, 128)), key=lambda one: one.top)
    assert face.small
    assert not spare_faces(sure, [face], (0, 0))[face.top + 4 : face.bottom - 4, face.left + 4 : face.right - 4].any()
    near = min(find_faces_seen(portrait, np.eye(3), (512, 512), input_scale=0.25), key=lambda one: one.top)
    assert not near.small
    blurred = min(find_faces_seen(portrait, np.eye(3), (512, 512), input_scale=0.1), key=lambda one: one.top)
    assert blurred.small


@pytest.mark.parametrize("turned", [0, 1])
def test_a_face_is_found_in_a_photo_as_the_picture_sees_it(portrait: FloatImage, turned: int) -> None:
    """The picture is half as large, the photo on its side."""
    photo = np.ascontiguousarray(np.rot90(portrait, turned))
    upright = np.array([[2.0, 0, 0.5], [0, 2.0, 0.5], [0, 0, 1]])
    onto_its_side = np.array([[0.0, 1, 0], [-1, 0, 511], [0, 0, 1]])
    faces = find_faces_seen(photo, onto_its_side @ upright if turned else upright, (256, 256))
    face = min(faces, key=lambda one: one.top)
    assert abs(face.left + face.right - 224) < 10
    assert abs(face.top + face.bottom - 114) < 15
    large = find_faces_seen(portrait, np.diag([0.5, 0.5, 1.0]), (1024, 1024))
    assert any(abs(one.left + one.right - 4 * 224) < 40 and abs(one.top + one.bottom - 4 * 114) < 60 for one in large)


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
