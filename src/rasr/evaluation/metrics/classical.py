"""PSNR, SSIM and NIQE in float64, by the protocol of record: the metrics without a network.

Which luma a published figure used changes PSNR by 1.3 dB, so the three in use are named.
"""

from collections.abc import Mapping
from functools import cache
from math import inf
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate, correlate1d
from scipy.special import gamma

from rasr.evaluation.metrics import ImageMetric, MetricInfo
from rasr.images import FloatImage
from rasr.weights import read_safetensors, require

_SOURCE = "options of OSEDiff's test_metrics.py as pyiqa resolves them"
_LIMITED = np.array([65.481, 128.553, 24.966]) / 255.0
_YIQ = np.array([0.299, 0.587, 0.114])
_BLOCK = 96
_Plane = NDArray[np.float64]


class PSNR(ImageMetric):
    """PSNR in dB: 10·log10(1 / (MSE + 1e-8)) on values in [0, 1]; equal pictures give 80."""

    facts = MetricInfo("PSNR", "higher", "full-reference", 0.0, 80.0, 2, "{space}, {crop}, float64", _SOURCE)
    spaces: ClassVar[Mapping[str, str]] = {"y": "Y of BT.601, not rounded", "rgb": "RGB"}

    def score(self, restored: FloatImage, truth: FloatImage) -> float:
        """PSNR of one pair, dB."""
        if self.space == "y":
            difference = _bt601_limited(restored) - _bt601_limited(truth)
        else:
            difference = restored.astype(np.float64) - truth.astype(np.float64)
        return float(10.0 * np.log10(1.0 / (np.mean(difference**2) + 1e-8)))


class SSIM(ImageMetric):
    """Structural similarity (Wang et al. 2004): 11×11 Gaussian, σ 1.5, no padding, range 255.

    Negative contrast-structure terms are clipped to zero, as in the protocol of record.
    """

    facts = MetricInfo("SSIM", "higher", "full-reference", 0.0, 1.0, 4, "{space}, {crop}, float64", _SOURCE)
    spaces: ClassVar[Mapping[str, str]] = {"y": "Y of BT.601, rounded to 8 bit", "rgb": "mean of R, G and B"}
    smallest = 11

    def score(self, restored: FloatImage, truth: FloatImage) -> float:
        """SSIM of one pair."""
        if self.space == "y":
            return _ssim(_bt601_limited_8bit(restored), _bt601_limited_8bit(truth))
        channels = ((restored[..., c] * 255.0, truth[..., c] * 255.0) for c in range(3))
        return float(np.mean([_ssim(a.astype(np.float64), b.astype(np.float64)) for a, b in channels]))


