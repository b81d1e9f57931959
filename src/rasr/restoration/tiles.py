"""Tiling: cut a picture on a regular grid, restore each tile, blend the answers on a canvas of any size.

Along one side, neighbouring tiles share ``overlap`` pixels: a margin at each tile's end that is thrown away, because a
network sees the tile's edge there and a resampling filter would reach beyond it, and between the margins a cosine ramp
from one tile to the next. The window of a tile is the product of its two ramps, and the windows sum to one everywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rasr.images import FloatImage, resize

__all__ = ["Strip", "plan_axis", "resample_region"]


@dataclass(frozen=True, slots=True, eq=False)
class Strip:
    """One tile along one side of the grid."""

    start: int
    """First pixel, on the grid the generator reads."""
    length: int
    """Pixels of the picture in this tile."""
    padded: int
    """Pixels handed to the generator: ``length`` rounded up to what it accepts."""
    first: int
    """First pixel on the canvas that this tile contributes to."""
    weights: NDArray[np.float32]
    """This tile's share of the canvas pixels from ``first`` on, in (0, 1]."""

    @property
    def stop(self) -> int:
        """One past the last canvas pixel."""
        return self.first + len(self.weights)


def plan_axis(
    size: int, target: int, tile: int, overlap: int, *, scale: int = 1, multiple: int = 1, minimum: int = 1
) -> list[Strip]:
    """Lay tiles along a side of ``size`` pixels whose result, ``scale`` times larger, fills ``target`` canvas pixels.

    The tiles are evenly spaced and of one size, so that the last one is not a sliver. The weights of all strips add up
    to one on every canvas pixel (to float32 rounding). ``overlap`` is widened where resampling to the canvas needs it
    and never exceeds half a tile.
    """
    side = _round_up(tile, multiple)
    if size <= side:
        padded = _round_up(max(size, min(minimum, side)), multiple)
        return [Strip(0, size, padded, 0, np.ones(target, np.float32))]
    # Bicubic reaches 2 samples to either side, of the grid or, when shrinking, of the canvas (both in grid pixels).
    reach = 0 if target == size * scale else math.ceil(2 * max(size / target, 1 / scale)) + 1
    shared = min(overlap + 2 * reach, side // 2)
    count = max(2, -(-(size - shared) // (side - shared)))
    starts = [round(i * (size - side) / (count - 1)) for i in range(count)]
    margin = min(overlap // 4 + reach, shared // 2)
    ramp = min(shared - 2 * margin, *(right - left for left, right in pairwise(starts)))
    middles = [(right + left + side) / 2 for left, right in pairwise(starts)]
    centres = (np.arange(target, dtype=np.float64) + 0.5) * (size / target)
    rises = [np.ones(target), *(_rise(centres, middle, ramp) for middle in middles), np.zeros(target)]
    strips = []
    for start, (rise, next_rise) in zip(starts, pairwise(rises), strict=True):
        weights = (rise * (1 - next_rise)).astype(np.float32)
        (inside,) = np.nonzero(weights)
        if inside.size:
            strips.append(Strip(start, side, side, int(inside[0]), weights[inside[0] : inside[-1] + 1]))
    return strips


def _round_up(pixels: int, multiple: int) -> int:
    return -(-pixels // multiple) * multiple


def _rise(centres: NDArray[Any], middle: float, ramp: float) -> NDArray[Any]:
    """0 before the ramp, 1 after it, half a cosine wave between."""
    if ramp <= 0:
        return (centres >= middle).astype(centres.dtype)
    wave: NDArray[Any] = 0.5 - 0.5 * np.cos(np.pi * np.clip((centres - middle) / ramp + 0.5, 0.0, 1.0))
    return wave


def resample_region(
    pixels: FloatImage, size: tuple[int, int], top: int, left: int, height: int, width: int
) -> FloatImage:
    """A rectangle of ``pixels`` resized bicubically to ``size`` (width, height), without making the whole of it.

    Equal to ``resize(pixels, size)[top:top + height, left:left + width]``.
    """
    if size == (pixels.shape[1], pixels.shape[0]):
        return pixels[top : top + height, left : left + width]
    y0, y1, box_top, box_bottom = _source_span(top, height, size[1], pixels.shape[0])
    x0, x1, box_left, box_right = _source_span(left, width, size[0], pixels.shape[1])
    return resize(pixels[y0:y1, x0:x1], (width, height), box=(box_left, box_top, box_right, box_bottom))


def _source_span(begin: int, length: int, target: int, source: int) -> tuple[int, int, float, float]:
    """Source pixels that canvas pixels ``begin`` to ``begin + length`` depend on, and the box within them."""
    step = source / target
    margin = math.ceil(2 * max(step, 1.0)) + 1
    low, high = begin * step, (begin + length) * step
    first, last = max(0, math.floor(low) - margin), min(source, math.ceil(high) + margin)
    return first, last, max(low - first, 0.0), min(high - first, float(last - first))
