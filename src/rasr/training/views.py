"""Views of photos: crops, reduced, warped and recoloured ones, and their degradation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from rasr.degrade import degrade_array, draw
from rasr.images import FloatImage
from rasr.training.config import DataConfig

Pixels = NDArray[np.uint8]
"""A picture (H, W, 3), or pictures (N, H, W, 3), 8-bit sRGB: a quarter of the bytes of float32 on every way."""
Confidence = NDArray[np.uint8]
"""(H, W, 1), 0 to 255: how sure each place of a registered reference is."""

MAX_TURN = 15.0
ZOOM = (1.0, 1.4)
SHIFT = 0.25
PLACED = 0.7
"""Error, in pixels along each side, with which a view is brought back into place: detail then correlates with the
target's as that of registered photos does."""
DRIFT = 12.0
"""Sigma, in pixels, over which that error drifts."""
COVERS, NOTICED = 3, 0.8
"""Things that cover a view at most, and the share of them that registration notices."""
SOFT = 2.0
"""Sigma of the border of what is sure."""
BURSTS, BURST = 1 / 3, 0.1
"""Share of the warped views that are changed by this part of the full extent only."""


@dataclass(frozen=True, slots=True)
class Box:
    """Square of ``side`` pixels in a photo, with its top left corner at (left, top)."""

    left: int
    top: int
    side: int

    @classmethod
    def anywhere(cls, random: np.random.Generator, photo: Pixels, side: int) -> Box:
        """Draw a place in the photo, which must be at least ``side`` on both sides."""
        height, width = photo.shape[:2]
        return cls(int(random.integers(0, width - side + 1)), int(random.integers(0, height - side + 1)), side)

    @classmethod
    def centre(cls, photo: Pixels, side: int) -> Box:
        """Return the middle of the photo, which must be at least ``side`` on both sides."""
        height, width = photo.shape[:2]
        return cls((width - side) // 2, (height - side) // 2, side)

    def elsewhere(self, random: np.random.Generator, photo: Pixels, tries: int = 8) -> Box:
        """Draw several places of the photo; return the first without overlap, or with the least."""
        return min((Box.anywhere(random, photo, self.side) for _ in range(tries)), key=self.overlap)

    def overlap(self, other: Box) -> float:
        """Return the shared area as a share of this box."""
        wide = min(self.left, other.left) + self.side - max(self.left, other.left)
        high = min(self.top, other.top) + self.side - max(self.top, other.top)
        return max(0, wide) * max(0, high) / self.side**2

    def cut(self, photo: Pixels) -> Pixels:
        """Copy the box's pixels (side, side, 3) out of the photo."""
        return np.array(photo[self.top : self.top + self.side, self.left : self.left + self.side])


def turned(pixels: Pixels, number: int) -> Pixels:
    """Turn a square one of eight ways: 0 as is, 1 mirrored, 2, 3 upside down, 4–7 on its side."""
    pixels = pixels.transpose(1, 0, 2) if number & 4 else pixels
    pixels = pixels[::-1] if number & 2 else pixels
    return np.ascontiguousarray(pixels[:, ::-1] if number & 1 else pixels)


def whole_view(photo: Pixels, side: int) -> Pixels:
    """Reduce the photo's largest centre square to ``side``; it is never enlarged."""
    square = Box.centre(photo, min(photo.shape[:2])).cut(photo)
    if square.shape[0] == side:
        return square
    return np.array(Image.fromarray(square).resize((side, side), Image.Resampling.BICUBIC))


def warped_view(random: np.random.Generator, photo: Pixels, box: Box) -> tuple[Pixels, NDArray[np.float64]]:
    """View the place shifted by ≤ ¼, turned by ≤ 15°, from ≤ 1.4 times further, recoloured.

    One in three is hardly turned, resized or recoloured, as in a burst of photos: its detail can be taken over.

    Returns the view (side, side, 3) and the (2, 3) affine map from places in it to places in the box, in pixels.

    The photo is continued by mirroring beyond its edges. Only views from further away are taken, so that nothing is
    enlarged by more than a turn needs.
    """
    side = box.side
    extent = BURST if random.random() < BURSTS else 1.0
    zoom = 1 + extent * (float(random.uniform(*ZOOM)) - 1)
    turn = np.deg2rad(extent * random.uniform(-MAX_TURN, MAX_TURN))
    shift = random.uniform(-SHIFT, SHIFT, 2) * side
    widest = MAX_TURN * np.pi / 180
    reach = int(np.ceil(side * (zoom * (np.cos(widest) + np.sin(widest)) / 2 + SHIFT))) + 3
    middle = (box.top + side // 2, box.left + side // 2)
    window = photo[np.ix_(*(_mirrored(m, reach, n) for m, n in zip(middle, photo.shape[:2], strict=True)))]
    cos, sin = np.cos(turn) * zoom, np.sin(turn) * zoom
    centre = side / 2
    x0 = reach + shift[0] - cos * centre + sin * centre
    y0 = reach + shift[1] - sin * centre - cos * centre
    view = Image.fromarray(np.ascontiguousarray(window)).transform(
        (side, side), Image.Transform.AFFINE, (cos, -sin, x0, sin, cos, y0), Image.Resampling.BICUBIC
    )
    corner = middle[1] - reach - box.left, middle[0] - reach - box.top
    motion = np.array([[cos, -sin, x0 + corner[0]], [sin, cos, y0 + corner[1]]])
    return _recoloured(random, np.asarray(view), extent), motion


def registered_view(random: np.random.Generator, photo: Pixels, box: Box) -> tuple[Pixels, Confidence]:
    """A :func:`warped_view` brought back into place as registration does it, and how sure that would be of it.

    What it shows is turned, shifted and resized back with an error of under a pixel that drifts from place to place.
    The confidence is 0 where the view does not reach; where it is covered by something else, registration mostly
    notices, and else is fooled.
    """
    side = box.side
    view, motion = warped_view(random, photo, box)
    view = view.copy()
    hidden = np.zeros((side, side), np.float32)
    for _ in range(int(random.integers(0, COVERS + 1))):
        high, wide = (int(random.integers(side // 8, side // 3 + 1)) for _ in range(2))
        top, left = int(random.integers(0, side - high + 1)), int(random.integers(0, side - wide + 1))
        other = Box.anywhere(random, photo, side).cut(photo)
        view[top : top + high, left : left + wide] = other[top : top + high, left : left + wide]
        if random.random() < NOTICED:
            hidden[top : top + high, left : left + wide] = 1
    places = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1) + 0.5
    drift = np.stack([_smooth(random, side) for _ in range(2)], -1) * PLACED
    back = (places + drift - motion[:, 2]) @ np.linalg.inv(motion[:, :2]).T - 0.5
    inside = ((back > 1) & (back < side - 2)).all(-1)
    at = [back[..., 1], back[..., 0]]
    seen = np.stack([map_coordinates(view[..., c].astype(np.float32), at, mode="nearest") for c in range(3)], -1)
    sure = inside * (1 - map_coordinates(hidden, at, order=1, mode="nearest"))
    sure = np.minimum(sure, gaussian_filter(sure, SOFT)) * random.uniform(0.6, 1)
    return np.rint(seen.clip(0, 255)).astype(np.uint8), np.rint(255 * sure[..., None]).astype(np.uint8)


def degraded(pixels: Pixels, data: DataConfig, *, seed: int, name: str) -> FloatImage:
    """Degrade a view as configured: LQ (H / scale, W / scale, 3), a function of seed and name."""
    recipe = draw(data.degradation, scale=data.scale, seed=seed, name=name, usm=data.usm)
    return degrade_array(np.divide(pixels, 255, dtype=np.float32), recipe)


def to_8_bit(pixels: FloatImage) -> Pixels:
    """Round a picture in [0, 1] to 8 bit; what lies outside is clipped."""
    return np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)


def _mirrored(middle: int, reach: int, length: int) -> NDArray[np.intp]:
    period = max(2 * (length - 1), 1)
    position = np.abs(np.arange(middle - reach, middle + reach)) % period
    mirrored: NDArray[np.intp] = np.minimum(position, period - position)
    return mirrored


def _smooth(random: np.random.Generator, side: int) -> NDArray[np.float64]:
    """Noise (side, side) of standard deviation 1 that drifts over :data:`DRIFT` pixels."""
    noise: NDArray[np.float64] = gaussian_filter(random.standard_normal((side, side)), DRIFT, mode="wrap")
    return noise / max(float(noise.std()), 1e-9)


def _recoloured(random: np.random.Generator, pixels: Pixels, extent: float) -> Pixels:
    """Change the light: gamma, a gain for each channel, saturation."""
    gamma = float(np.exp(extent * random.uniform(-0.3, 0.3)))
    gain = 1 + extent * random.uniform(-0.15, 0.15, 3)
    saturation = 1 + extent * float(random.uniform(-0.4, 0.4))
    values = (pixels.astype(np.float32) / 255) ** gamma * gain.astype(np.float32)
    gray = values.mean(axis=2, keepdims=True)
    return to_8_bit(gray + saturation * (values - gray))
