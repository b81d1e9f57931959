"""Resampling in float32, by Pillow: antialiased when shrinking, no rounding to 8 bits anywhere."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Filter", "resize"]

Filter = Literal["nearest", "bilinear", "bicubic", "lanczos", "area"]

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "area": Image.Resampling.BOX,
}


def resize(
    pixels: NDArray[np.float32],
    size: tuple[int, int],
    *,
    filter: Filter = "bicubic",
    box: tuple[float, float, float, float] | None = None,
) -> NDArray[np.float32]:
    """Resample (H, W, C) or (H, W) float32 to ``size`` = (width, height).

    ``box`` is the source rectangle (left, top, right, bottom) in pixels, fractions allowed; pixels outside of it still
    feed the filter, so strips cut with ``box`` join without a seam. When shrinking, the filter's support grows with the
    scale (antialiasing), as in MATLAB's ``imresize``; bicubic has a = −0.5 like it. Bicubic and lanczos overshoot at
    edges: the result is not clipped. Raises ValueError for an unknown filter or a size below 1.
    """
    if filter not in _FILTERS:
        raise ValueError(f"unknown filter {filter!r}; choose one of {', '.join(get_args(Filter))}")
    width, height = size
    if width < 1 or height < 1:
        raise ValueError(f"cannot resize to {width}×{height}")
    if pixels.ndim == 2:
        return _plane(pixels, size, filter, box)
    if size == (pixels.shape[1], pixels.shape[0]) and box in {None, (0, 0, *size)}:
        return pixels.copy()
    out = np.empty((height, width, pixels.shape[2]), np.float32)
    for channel in range(pixels.shape[2]):  # one plane at a time keeps the peak at a third of a second copy
        out[:, :, channel] = _plane(pixels[:, :, channel], size, filter, box)
    return out


def _plane(
    plane: NDArray[np.float32], size: tuple[int, int], filter_: str, box: tuple[float, float, float, float] | None
) -> NDArray[np.float32]:
    image = Image.fromarray(np.ascontiguousarray(plane, np.float32))  # float32 gives mode 'F'
    return np.array(image.resize(size, _FILTERS[filter_], box=box), np.float32)
