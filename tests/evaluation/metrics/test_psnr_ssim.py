"""PSNR and SSIM against their reference implementations; what holds for every metric that needs no weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from rasr.evaluation.metrics import MeasuringProtocol, load_metric
from rasr.evaluation.metrics.psnr_ssim import bt601_limited, bt601_limited_8bit, yiq_8bit
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
    assert load_metric("EPD", DEFAULT).measure(truth, truth) == pytest.approx(0.0, abs=1e-9)


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
        bt601_limited_8bit(restored), bt601_limited_8bit(truth), data_range=255, gaussian_weights=True, sigma=1.5,
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
    np.testing.assert_allclose(bt601_limited(ends) * 255, [[16, 235]])
    # 299·R + 587·G + 114·B ends in 500: exact halves go down.
    halves = np.array([[[0, 0, 250], [250, 250, 247]]], np.float32) / 255
    assert 114 * 250 % 1000 == 500
    assert yiq_8bit(halves)[0, 0] == 28


@pytest.mark.parametrize("name", ["PSNR", "SSIM", "EPD"])
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
    for name in ("PSNR", "SSIM", "EPD"):
        metric = load_metric(name, DEFAULT)
        better, worse = (metric.measure(picture, truth) for picture in noisy)
        assert metric.info.improves(better - worse)
    metric = load_metric("NIQE", DEFAULT)
    assert metric.measure(noisy[1], None) > metric.measure(truth, None)
