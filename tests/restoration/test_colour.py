"""Colour match, strip by strip equal to the whole; hidden colours stay out of the visible edge."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from rasr.images import FloatImage, resize
from rasr.restoration import ColourMethod, tiles
from rasr.restoration.colour import bleed_colour, match_colour, resize_alpha


def a_trous(plane: FloatImage, levels: int = 5) -> FloatImage:
    """The plain definition: 3×3 binomial kernel, holes doubled at each level, edge repeated."""
    kernel = np.array([1, 2, 1]) / 4
    for level in range(levels):
        d = 2**level
        padded = np.pad(plane.astype(np.float64), ((d, d), (d, d), (0, 0)), "edge")
        height, width = plane.shape[:2]
        plane = np.zeros_like(plane, np.float64)
        for i, a in enumerate(kernel):
            for j, b in enumerate(kernel):
                plane += a * b * padded[i * d : i * d + height, j * d : j * d + width]
    return plane


@pytest.fixture
def shifted(photo: FloatImage) -> tuple[FloatImage, FloatImage]:
    """A result that is too red and too flat, and its input at a third of the size."""
    lq = np.clip(resize(photo, (150, 100)), 0, 1)
    return np.clip(photo * np.float32([0.7, 0.5, 0.5]) + np.float32([0.2, 0.1, 0.05]), 0, 1), lq


def test_wavelet_takes_low_frequencies_from_the_input_and_the_rest_from_the_result(
    shifted: tuple[FloatImage, FloatImage],
) -> None:
    result, lq = shifted
    expected = np.clip(result - a_trous(result) + a_trous(resize(lq, (451, 300))), 0, 1)
    matched = result.copy()
    match_colour(matched, lq, "wavelet")
    assert np.abs(matched - expected).max() < 2e-5


def test_lowest_moves_only_what_lies_below_a_wide_gaussian(shifted: tuple[FloatImage, FloatImage]) -> None:
    result, lq = shifted
    shift = gaussian_filter(resize(lq, (451, 300)) - result, (32, 32, 0), mode="reflect")
    far = (np.abs(shift).max(2, keepdims=True) * 255 / 14) ** 4
    expected = np.clip(result + shift * (0.7 + 0.3 * far / (far + 1)), 0, 1)
    matched = result.copy()
    match_colour(matched, lq, "lowest")
    assert np.abs(matched - expected).max() < 4e-3
    assert np.abs(matched - result).mean() > 0.03


@pytest.mark.parametrize("size", [(1, 600), (600, 1), (1, 1), (5, 9), (90, 40)])
def test_lowest_makes_a_drifted_flat_picture_flat_again(size: tuple[int, int]) -> None:
    lq = np.full((*size, 3), np.float32([0.3, 0.6, 0.2]))
    result = np.full((4 * size[0], 4 * size[1], 3), np.float32([0.4, 0.6, 0.2]))
    match_colour(result, lq, "lowest")
    assert np.ptp(result, axis=(0, 1)).max() < 1e-6
    assert np.abs(result - lq[0, 0]).max() < 1 / 255, "of 25 levels that it was off"


@pytest.mark.parametrize("size", [(1, 1), (3, 70), (40, 2), (33, 33)])
def test_pictures_smaller_than_the_filter_work(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    result, lq = (rng.random((*size, 3), np.float32) * np.float32(0.5) + np.float32(0.25) for _ in range(2))
    expected = np.clip(result - a_trous(result) + a_trous(lq), 0, 1)
    match_colour(result, lq, "wavelet")
    assert np.abs(result - expected).max() < 1e-5


def test_adain_takes_mean_and_deviation_of_each_channel(shifted: tuple[FloatImage, FloatImage]) -> None:
    result, lq = shifted
    match_colour(result, lq, "adain")
    upsampled = resize(lq, (451, 300))
    assert result.mean((0, 1)) == pytest.approx(upsampled.mean((0, 1)), abs=3e-3)
    assert result.std((0, 1)) == pytest.approx(upsampled.std((0, 1)), abs=3e-3)


@pytest.mark.parametrize("method", ["lowest", "wavelet", "adain"])
def test_the_cut_into_strips_does_not_show(
    method: ColourMethod, shifted: tuple[FloatImage, FloatImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, lq = shifted
    many = one.copy()
    monkeypatch.setattr(tiles, "ROWS", 1000)
    match_colour(one, lq, method)
    monkeypatch.setattr(tiles, "ROWS", 37)
    match_colour(many, lq, method)
    assert np.abs(one - many).max() < 1e-6


@pytest.mark.parametrize("method", ["wavelet", "adain"])
def test_colours_come_back_to_those_of_the_input(method: ColourMethod, shifted: tuple[FloatImage, FloatImage]) -> None:
    result, lq = shifted
    before = np.abs(resize(result, (150, 100)) - lq).mean()
    match_colour(result, lq, method)
    assert np.abs(resize(result, (150, 100)) - lq).mean() < before / 3


def test_none_changes_nothing_and_a_perfect_result_stays(photo: FloatImage) -> None:
    for method in ("none", "lowest", "wavelet", "adain"):
        same = photo.copy()
        match_colour(same, photo, method)
        assert np.abs(same - photo).max() <= (0 if method == "none" else 1e-6)


def test_adain_equals_the_authors_definition(shifted: tuple[FloatImage, FloatImage]) -> None:
    """(x − mean) / √(var + 1e-5), with the unbiased variance: a nearly flat result is not stretched to the input's."""
    for result in (shifted[0], shifted[0] * np.float32(0.01) + np.float32(0.4)):
        lq = resize(shifted[1], (451, 300))
        mean, wanted = result.mean((0, 1), dtype=np.float64), lq.mean((0, 1), dtype=np.float64)
        deviation, target = (np.sqrt(x.var((0, 1), ddof=1, dtype=np.float64) + 1e-5) for x in (result, lq))
        expected = np.clip((result - mean) / deviation * target + wanted, 0, 1)
        matched = result.copy()
        match_colour(matched, shifted[1], "adain")
        assert np.abs(matched - expected).max() < 1e-5


