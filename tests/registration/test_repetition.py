"""Repetition: a photo found beside where it belongs is told from one that is where it belongs."""

import cv2
import numpy as np
import pytest
import skimage.data

from rasr.images import FloatImage
from rasr.registration import scene
from rasr.registration.repetition import surroundings
from rasr.registration.scene import SceneMatch, SceneQuery
from tests.registration.conftest import compare

SIZE = 384
POINTS = np.stack(np.meshgrid(np.arange(8, SIZE, 16), np.arange(8, SIZE, 16)), -1).reshape(-1, 2).astype(np.float32)


@pytest.fixture(scope="module")
def wall() -> FloatImage:
    """A wall of bricks, 512×512."""
    return np.repeat((skimage.data.brick() / 255).astype(np.float32)[..., None], 3, 2)


def shift(x: float, y: float) -> np.ndarray:
    return np.array([[1.0, 0, x], [0, 1.0, y], [0, 0, 1.0]])


def test_a_wall_found_beside_itself_is_no_scene(wall: FloatImage) -> None:
    query = SceneQuery(cv2.GaussianBlur(np.ascontiguousarray(wall[64:448, 64:448]), (0, 0), 1.5))
    assert not query._repeats(wall, shift(64, 64), POINTS)
    assert not query._repeats(wall, shift(67, 61), POINTS), "scenes are not flat: a little off is not elsewhere"
    assert query._repeats(wall, shift(110, 90), POINTS)
    assert query._repeats(wall, shift(10, 70), POINTS)
    few = POINTS[:3]
    assert not query._repeats(wall, shift(110, 90), few), "of three places nothing is told"


def test_a_scene_is_where_it_was_found(query: FloatImage, stereo: tuple[FloatImage, FloatImage]) -> None:
    seen = compare(query, stereo[1])
    assert seen.same_scene
    assert not seen.repeats


def test_what_lies_beyond_the_horizon_is_not_looked_at(wall: FloatImage, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[np.ndarray] = []
    monkeypatch.setattr(scene, "fits_elsewhere", lambda _picture, _seen, inside, *_rest: looked.append(inside))
    query = SceneQuery(np.ascontiguousarray(wall[64:448, 64:448]))
    steep = np.array([[1.0, 0, 64], [0, 1.0, 64], [0, -0.002, 1.0]])  # the horizon passes 116 pixels below the picture
    around, size = surroundings(steep, (SIZE, SIZE))
    depths = around[2, 1] * np.arange(size[1]) + around[2, 2]
    query._repeats(wall, steep, POINTS)
    (inside,) = looked
    assert (depths <= 0).any(), "the margin reaches beyond it"
    assert not inside[depths <= 0].any()
    assert inside[depths > 0].any()


def test_the_words_say_that_it_repeats() -> None:
    found = SceneMatch(same_scene=False, matches=94, repeats=True)
    assert found.why == (
        "Not the same scene: 94 places found again, but other places of the photo fit better: it repeats itself."
    )
