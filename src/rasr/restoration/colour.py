"""Colour and transparency: give the result the colours of its input, and keep what alpha hides out of it.

A generator may shift hues and brightness; its low frequencies are not evidence, the input's are. ``lowest`` is RASR's
own; the other two methods of the colour match are those of StableSR (Wang et al., IJCV 2024, ``colorfix``), where
OSEDiff, PiSA-SR and SeeSR took them from. It works once for the whole picture and in place.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from rasr.images import FloatImage, resize
from rasr.restoration.settings import ColourMethod
from rasr.restoration.tiles import add_by_strips, resample_region, strips

LEVELS = 5
VARIANCE = 1e-5
"""Added to every variance by the authors' code before the root is taken."""
REACH = 2**LEVELS - 1
"""Rows the low-pass filter sees to either side: 1 + 2 + 4 + 8 + 16."""
LOWEST = 32
"""Deviation, in pixels of the result, of the Gaussian below which ``lowest`` corrects."""
REDUCED = 8
"""Pixels a side that ``lowest`` takes together: what is as smooth as that Gaussian needs no finer grid."""
SHARE, FAR = 0.7, 14 / 255
"""Of the way to the input, what ``lowest`` goes, and the distance from which on it goes nearly all of it: the input's
low frequencies have faults of their own, and between both lies a better estimate; but what is far off is drift."""
INVISIBLE = 0.5 / 255
"""Alpha below which a pixel's colour carries no information."""


def match_colour(pixels: FloatImage, lq: FloatImage, method: ColourMethod) -> None:
    """Change ``pixels`` (H, W, 3) in place to the colours of ``lq`` (h, w, 3), bicubically upsampled to its size.

    ``lowest`` moves what lies below a Gaussian of 32 pixels by 0.7 of the way to the input's, and by nearly all of it
    where that is much more than 14 levels of 255; ``wavelet`` replaces the low frequencies (5 levels of the à-trous
    transform with the 3×3 binomial kernel, so about 32 pixels and coarser); ``adain`` only each channel's mean and
    standard deviation; ``none`` does nothing. The
    result is clipped to [0, 1].
    """
    if method == "lowest":
        _lowest(pixels, lq)
    elif method == "wavelet":
        _wavelet(pixels, lq)
    elif method == "adain":
        _adain(pixels, lq)


def _lowest(pixels: FloatImage, lq: FloatImage) -> None:
    from scipy.ndimage import gaussian_filter

    height, width = pixels.shape[:2]
    small = (max(1, round(width / REDUCED)), max(1, round(height / REDUCED)))
    # Edges are mirrored: repeated, a border's last row would count for 32 rows.
    deviations = (LOWEST * small[1] / height, LOWEST * small[0] / width, 0)
    shift = gaussian_filter(resize(lq, small) - resize(pixels, small), deviations, mode="reflect")
    far = (np.abs(shift).max(axis=2, keepdims=True) / FAR) ** 4
    shift *= SHARE + (1 - SHARE) * far / (far + 1)
    add_by_strips(pixels, shift, 0, lambda shift, _: shift)


def _wavelet(pixels: FloatImage, lq: FloatImage) -> None:
    # high(pixels) + low(lq) = pixels + low(lq - pixels): the filter is linear, so one low-pass of the difference does.
    add_by_strips(pixels, lq, REACH, lambda lq, strip: _low_pass(lq - strip))


def _low_pass(strip: FloatImage) -> FloatImage:
    """Filter with the 3×3 binomial kernel at distances 1, 2, 4, 8 and 16; the edge is repeated outwards."""
    for level in range(LEVELS):
        for axis in (0, 1):
            strip = _binomial(strip, 2**level, axis)
    return strip


def _binomial(strip: FloatImage, distance: int, axis: int) -> FloatImage:
    """Filter along ``axis``: (a[i − d] + 2·a[i] + a[i + d]) / 4."""
    rows = np.moveaxis(strip, axis, 0)
    out = rows * np.float32(0.5)
    last = rows.shape[0]
    reach = min(distance, last)
    out[reach:] += rows[: last - reach] * np.float32(0.25)
    out[:reach] += rows[:1] * np.float32(0.25)
    out[: last - reach] += rows[reach:] * np.float32(0.25)
    out[last - reach :] += rows[-1:] * np.float32(0.25)
    return np.moveaxis(out, 0, axis)


def _adain(pixels: FloatImage, lq: FloatImage) -> None:
    height, width = pixels.shape[:2]
    mean, deviation = _statistics(pixels[rows] for rows, _, _ in strips(height))
    wanted_mean, wanted_deviation = _statistics(
        resample_region(lq, (width, height), first, 0, last - first, width) for _, first, last in strips(height)
    )
    gain = (wanted_deviation / deviation).astype(np.float32)
    offset = (wanted_mean - mean * gain).astype(np.float32)
    for rows, _, _ in strips(height):
        strip = pixels[rows]
        strip *= gain
        strip += offset
        np.clip(strip, 0.0, 1.0, out=strip)


def _statistics(strips: Iterator[FloatImage]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each channel over all strips: √(unbiased variance + VARIANCE)."""
    count, total, squares = 0, np.zeros(3), np.zeros(3)
    for strip in strips:
        count += strip.shape[0] * strip.shape[1]
        total += strip.sum(axis=(0, 1), dtype=np.float64)
        squares += np.square(strip, dtype=np.float64).sum(axis=(0, 1))
    mean = total / count
    variance = np.maximum(squares - count * mean**2, 0.0) / max(1, count - 1)
    return mean, np.sqrt(variance + VARIANCE)


def bleed_colour(pixels: FloatImage, alpha: NDArray[np.float32]) -> FloatImage:
    """Give every invisible pixel the colour of the nearest visible one, (H, W, 3) → (H, W, 3).

    Programs leave any colour, often black, where alpha is zero; a network or a filter would drag it into the visible
    edge. A picture with no visible pixel, or no invisible one, comes back as it is.
    """
    visible = alpha >= INVISIBLE
    if visible.all() or not visible.any():
        return pixels
    from scipy.ndimage import distance_transform_edt

    nearest = distance_transform_edt(~visible, return_distances=False, return_indices=True)
    bled: FloatImage = pixels[nearest[0], nearest[1]]
    return bled


def resize_alpha(alpha: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize alpha (H, W) to ``size`` (width, height) by Lanczos, clipped; a constant stays exactly that constant."""
    if alpha.min() == alpha.max():
        return np.full((size[1], size[0]), alpha.flat[0], np.float32)
    resized = resize(alpha, size, filter="lanczos")
    return np.clip(resized, 0.0, 1.0, out=resized)
