"""Windows over a large picture: looked at one by one, so that memory stays bounded, and blended where they meet."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

WINDOW = 1024
"""Side of the windows in which large pictures are registered."""
MARGIN = 96
"""Pixels that neighbouring windows share, over which they are blended."""

Window: TypeAlias = tuple[int, int, int, int]
"""Left, top, right, bottom."""
Planes: TypeAlias = Sequence[NDArray[np.float32]]
"""Arrays (H, W) or (H, W, C)."""


def blend(size: tuple[int, int], look: Callable[[Window], Planes]) -> Planes:
    """What ``look`` tells of each window, put together for a whole picture of ``size`` (width, height).

    A picture that is hardly larger than a window is one.
    """
    width, height = size
    if max(size) <= WINDOW + 2 * MARGIN:
        return look((0, 0, width, height))
    wholes: list[NDArray[np.float32]] = []
    weight = np.zeros((height, width), np.float32)
    for left, top, right, bottom in _windows(width, height):
        part, ramp = (slice(top, bottom), slice(left, right)), _ramp(right - left, bottom - top)
        for number, plane in enumerate(look((left, top, right, bottom))):
            if number == len(wholes):
                wholes.append(np.zeros((height, width, *plane.shape[2:]), np.float32))
            wholes[number][part] += _beside(ramp, plane) * plane
        weight[part] += ramp
    return [whole / _beside(weight, whole) for whole in wholes]


def _beside(weights: NDArray[np.float32], plane: NDArray[np.float32]) -> NDArray[np.float32]:
    return weights[..., None] if plane.ndim > weights.ndim else weights


def _windows(width: int, height: int) -> list[Window]:
    """The windows that cover a picture; neighbours share :data:`MARGIN` pixels."""
    return [(left, top, right, bottom) for top, bottom in _cuts(height) for left, right in _cuts(width)]


def _cuts(length: int) -> list[tuple[int, int]]:
    count = max(1, -(-(length - MARGIN) // (WINDOW - MARGIN)))
    starts = [round(number * (length - min(WINDOW, length)) / max(1, count - 1)) for number in range(count)]
    return [(start, min(length, start + WINDOW)) for start in starts]


def _ramp(width: int, height: int) -> NDArray[np.float32]:
    """Weights of a window: 1 inside, falling towards its border, never 0."""
    across = np.minimum(np.arange(1, width + 1), np.arange(width, 0, -1))
    down = np.minimum(np.arange(1, height + 1), np.arange(height, 0, -1))
    nearest = np.minimum(across[None, :], down[:, None]).clip(1, MARGIN // 2)
    return np.asarray(nearest / (MARGIN // 2), dtype=np.float32)
