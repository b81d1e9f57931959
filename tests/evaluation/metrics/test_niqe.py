"""NIQE against its reference implementation and plain re-computations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import gamma

from rasr.evaluation.metrics import MeasuringProtocol, load_metric
from rasr.evaluation.metrics.niqe import _features, _half
from rasr.evaluation.metrics.psnr_ssim import yiq_8bit
from tests.evaluation.patterned import astronaut

DEFAULT = MeasuringProtocol()


def test_niqe_equals_pyiqa() -> None:
    """Not closer than half a per mille: pyiqa's float32 luma rounds exact halves the other way."""
    assert load_metric("NIQE", DEFAULT).measure(astronaut(), None) == pytest.approx(3.062388, rel=5e-4)


def test_niqe_features_equal_a_plain_loop() -> None:
    """Block by block and pair by pair, as the paper describes them."""
    plane = yiq_8bit(astronaut()[:192, :96])
    fast = _features(plane, 96)
    window = np.exp(-(np.arange(-3, 4) ** 2) / (2 * (7 / 6) ** 2))
    kernel = np.outer(window, window) / window.sum() ** 2
    padded = np.pad(plane, 3, mode="edge")
    views = np.lib.stride_tricks.sliding_window_view(padded, (7, 7))
    mean = np.einsum("hwij,ij->hw", views, kernel)
    deviation = np.sqrt(np.abs(np.einsum("hwij,ij->hw", views**2, kernel) - mean**2))
    normal = (plane - mean) / (deviation + 1)
    shapes = np.arange(0.2, 10.001, 0.001)
    ratios = gamma(2 / shapes) ** 2 / (gamma(1 / shapes) * gamma(3 / shapes))

    def fit(values: np.ndarray) -> tuple[float, float, float]:
        left, right = (math.sqrt(np.mean(values[side] ** 2)) for side in (values < 0, values > 0))
        g = left / right
        r = np.mean(np.abs(values)) ** 2 / np.mean(values**2)
        alpha = shapes[np.argmin((ratios - r * (g**3 + 1) * (g + 1) / (g**2 + 1) ** 2) ** 2)]
        scale = math.sqrt(gamma(1 / alpha) / gamma(3 / alpha))
        return alpha, left * scale, right * scale

    for row in range(2):
        block = normal[row * 96 : row * 96 + 96]
        alpha, left, right = fit(block)
        features = [alpha, (left + right) / 2]
        for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
            alpha, left, right = fit(block * np.roll(np.roll(block, dy, 0), dx, 1))
            features += [alpha, (right - left) * gamma(2 / alpha) / gamma(1 / alpha), left, right]
        np.testing.assert_allclose(fast[row], features, rtol=1e-9)


def test_half_size_equals_the_definition_of_imresize() -> None:
    """Keys' cubic (a = −0.5) stretched by two, sampled at the centres of pixel pairs, edges mirrored."""
    row = np.random.default_rng(0).uniform(0, 1, 12)
    mirrored = np.concatenate([row[:4][::-1], row, row[-4:][::-1]])

    def cubic(x: float) -> float:
        x = abs(x)
        return 1.5 * x**3 - 2.5 * x**2 + 1 if x <= 1 else -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0

    expected = []
    for i in range(6):
        centre = 2 * i + 0.5
        weights = {j: cubic((j - centre) / 2) for j in range(2 * i - 3, 2 * i + 5)}
        expected.append(sum(w * mirrored[j + 4] for j, w in weights.items()) / sum(weights.values()))
    halved = _half(np.tile(row, (4, 1)))
    np.testing.assert_allclose(halved, np.tile(expected, (2, 1)), rtol=1e-12)
