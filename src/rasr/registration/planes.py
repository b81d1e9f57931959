"""Planes: Gaussians, bands and local correlation of one channel, and the optical flow between two."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rasr.images import FloatImage

FLOW_WINDOW = 8.0
"""Sigma within which light and contrast are taken out before flow is sought."""
NARROWEST = 3.0
"""Pixels of sigma that a wide Gaussian keeps when it is taken on a smaller picture."""

Plane = NDArray[np.float32]
"""(H, W) float32."""


def flow_between(levels: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The (H, W, 2) flow after which ``other`` looks like ``levels``; on one thread, since stripes change its bits."""
    if min(levels.shape) < 16:
        return np.zeros((*levels.shape, 2), np.float32)
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setFinestScale(0)
    search.setPatchSize(8)
    search.setPatchStride(3)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        flow: NDArray[np.float32] = search.calc(levels, other, None)
    finally:
        cv2.setNumThreads(threads)
    return np.nan_to_num(flow, copy=False, nan=0.0, posinf=0.0, neginf=0.0)


def normalised(plane: Plane) -> Plane:
    """Luma with its local mean and contrast taken out: other light is no motion."""
    mean = blur(plane, FLOW_WINDOW)
    spread = np.sqrt(np.maximum(blur(plane * plane, FLOW_WINDOW) - mean * mean, 0))
    return np.asarray((plane - mean) / (spread + 0.02), np.float32)


def flow_levels(plane: Plane) -> NDArray[np.uint8]:
    """Normalised luma in the levels that flow wants."""
    return np.clip(normalised(plane) * 40 + 128, 0, 255).astype(np.uint8)


def correlation(one: Plane, other: Plane, sigma: float) -> tuple[Plane, Plane, Plane]:
    """Local correlation in a Gaussian window, and both variances."""
    mean, other_mean = blur(one, sigma), blur(other, sigma)
    variance: Plane = np.maximum(blur(one * one, sigma) - mean * mean, np.float32(0))
    other_variance: Plane = np.maximum(blur(other * other, sigma) - other_mean * other_mean, np.float32(0))
    common = blur(one * other, sigma) - mean * other_mean
    fit = common / np.sqrt((variance + 1e-5) * (other_variance + 1e-5))
    return np.asarray(fit, np.float32), variance, other_variance


def band_of(plane: Plane, fine: float, coarse: float) -> Plane:
    """What lies between two Gaussians."""
    return blur(plane, fine) - blur(plane, coarse)


def blur(plane: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Gaussian of ``sigma`` pixels over an (H, W) plane or an (H, W, C) picture, reflected at the border."""
    blurred: NDArray[np.float32] = _gaussian(plane, sigma, cv2.BORDER_REFLECT)
    return blurred


def mean_around(plane: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Gaussian of an (H, W) plane, 0 beyond its border: of weights and of what they weigh."""
    averaged: NDArray[np.float64] = _gaussian(plane, sigma, cv2.BORDER_CONSTANT)
    return averaged


def _gaussian(plane: NDArray[Any], sigma: float, border: int) -> NDArray[Any]:
    """A Gaussian, wide ones on a smaller picture: what is left of it is as smooth, for a fraction of the time."""
    height, width = plane.shape[:2]
    factor = 1 << max(0, int(np.log2(sigma / NARROWEST)))
    if factor == 1 or min(height, width) < 4 * factor:
        whole: NDArray[Any] = cv2.GaussianBlur(plane, (0, 0), sigma, borderType=border)
        return whole
    small = cv2.resize(plane, (width // factor, height // factor), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma / factor, borderType=border)
    blurred: NDArray[Any] = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR).reshape(plane.shape)
    return blurred


def luma(pixels: FloatImage) -> Plane:
    """(H, W): Rec. 601 luma of (H, W, 3) pixels."""
    return (pixels @ np.array([0.299, 0.587, 0.114], np.float32)).astype(np.float32)
