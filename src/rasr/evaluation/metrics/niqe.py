"""NIQE: distance of a picture's local statistics from those of pristine photographs (Mittal et al. 2013)."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d
from scipy.special import gamma

from rasr.evaluation.metrics import ImageMetric, MetricInfo
from rasr.evaluation.metrics.psnr_ssim import gaussian_window, yiq_8bit
from rasr.images import FloatImage
from rasr.weights import read_safetensors, require

__all__ = ["NIQE"]

_BLOCK = 96
Plane = NDArray[np.float64]


class NIQE(ImageMetric):
    """Natural image quality evaluator, lower is better; 36 features of 96×96 blocks at two scales.

    The pristine model is the one of the authors' release (see data/README.md). Pictures are cut to whole blocks.
    """

    facts = MetricInfo(
        "NIQE",
        "lower",
        "no-reference",
        0.0,
        float("inf"),
        4,
        "Y of YIQ rounded to 8 bit, 96×96 blocks, {border} px border cropped",
        "Mittal, Soundararajan, Bovik, IEEE SPL 2013; version 'original' of the protocol of record",
    )
    smallest = _BLOCK

    def score(self, restored: FloatImage, truth: FloatImage) -> float:
        """NIQE of one picture; ValueError when it has no two usable blocks."""
        luma = yiq_8bit(restored)
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


@cache
def _pristine() -> tuple[Plane, Plane]:
    tensors, _ = read_safetensors(require("niqe-pristine"), "numpy")
    return tensors["mean"], tensors["covariance"]


def _features(plane: Plane, block: int) -> Plane:
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


def _normalised(plane: Plane) -> Plane:
    """Mean-subtracted contrast-normalised coefficients, 7×7 Gaussian with σ 7/6, edges repeated."""
    window = gaussian_window(7, 7 / 6)

    def blur(values: Plane) -> Plane:
        return np.asarray(correlate1d(correlate1d(values, window, 0, mode="nearest"), window, 1, mode="nearest"))

    mean = blur(plane)
    deviation = np.sqrt(np.abs(blur(plane**2) - mean**2))
    return np.asarray((plane - mean) / (deviation + 1.0))


@cache
def _aggd_table() -> tuple[Plane, Plane]:
    shapes = np.arange(0.2, 10.001, 0.001)
    return shapes, gamma(2 / shapes) ** 2 / (gamma(1 / shapes) * gamma(3 / shapes))


def _aggd(blocks: Plane) -> tuple[Plane, Plane, Plane]:
    """Asymmetric generalised Gaussian fitted by moments: shape and the two scales, each (blocks,).

    A block with no negative or no positive value has no fit and gives NaN, which the caller drops.
    """
    flat = blocks.reshape(len(blocks), -1)
    with np.errstate(invalid="ignore", divide="ignore"):
        left = np.sqrt((np.minimum(flat, 0) ** 2).sum(1) / (flat < 0).sum(1))
        right = np.sqrt((np.maximum(flat, 0) ** 2).sum(1) / (flat > 0).sum(1))
        ratio = left / right
        moment = np.abs(flat).mean(1) ** 2 / (flat**2).mean(1)
        wanted = moment * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shapes, table = _aggd_table()
    alpha = np.array([np.nan if np.isnan(w) else shapes[np.argmin((table - w) ** 2)] for w in wanted])
    scale = np.sqrt(gamma(1 / alpha) / gamma(3 / alpha))
    return alpha, left * scale, right * scale


def _half(plane: Plane) -> Plane:
    """Half size as MATLAB's ``imresize(x, 0.5)``: Keys' bicubic stretched by two, edges mirrored.

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
