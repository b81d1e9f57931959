"""Local features: where they lie, turned and resized, kept and read again."""

import numpy as np
import pytest

from rasr.images import FloatImage
from rasr.registration.features import KEPT, REFERENCE_SIDES, extract, extract_reference, fingerprint, pack, unpack
from rasr.registration.matching import match


def test_features_are_unit_vectors_inside_the_canvas(query: FloatImage) -> None:
    found = extract(query, 640)
    assert 300 < len(found.points) <= KEPT
    assert found.canvas == (640, 640)
    assert (found.points >= 0).all()
    assert (found.points < 640).all()
    np.testing.assert_allclose(np.linalg.norm(found.descriptors, axis=1), 1, atol=1e-4)


@pytest.mark.parametrize("turned", [0, 1, 2, 3])
def test_features_of_a_turned_picture_are_placed_in_the_upright_one(query: FloatImage, turned: int) -> None:
    wide = np.ascontiguousarray(query[:240])
    there = extract(wide, 640, turned=turned)
    again = extract(np.ascontiguousarray(np.rot90(wide, turned)), 640)
    pairs = match(there, again)
    assert len(pairs) > 200
    upright = there.where(pairs[:, 0])
    x, y = again.where(pairs[:, 1]).T
    height, width = wide.shape[:2]
    expected = {0: (x, y), 1: (width - 1 - y, x), 2: (width - 1 - x, height - 1 - y), 3: (y, height - 1 - x)}[turned]
    np.testing.assert_allclose(upright, np.stack(expected, 1), atol=1e-2)


def test_a_sliver_has_no_features() -> None:
    found = extract(np.zeros((4, 300, 3), np.float32), 600)
    assert found.points.shape == (0, 2)
    assert found.descriptors.shape == (0, 64)


def test_features_kept_are_those_that_were_found(query: FloatImage) -> None:
    found = extract_reference(query)
    again = unpack(pack(found))
    assert [max(one.canvas) for one in again] == list(REFERENCE_SIDES)
    for one, other in zip(found, again, strict=True):
        np.testing.assert_array_equal(one.points, other.points)
        np.testing.assert_array_equal(one.to_picture, other.to_picture)
        assert (one.descriptors * other.descriptors).sum(1).min() > 0.998
    assert len(pack(found)) < 200_000


def test_the_fingerprint_names_the_weights() -> None:
    assert fingerprint().startswith("xfeat/1024/1024-576/0f5187fd7bedd26c")
