"""How a picture of any shape becomes the square an encoder sees.

Retrieval compares what two squares show, so the same framing serves gallery and queries, and its name is part of the
encoder's fingerprint. Resampling is antialiased bicubic on float32, computed by Pillow on the CPU whatever the
encoder's device is, so that a gallery built on one machine can be searched on another.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from rasr.images import FloatImage

__all__ = ["centre_crop", "squash"]


def centre_crop(pixels: FloatImage, size: int) -> FloatImage:
    """The largest centred square of (H, W, 3), resized to (size, size, 3)."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    return _resize(pixels, size, (left, top, left + side, top + side))


def squash(pixels: FloatImage, size: int) -> FloatImage:
    """The whole picture resized to (size, size, 3): nothing is cut off, the aspect ratio is lost."""
    height, width = pixels.shape[:2]
    return _resize(pixels, size, (0, 0, width, height))


def _resize(pixels: FloatImage, size: int, box: tuple[float, float, float, float]) -> FloatImage:
    planes = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(pixels[..., channel])).resize(
                (size, size), Image.Resampling.BICUBIC, box=box
            )
        )
        for channel in range(3)
    ]
    square: FloatImage = np.clip(np.stack(planes, axis=-1), 0.0, 1.0, dtype=np.float32)
    return square