def test_a_constant_channel_does_not_explode() -> None:
    flat = np.full((20, 20, 3), 0.5, np.float32)
    match_colour(flat, np.random.default_rng(0).random((20, 20, 3), np.float32), "adain")
    assert np.isfinite(flat).all()


def test_the_work_is_done_in_place_with_little_memory(traced_peak: Callable[[Callable[[], object]], int]) -> None:
    result = np.full((3000, 600, 3), 0.4, np.float32)
    lq = np.full((750, 150, 3), 0.5, np.float32)
    for method in ("lowest", "wavelet", "adain"):
        peak = traced_peak(partial(match_colour, result, lq, method))
        assert peak < result.nbytes
    assert result == pytest.approx(0.5, abs=1e-6)


def test_invisible_pixels_take_the_nearest_visible_colour() -> None:
    pixels = np.zeros((4, 6, 3), np.float32)
    pixels[:, :2] = [1, 0.5, 0]
    pixels[:, 5] = [0, 0, 1]
    alpha = np.zeros((4, 6), np.float32)
    alpha[:, :2] = 1
    alpha[:, 5] = 0.01  # hardly visible is still visible
    bled = bleed_colour(pixels, alpha)
    assert np.allclose(bled[:, :4], [1, 0.5, 0]) or np.allclose(bled[:, :3], [1, 0.5, 0])
    assert np.allclose(bled[:, 4:], [0, 0, 1])
    assert np.all(pixels[:, 2:5] == 0), "the input is not changed"


@pytest.mark.parametrize("level", [0.0, 1.0, 0.4])
def test_nothing_to_do_is_nothing_done(level: float) -> None:
    pixels = np.random.default_rng(0).random((5, 5, 3), np.float32)
    assert bleed_colour(pixels, np.full((5, 5), level, np.float32)) is pixels


def test_a_constant_alpha_stays_exactly_that_constant() -> None:
    resized = resize_alpha(np.full((7, 5), 0.3, np.float32), (20, 28))
    assert resized.shape == (28, 20)
    assert np.all(resized == np.float32(0.3))


def test_an_edge_keeps_its_place_and_its_range() -> None:
    alpha = np.zeros((20, 20), np.float32)
    alpha[:, 10:] = 1
    resized = resize_alpha(alpha, (80, 80))
    assert resized.min() == 0
    assert resized.max() == 1
    assert np.all(resized[:, :30] < 0.05)
    assert np.all(resized[:, 50:] > 0.95)
    assert resized[:, 39:41].mean() == pytest.approx(0.5, abs=0.01)
