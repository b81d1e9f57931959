"""PSNR, SSIM and NIQE against their reference implementations and plain re-computations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import gamma
from skimage.metrics import structural_similarity

from rasr.evaluation.metrics import load_metric
from rasr.evaluation.metrics.classical import _bt601_limited, _bt601_limited_8bit, _features, _half, _yiq_8bit
from rasr.evaluation.settings import MeasuringProtocol
from rasr.images import FloatImage
from tests.evaluation.patterned import astronaut, sample_pair

DEFAULT = MeasuringProtocol()


@pytest.mark.parametrize(("name", "value", "tolerance"), [("PSNR", 35.966698, 1e-6), ("SSIM", 0.93348364, 1e-6)])
def test_full_reference_metrics_equal_pyiqa(name: str, value: float, tolerance: float) -> None:
    restored, truth = sample_pair()
    assert load_metric(name, DEFAULT).measure(restored, truth) == pytest.approx(value, rel=tolerance)


def test_identical_pictures() -> None:
    _, truth = sample_pair()
    assert load_metric("PSNR", DEFAULT).measure(truth, truth) == pytest.approx(80.0)
    assert load_metric("SSIM", DEFAULT).measure(truth, truth) == pytest.approx(1.0)
    for name in ("EPD", "ETD", "ETD_TEXTURE", "ETD_STRUCTURE"):
        assert load_metric(name, DEFAULT).measure(truth, truth) == pytest.approx(0.0, abs=1e-9)


def test_psnr_of_a_known_error() -> None:
    """Grey 100 against grey 110: luma differs by 10·(219/255), the squared error is known."""
    a, b = (np.full((16, 16, 3), level / 255, np.float32) for level in (100, 110))
    expected = 10 * math.log10(1 / ((10 / 255 * 219 / 255) ** 2 + 1e-8))
    assert load_metric("PSNR", DEFAULT).measure(a, b) == pytest.approx(expected, rel=1e-6)
    rgb = MeasuringProtocol(space="rgb")
    assert load_metric("PSNR", rgb).measure(a, b) == pytest.approx(
        10 * math.log10(1 / ((10 / 255) ** 2 + 1e-8)), rel=1e-6
    )


def test_ssim_equals_scikit_image() -> None:
    restored, truth = sample_pair()
    expected = structural_similarity(
        _bt601_limited_8bit(restored), _bt601_limited_8bit(truth), data_range=255, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False,
    )  # fmt: skip
    assert load_metric("SSIM", DEFAULT).measure(restored, truth) == pytest.approx(expected, rel=1e-6)


@given(st.integers(1, 20))
@settings(max_examples=10, deadline=None)
def test_crop_border_is_the_same_as_cropping_first(border: int) -> None:
    restored, truth = sample_pair()
    inner = (slice(border, -border), slice(border, -border))
    for name in ("PSNR", "SSIM"):
        cropped = load_metric(name, MeasuringProtocol(crop_border=border)).measure(restored, truth)
        assert cropped == load_metric(name, DEFAULT).measure(restored[inner], truth[inner])


def test_luma_ranges_and_rounding() -> None:
    ends = np.array([[[0, 0, 0], [1, 1, 1]]], np.float32)
    np.testing.assert_allclose(_bt601_limited(ends) * 255, [[16, 235]])
    # 299·R + 587·G + 114·B ends in 500: exact halves go down.
    halves = np.array([[[0, 0, 250], [250, 250, 247]]], np.float32) / 255
    assert 114 * 250 % 1000 == 500
    assert _yiq_8bit(halves)[0, 0] == 28


@pytest.mark.parametrize("name", ["PSNR", "SSIM", "EPD", "ETD"])
def test_full_reference_metrics_refuse_another_size(name: str) -> None:
    restored, truth = sample_pair()
    with pytest.raises(ValueError, match=r"size|ground truth"):
        load_metric(name, DEFAULT).measure(restored[:-4], truth)
    with pytest.raises(ValueError, match="ground truth"):
        load_metric(name, DEFAULT).measure(restored, None)


def test_too_small_or_flat_pictures_are_refused() -> None:
    small = np.zeros((40, 40, 3), np.float32)
    for name, message in (("NIQE", "96"), ("NIQE", "96")):
        with pytest.raises(ValueError, match=message):
            load_metric(name, DEFAULT).measure(small, None)
    with pytest.raises(ValueError, match="flat"):
        load_metric("NIQE", DEFAULT).measure(np.zeros((200, 200, 3), np.float32), None)
    with pytest.raises(ValueError, match="leaves nothing"):
        load_metric("PSNR", MeasuringProtocol(crop_border=20)).measure(small, small)


def test_worse_pictures_score_worse() -> None:
    truth = astronaut()[100:356, 100:356]
    rng = np.random.default_rng(1)
    noisy = [np.clip(truth + rng.normal(0, s, truth.shape), 0, 1).astype(np.float32) for s in (0.02, 0.1)]
    for name in ("PSNR", "SSIM", "EPD", "ETD", "ETD_TEXTURE", "ETD_STRUCTURE"):
        metric = load_metric(name, DEFAULT)
        better, worse = (metric.measure(picture, truth) for picture in noisy)
        assert metric.info.improves(better - worse)
    metric = load_metric("NIQE", DEFAULT)
    assert metric.measure(noisy[1], None) > metric.measure(truth, None)


def test_niqe_equals_pyiqa() -> None:
    """Not closer than half a per mille: pyiqa's float32 luma rounds exact halves the other way."""
    assert load_metric("NIQE", DEFAULT).measure(astronaut(), None) == pytest.approx(3.062388, rel=5e-4)


def _bars() -> FloatImage:
    """A photo between black bars."""
    picture = astronaut().copy()
    picture[:128] = picture[-128:] = 0
    return picture


def _burnt() -> FloatImage:
    """A photo whose left quarter is white."""
    picture = astronaut().copy()
    picture[:, :128] = 1
    return picture


@pytest.mark.parametrize(("picture", "value"), [(_bars(), 8.084190), (_burnt(), 4.786405)])
def test_niqe_of_flat_blocks_equals_pyiqa(picture: FloatImage, value: float) -> None:
    """Flat blocks count in the mean; flat parts of a block count as values below zero."""
    assert load_metric("NIQE", DEFAULT).measure(picture, None) == pytest.approx(value, rel=5e-4)


def test_niqe_features_equal_a_plain_loop() -> None:
    """Block by block and pair by pair, as the paper describes them."""
    plane = _yiq_8bit(astronaut()[:192, :96])
    fast = _features(plane, 96)
    window = np.exp(-(np.arange(-3, 4) ** 2) / (2 * (7 / 6) ** 2))
    kernel = (np.outer(window, window) / window.sum() ** 2).astype(np.float32).astype(np.float64)
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