class NIQE(ImageMetric):
    """Natural image quality evaluator: 36 features of 96×96 blocks at two scales.

    The pristine model is the one of the authors' release (see data/README.md). Pictures are cut to whole blocks.
    """

    protocol = "Y of YIQ rounded to 8 bit, 96×96 blocks, flat ones as in pyiqa, {border} px border cropped"
    source = "Mittal, Soundararajan, Bovik, IEEE SPL 2013; version 'original' of the protocol of record"
    facts = MetricInfo("NIQE", "lower", "no-reference", 0.0, inf, 4, protocol, source)
    smallest = _BLOCK

    def score(self, restored: FloatImage, truth: FloatImage) -> float:
        """NIQE of one picture; ValueError when it has no two usable blocks."""
        luma = _yiq_8bit(restored)
        rows, columns = luma.shape[0] // _BLOCK, luma.shape[1] // _BLOCK
        luma = luma[: rows * _BLOCK, : columns * _BLOCK]
        half = _half(luma / 255.0) * 255.0
        features = np.concatenate([_features(luma, _BLOCK), _features(half, _BLOCK // 2)], axis=1)
        usable = features[~np.isnan(features).any(axis=1)]
        if len(usable) < 2:
            raise ValueError("NIQE needs at least two blocks that are not flat")
        mean = np.nanmean(features, axis=0)
        pristine_mean, pristine_covariance = _pristine()
        pooled = (pristine_covariance + np.cov(usable, rowvar=False)) / 2
        difference = pristine_mean - mean
        return float(np.sqrt(difference @ np.linalg.pinv(pooled) @ difference))


def _bt601_limited(pixels: FloatImage) -> _Plane:
    """Y of limited-range BT.601 (MATLAB's ``rgb2ycbcr``), (H, W) in [16/255, 235/255]."""
    return np.asarray(pixels.astype(np.float64) @ _LIMITED + 16.0 / 255.0)


def _bt601_limited_8bit(pixels: FloatImage) -> _Plane:
    """The same luma in whole numbers of 0..255, as MATLAB returns it for 8-bit pictures."""
    return np.asarray(np.rint(_bt601_limited(pixels) * 255.0))


def _yiq_8bit(pixels: FloatImage) -> _Plane:
    """Y of YIQ (MATLAB's ``rgb2gray``) in whole numbers of 0..255, halves rounded down.

    299·R + 587·G + 114·B of an 8-bit picture ends in exactly 500 for one pixel in a thousand. Which way those fall is
    worth up to 0.5 % of NIQE on pictures with large flat areas; left to floating point it depends on the machine.
    Downwards is fixed here because it comes closest to the published values (0.09 % at most, on twelve pictures).
    """
    return np.asarray(np.rint(pixels.astype(np.float64) @ _YIQ * 255.0 - 1e-4))


def _gaussian_window(size: int, sigma: float) -> _Plane:
    """One axis of a normalised Gaussian window, (size,)."""
    x = np.arange(size) - (size - 1) / 2
    window = np.exp(-(x**2) / (2 * sigma**2))
    return np.asarray(window / window.sum())


def _ssim(a: _Plane, b: _Plane) -> float:
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_a, mean_b = _blur(a), _blur(b)
    variance_a = _blur(a * a) - mean_a**2
    variance_b = _blur(b * b) - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    structure = np.maximum((2 * covariance + c2) / (variance_a + variance_b + c2), 0.0)
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return float(np.mean(luminance * structure))


def _blur(plane: _Plane) -> _Plane:
    window = _gaussian_window(11, 1.5)
    blurred = correlate1d(correlate1d(plane, window, axis=0), window, axis=1)
    return np.asarray(blurred[5:-5, 5:-5])


@cache
def _pristine() -> tuple[_Plane, _Plane]:
    tensors, _ = read_safetensors(require("niqe-pristine"), "numpy")
    return tensors["mean"], tensors["covariance"]


def _features(plane: _Plane, block: int) -> _Plane:
    """Features of every block, (blocks, 18), column by column as in the original code."""
    normal = _normalised(plane)
    rows, columns = plane.shape[0] // block, plane.shape[1] // block
    blocks = normal.reshape(rows, block, columns, block).transpose(2, 0, 1, 3).reshape(-1, block, block)
    alpha, left, right = _aggd(blocks)
    features = [alpha, (left + right) / 2]
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        alpha, left, right = _aggd(blocks * np.roll(blocks, shift, axis=(1, 2)))
        mean = (right - left) * gamma(2 / alpha) / gamma(1 / alpha)
        features += [alpha, mean, left, right]
    return np.stack(features, axis=1)


def _normalised(plane: _Plane) -> _Plane:
    """Mean-subtracted contrast-normalised coefficients, 7×7 Gaussian with σ 7/6, edges repeated.

    The window has float32 weights, as in the protocol of record: their sum is 1.1e-8 above one, so that flat areas come
    out a trace below zero everywhere and count as negative in the fits, whatever their level and the machine. With a
    window in float64 rounding decides, and NIQE of pictures with flat parts (bars, burnt-out skies) is another number.
    """
    axis = _gaussian_window(7, 7 / 6)
    window = np.outer(axis, axis).astype(np.float32).astype(np.float64)
    mean = correlate(plane, window, mode="nearest")
    deviation = np.sqrt(np.abs(correlate(plane**2, window, mode="nearest") - mean**2))
    return np.asarray((plane - mean) / (deviation + 1.0))


@cache
def _aggd_table() -> tuple[_Plane, _Plane]:
    shapes = np.arange(0.2, 10.001, 0.001)
    return shapes, gamma(2 / shapes) ** 2 / (gamma(1 / shapes) * gamma(3 / shapes))


def _aggd(blocks: _Plane) -> tuple[_Plane, _Plane, _Plane]:
    """Fit an asymmetric generalised Gaussian by moments: shape and two scales, (blocks,).

    A block with no negative or no positive value has no ratio. Its shape is the table's first, as in the protocol of
    record (pyiqa takes the position of the least distance, and a NaN counts as least), so that it weighs in the mean;
    its empty side's scale is NaN, by which the caller leaves it out of the covariance.
    """
    flat = blocks.reshape(len(blocks), -1)
    with np.errstate(invalid="ignore", divide="ignore"):
        left = np.sqrt((np.minimum(flat, 0) ** 2).sum(1) / (flat < 0).sum(1))
        right = np.sqrt((np.maximum(flat, 0) ** 2).sum(1) / (flat > 0).sum(1))
        ratio = left / right
        moment = np.abs(flat).mean(1) ** 2 / (flat**2).mean(1)
        wanted = moment * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shapes, table = _aggd_table()
    alpha = shapes[[0 if np.isnan(w) else int(np.argmin((table - w) ** 2)) for w in wanted]]
    scale = np.sqrt(gamma(1 / alpha) / gamma(3 / alpha))
    return alpha, left * scale, right * scale


def _half(plane: _Plane) -> _Plane:
    """Halve as MATLAB's ``imresize(x, 0.5)``: Keys' bicubic stretched by two, edges mirrored.

    Eight taps with fixed weights, since every output pixel sits between two input pixels.
    """
    distance = np.abs(np.arange(8) - 3.5) / 2
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    taps = np.where(distance <= 1, near, far)
    taps /= taps.sum()
    for axis in (0, 1):
        # correlate1d with an even window is centred one sample late: origin 0 looks at [i-4, i+3], so output 2i+1.
        plane = np.moveaxis(np.moveaxis(correlate1d(plane, taps, axis, mode="reflect"), axis, 0)[1::2], 0, axis)
    return plane
