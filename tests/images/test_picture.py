"""The picture other rooms work on, and resampling it in float32."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rasr.images import Origin, Picture, resize
from rasr.images.picture import Filter

sides = st.integers(1, 24)
filters = st.sampled_from(get_args(Filter))


def test_sizes_and_a_change_of_pixels() -> None:
    beyond = np.ones((3, 5, 3), np.float32)
    picture = Picture(
        np.zeros((3, 5, 3), np.float32), np.ones((3, 5), np.float32), Origin(bits=16), Path("a.png"), ("n",), beyond
    )
    assert (picture.width, picture.height) == (5, 3)
    larger = picture.with_pixels(np.ones((6, 10, 3), np.float32), np.ones((6, 10), np.float32))
    assert (larger.width, larger.height) == (10, 6)
    assert (larger.origin, larger.path, larger.notes) == (picture.origin, picture.path, picture.notes)
    assert larger.beyond is beyond
    assert picture.with_pixels(picture.pixels).alpha is None


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((3, 5), np.float32), np.zeros((3, 5, 4), np.float32), np.zeros((3, 5, 3)), np.zeros((3, 5, 3), np.uint8)],
    ids=["plane", "four channels", "float64", "uint8"],
)
def test_pixels_of_another_shape_or_kind_are_refused(pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"pixels must be \(H, W, 3\) float32"):
        Picture(pixels)


def test_alpha_must_match() -> None:
    with pytest.raises(ValueError, match="does not match pixels"):
        Picture(np.zeros((3, 5, 3), np.float32), np.zeros((5, 3), np.float32))


@given(sides, sides, filters)
@settings(deadline=None)
def test_the_same_size_is_the_same_picture(width: int, height: int, name: Filter) -> None:
    pixels = np.random.default_rng(0).random((height, width, 3), np.float32)
    result = resize(pixels, (width, height), filter=name)
    np.testing.assert_array_equal(result, pixels)
    assert result is not pixels


@given(sides, sides, sides, sides, filters)
@settings(deadline=None)
def test_flat_stays_flat_and_the_size_is_the_one_asked_for(
    width: int, height: int, new_width: int, new_height: int, name: Filter
) -> None:
    flat = np.full((height, width, 3), 0.3, np.float32)
    result = resize(flat, (new_width, new_height), filter=name)
    assert result.shape == (new_height, new_width, 3)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, 0.3, rtol=1e-6)


@given(st.integers(2, 20), st.integers(2, 20), filters)
@settings(deadline=None)
def test_planes_are_resampled_like_channels(width: int, height: int, name: Filter) -> None:
    pixels = np.random.default_rng(1).random((height, width, 3), np.float32)
    whole = resize(pixels, (13, 7), filter=name)
    for channel in range(3):
        np.testing.assert_array_equal(resize(pixels[:, :, channel], (13, 7), filter=name), whole[:, :, channel])


@pytest.mark.parametrize("name", get_args(Filter))
@pytest.mark.parametrize("size", [(40, 60), (7, 11)])
def test_strips_cut_with_box_join_without_a_seam(name: Filter, size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(2).random((30, 20, 3), np.float32)
    width, height = size
    whole = resize(pixels, size, filter=name)
    scale = 30 / height
    parts = [
        resize(pixels, (width, bottom - top), filter=name, box=(0, top * scale, 20, bottom * scale))
        for top, bottom in ((0, 3), (3, 4), (4, height))
    ]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=2e-6)


def test_a_fractional_box_shifts_by_a_fraction_of_a_pixel() -> None:
    ramp = np.tile(np.arange(20, dtype=np.float32), (4, 1))
    shifted = resize(ramp, (10, 4), filter="bilinear", box=(3.25, 0, 13.25, 4))
    np.testing.assert_allclose(shifted[:, 1:-1], ramp[:, 4:12] + 0.25, atol=1e-5)


def test_bicubic_equals_the_kernel_written_out() -> None:
    """Keys' cubic with a = −0.5 (1981), widened by the scale when shrinking, weights normalised at the borders."""

    def cubic(x: float) -> float:
        x = abs(x)
        if x < 1:
            return 1.5 * x**3 - 2.5 * x**2 + 1
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0

    signal = np.random.default_rng(3).random(31).astype(np.float32)
    for length in (8, 31 * 3):
        scale = 31 / length
        width = max(scale, 1.0)
        expected = []
        for index in range(length):
            centre = (index + 0.5) * scale
            weights = np.array([cubic((source + 0.5 - centre) / width) for source in range(31)])
            expected.append((weights * signal).sum() / weights.sum())
        result = resize(np.tile(signal, (3, 1)), (length, 3), filter="bicubic")
        np.testing.assert_allclose(result[1], expected, atol=1e-5)


def test_nothing_is_rounded_to_8_bits_or_clipped() -> None:
    fine = np.linspace(0.5, 0.5 + 1 / 255, 64, dtype=np.float32)[None].repeat(2, axis=0)
    assert len(np.unique(resize(fine, (64 * 3, 2), filter="bilinear"))) > 150
    edge = np.repeat(np.array([[0.0, 1.0]], np.float32), 8, axis=1).repeat(4, axis=0)
    assert resize(edge, (64, 4), filter="lanczos").max() > 1


def test_a_view_of_a_larger_array_is_read_correctly() -> None:
    base = np.random.default_rng(4).random((20, 30, 3), np.float32)
    view = base[3:15:2, ::-1]
    np.testing.assert_array_equal(resize(view, (9, 5)), resize(view.copy(), (9, 5)))


def test_it_agrees_with_pillow_on_its_own_float_mode() -> None:
    plane = np.random.default_rng(5).random((17, 23), np.float32)
    expected = np.asarray(Image.fromarray(plane).resize((50, 9), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(resize(plane, (50, 9), filter="lanczos"), expected)


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-1, 5)])
def test_an_impossible_size_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="cannot resize"):
        resize(np.zeros((4, 4, 3), np.float32), size)


def test_an_unknown_filter_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="nearest, bilinear, bicubic, lanczos, area"):
        resize(np.zeros((4, 4, 3), np.float32), (2, 2), filter="magic")  # type: ignore[arg-type]  # on purpose


def test_the_function_is_not_shadowed_by_a_module() -> None:
    import rasr.images

    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("rasr.images.resize")
    assert rasr.images.resize is resize


def test_opaque_pixels_are_what_shows() -> None:
    pixels = np.array([[[0.2, 0.4, 0.6], [0.9, 0.1, 0.1]]], np.float32)
    picture = Picture(pixels, np.array([[0.5, 0.0]], np.float32))
    np.testing.assert_allclose(picture.opaque(), [[[0.6, 0.7, 0.8], [1, 1, 1]]], atol=1e-6)
    np.testing.assert_allclose(picture.opaque((0, 0, 1))[0, 1], [0, 0, 1])
    assert picture.opaque().dtype == np.float32
    assert Picture(pixels).opaque() is pixels
