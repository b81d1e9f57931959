"""Transparency: hidden colours stay out of the visible edge, alpha follows the size."""

from __future__ import annotations

import numpy as np
import pytest

from rasr.restoration.alpha import bleed_colour, resize_alpha


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
