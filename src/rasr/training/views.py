"""Cutting views out of photos: crops, whole photos reduced, and warped, recoloured views of the same place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Box", "Turn", "crop_box", "cut", "distant_box", "warped_view", "whole_view"]

Pixels = NDArray[np.uint8]

LARGEST_TURN = 15.0
ZOOM = (1.0, 1.4)
SHIFT = 0.25
BURSTS, BURST = 1 / 3, 0.1
"""Share of the views that are changed by this part of the full extent only."""


@dataclass(frozen=True, slots=True)
class Box:
    """A square of ``side`` pixels whose top left corner is (left, top)."""

    left: int
    top: int
    side: int

    def overlap(self, other: Box) -> float:
        """Shared area as a share of this box."""
        wide = min(self.left, other.left) + self.side - max(self.left, other.left)
        high = min(self.top, other.top) + self.side - max(self.top, other.top)
        return max(0, wide) * max(0, high) / self.side**2


@dataclass(frozen=True, slots=True)
class Turn:
    """One of the eight ways to lay down a square: 0 as it is, 1 mirrored, 2 and 3 upside down, 4 to 7 on its side."""

    number: int

    def __call__(self, pixels: Pixels) -> Pixels:
        """Pixels (H, W, C), laid so."""
        turned = pixels.transpose(1, 0, 2) if self.number & 4 else pixels
        turned = turned[::-1] if self.number & 2 else turned
        return np.ascontiguousarray(turned[:, ::-1] if self.number & 1 else turned)


def crop_box(random: np.random.Generator, photo: Pixels, side: int) -> Box:
    """A random place in the photo, which must be at least ``side`` on both sides."""
    height, width = photo.shape[:2]
    return Box(int(random.integers(0, width - side + 1)), int(random.integers(0, height - side + 1)), side)


def distant_box(random: np.random.Generator, photo: Pixels, box: Box, tries: int = 8) -> Box:
    """Another place of the same photo: of several random ones, the first without overlap or else the least shared."""
    places = [crop_box(random, photo, box.side) for _ in range(tries)]
    return min(places, key=box.overlap)


def cut(photo: Pixels, box: Box) -> Pixels:
    """The pixels of the box, copied."""
    return np.array(photo[box.top : box.top + box.side, box.left : box.left + box.side])


def whole_view(photo: Pixels, side: int) -> Pixels:
    """The photo's largest centre square, reduced (never enlarged) to ``side``."""
    height, width = photo.shape[:2]
    largest = min(height, width)
    left, top = (width - largest) // 2, (height - largest) // 2
    square = Image.fromarray(np.ascontiguousarray(photo[top : top + largest, left : left + largest]))
    return np.array(square if largest == side else square.resize((side, side), Image.Resampling.BICUBIC))


def warped_view(random: np.random.Generator, photo: Pixels, box: Box) -> Pixels:
    """Nearly the same place: shifted by up to a quarter, turned by up to 15°, seen from up to 1.4× further, recoloured.

    One in three is hardly turned, resized or recoloured, as in a burst of photos: its detail can be taken over.

    The photo is continued by mirroring beyond its edges. Only views from further away are taken, so that nothing is
    enlarged by more than a turn needs.
    """
    side = box.side
    extent = BURST if random.random() < BURSTS else 1.0
    zoom = 1 + extent * (float(random.uniform(*ZOOM)) - 1)
    turn = np.deg2rad(extent * random.uniform(-LARGEST_TURN, LARGEST_TURN))
    shift = random.uniform(-SHIFT, SHIFT, 2) * side
    reach = (
        int(
            np.ceil(
                side * (zoom * (np.cos(LARGEST_TURN * np.pi / 180) + np.sin(LARGEST_TURN * np.pi / 180)) / 2 + SHIFT)
            )
        )
        + 3
    )
    middle = (box.top + side // 2, box.left + side // 2)
    window = photo[np.ix_(*(_mirrored(m, reach, n) for m, n in zip(middle, photo.shape[:2], strict=True)))]
    cos, sin = np.cos(turn) * zoom, np.sin(turn) * zoom
    centre = side / 2
    x0 = reach + shift[0] - cos * centre + sin * centre
    y0 = reach + shift[1] - sin * centre - cos * centre
    view = Image.fromarray(np.ascontiguousarray(window)).transform(
        (side, side), Image.Transform.AFFINE, (cos, -sin, x0, sin, cos, y0), Image.Resampling.BICUBIC
    )
    return _recoloured(random, np.asarray(view), extent)


def _mirrored(middle: int, reach: int, length: int) -> NDArray[np.intp]:
    period = max(2 * (length - 1), 1)
    position = np.abs(np.arange(middle - reach, middle + reach)) % period
    mirrored: NDArray[np.intp] = np.minimum(position, period - position)
    return mirrored


def _recoloured(random: np.random.Generator, pixels: Pixels, extent: float) -> Pixels:
    """Other light: gamma, a gain for each channel, saturation."""
    gamma = float(np.exp(extent * random.uniform(-0.3, 0.3)))
    gain = 1 + extent * random.uniform(-0.15, 0.15, 3)
    saturation = 1 + extent * float(random.uniform(-0.4, 0.4))
    values = (pixels.astype(np.float32) / 255) ** gamma * gain.astype(np.float32)
    gray = values.mean(axis=2, keepdims=True)
    recoloured: Pixels = np.rint(np.clip(gray + saturation * (values - gray), 0, 1) * 255).astype(np.uint8)
    return recoloured
