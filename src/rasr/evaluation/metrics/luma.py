"""Luma as the metrics define it. Which one a published figure used changes PSNR by 1.3 dB, so they are named."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rasr.images import FloatImage

__all__ = ["bt601_limited", "bt601_limited_8bit", "yiq_8bit"]

_LIMITED = np.array([65.481, 128.553, 24.966]) / 255.0
_YIQ = np.array([0.299, 0.587, 0.114])


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
