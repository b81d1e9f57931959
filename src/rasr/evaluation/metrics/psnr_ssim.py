"""PSNR and SSIM, in float64, by the protocol of record; and luma as the metrics define it.

Which luma a published figure used changes PSNR by 1.3 dB, so they are named.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

from rasr.evaluation.metrics import ImageMetric, MetricInfo
from rasr.images import FloatImage

__all__ = ["PSNR", "SSIM", "bt601_limited", "bt601_limited_8bit", "gaussian_window", "yiq_8bit"]

_SOURCE = "options of OSEDiff's test_metrics.py as pyiqa resolves them"
_LIMITED = np.array([65.481, 128.553, 24.966]) / 255.0
_YIQ = np.array([0.299, 0.587, 0.114])


class PSNR(ImageMetric):
    """Peak signal-to-noise ratio in dB: 10·log10(1 / (MSE + 1e-8)) on values in [0, 1]; identical pictures give 80."""

    facts = MetricInfo("PSNR", "higher", "full-reference", 0.0, 80.0, 2, "{space}, {crop}, float64", _SOURCE)
    spaces: ClassVar[Mapping[str, str]] = {"y": "Y of BT.601, not rounded", "rgb": "RGB"}

    def score(self, restored: FloatImage, truth: FloatImage) -> float:
        """PSNR of one pair, dB."""
        if self.space == "y":
            difference = bt601_limited(restored) - bt601_limited(truth)
        else:
            difference = restored.astype(np.float64) - truth.astype(np.float64)
        return float(10.0 * np.log10(1.0 / (np.mean(difference**2) + 1e-8)))


class SSIM(ImageMetric):
    """Structural similarity (Wang et al. 2004): Gaussian 11×11 window with σ 1.5, no padding, data range 255.

    Negative contrast-structure terms are clipped to zero, as in the protocol of record.
    """

    facts = MetricInfo("SSIM", "higher", "full-reference", 0.0, 1.0, 4, "{space}, {crop}, float64", _SOURCE)
    spaces: ClassVar[Mapping[str, str]] = {"y": "Y of BT.601, rounded to 8 bit", "rgb": "mean of R, G and B"}
    smallest = 11

    def score(self, restored: FloatImage, truth: FloatImage) -> float:
        """SSIM of one pair."""
        if self.space == "y":
            return _ssim(bt601_limited_8bit(restored), bt601_limited_8bit(truth))
        channels = ((restored[..., c] * 255.0, truth[..., c] * 255.0) for c in range(3))
        return float(np.mean([_ssim(a.astype(np.float64), b.astype(np.float64)) for a, b in channels]))


def bt601_limited(pixels: FloatImage) -> NDArray[np.float64]:
    """Y of limited-range BT.601 YCbCr (MATLAB's ``rgb2ycbcr``), (H, W) float64 in [16/255, 235/255], not rounded."""
    return np.asarray(pixels.astype(np.float64) @ _LIMITED + 16.0 / 255.0)


def bt601_limited_8bit(pixels: FloatImage) -> NDArray[np.float64]:
    """The same luma on the 0..255 scale, rounded to whole numbers, as MATLAB returns it for 8-bit pictures."""
    return np.asarray(np.rint(bt601_limited(pixels) * 255.0))


def yiq_8bit(pixels: FloatImage) -> NDArray[np.float64]:
    """Y of YIQ (full range, MATLAB's ``rgb2gray``) on the 0..255 scale, rounded to whole numbers, halves down.

    299·R + 587·G + 114·B of an 8-bit picture ends in exactly 500 for one pixel in a thousand. Which way those fall is
    worth up to 0.5 % of NIQE on pictures with large flat areas; left to floating point it depends on the machine.
    Downwards is fixed here because it comes closest to the published values (0.09 % at most, on twelve pictures).
    """
    return np.asarray(np.rint(pixels.astype(np.float64) @ _YIQ * 255.0 - 1e-4))


def gaussian_window(size: int, sigma: float) -> NDArray[np.float64]:
    """One axis of a normalised Gaussian window, (size,)."""
    x = np.arange(size) - (size - 1) / 2
    window = np.exp(-(x**2) / (2 * sigma**2))
    return np.asarray(window / window.sum())


def _ssim(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_a, mean_b = _blur(a), _blur(b)
    variance_a = _blur(a * a) - mean_a**2
    variance_b = _blur(b * b) - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    structure = np.maximum((2 * covariance + c2) / (variance_a + variance_b + c2), 0.0)
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return float(np.mean(luminance * structure))


def _blur(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    window = gaussian_window(11, 1.5)
    blurred = correlate1d(correlate1d(plane, window, axis=0), window, axis=1)
    return np.asarray(blurred[5:-5, 5:-5])
