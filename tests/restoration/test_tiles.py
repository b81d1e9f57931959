"""The plan of tiles: covers everything, its weights sum to one, and a rectangle equals the same part of the whole."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rasr.images import FloatImage, resize
from rasr.restoration.tiles import plan_axis, resample_region


@settings(max_examples=1000, deadline=None)
@given(
    size=st.integers(1, 2048),
    target=st.integers(1, 8192),
    tile=st.integers(1, 2100),
    overlap=st.integers(0, 600),
    scale=st.sampled_from([1, 2, 4]),
    multiple=st.sampled_from([1, 8, 64]),
)
def test_every_canvas_pixel_gets_weights_that_sum_to_one(
    size: int, target: int, tile: int, overlap: int, scale: int, multiple: int
) -> None:
    strips = plan_axis(size, target, tile, overlap, scale=scale, multiple=multiple)
    total = np.zeros(target, np.float32)
    for strip in strips:
        assert strip.weights.min() >= 0
        assert strip.start >= 0
        assert strip.start + strip.length <= size
        assert strip.length <= strip.padded
        assert strip.padded % multiple == 0
        total[strip.first : strip.stop] += strip.weights
        # Each canvas pixel lies inside the tile it is taken from.
        centres = (np.arange(strip.first, strip.stop) + 0.5) * size / target
        assert centres.min() >= strip.start
        assert centres.max() <= strip.start + strip.length
    assert np.abs(total - 1).max() <= 1e-6
    assert len({strip.padded for strip in strips}) == 1, "one size of tile"


def test_tiles_are_evenly_spaced_and_keep_their_distance_from_the_edge() -> None:
    strips = plan_axis(1000, 4000, 256, 32, scale=4)
    gaps = np.diff([strip.start for strip in strips])
    assert gaps.max() - gaps.min() <= 1
    for left, right in pairwise(strips):
        # A quarter of the overlap at each end of a tile is thrown away.
        assert left.stop <= (left.start + left.length - 8) * 4
        assert right.first >= (right.start + 8) * 4


def test_a_small_picture_is_one_tile_padded_to_what_the_generator_takes() -> None:
    (strip,) = plan_axis(5, 20, 128, 16, scale=4, multiple=8, minimum=32)
    assert (strip.length, strip.padded, strip.first, strip.stop) == (5, 32, 0, 20)
    (strip,) = plan_axis(37, 37, 128, 16, multiple=8)
    assert strip.padded == 40


def test_overlap_grows_where_resampling_needs_it() -> None:
    # Four times larger and then reduced to 1.3: the filter reaches 2 / 1.3 pixels of the grid.
    for left, right in pairwise(plan_axis(500, 650, 64, 0, scale=4)):
        assert left.start + left.length - right.start >= 2 * 2
    assert plan_axis(500, 2000, 64, 0, scale=4)[1].start == round(436 / 7)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_resampled_rectangle_equals_that_part_of_the_whole(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 60))
    size = data.draw(st.tuples(st.integers(1, 150), st.integers(1, 150)))
    top, left = data.draw(st.integers(0, size[1] - 1)), data.draw(st.integers(0, size[0] - 1))
    rows, columns = data.draw(st.integers(1, size[1] - top)), data.draw(st.integers(1, size[0] - left))
    pixels = np.random.default_rng(height * width).random((height, width, 3), np.float32)
    part = resample_region(pixels, size, top, left, rows, columns)
    assert part.shape == (rows, columns, 3)
    assert np.abs(part - resize(pixels, size)[top : top + rows, left : left + columns]).max() <= 1e-5


def test_a_rectangle_at_the_same_size_is_not_copied(photo: FloatImage) -> None:
    part = resample_region(photo, (451, 300), 10, 20, 30, 40)
    assert np.shares_memory(part, photo)
    assert np.array_equal(part, photo[10:40, 20:60])


@pytest.mark.parametrize("overlap", [0, 1, 7, 64, 10_000])
def test_absurd_overlaps_still_end(overlap: int) -> None:
    assert len(plan_axis(300, 300, 32, overlap)) <= 20
