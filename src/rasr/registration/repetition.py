"""Repetition: whether a photo fits better elsewhere than where it was found, as a wall of equal bricks does.

Blocks of the picture are looked for in the photo, as the picture sees it, around the places that were found. What is
really there fits best there, or next to it since scenes are not flat; of a pattern other places fit as well or better.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from rasr.images import FloatImage
from rasr.registration.features import Matrix, Points, scaling

SIDE = 192
"""Longer side at which picture and photo are compared. Sizes below are in these pixels."""
BLOCK = 64
REACH = 96
"""How far beyond the picture the photo is looked at."""
HERE, ELSEWHERE = 12, 16
"""Distances from the place found up to which another is the same one, and from which it is another."""
BAND = (1.0, 6.0)
"""Sigmas of the band that is compared."""
FLAT = 0.004
"""Contrast of a block below which it says nothing."""
AS_LOUD = 0.15
"""Share of a block's energy that a place of the photo must have to be compared with it."""
FEWEST_POINTS, FEWEST_BLOCKS = 4, 4
"""Places found again that a block must have, and such blocks that it takes to tell."""
BETTER = 0.08
"""Correlation by which half of the blocks must fit better elsewhere. Of twelve real scenes none comes near: −0.02 and
less; a wall of bricks, turned upside down and found beside itself: 0.17."""

Plane = NDArray[np.float32]
"""(H, W) float32."""


def surroundings(to_photo: Matrix, size: tuple[int, int]) -> tuple[Matrix, tuple[int, int]]:
    """The map from pixels of a reduced picture with a margin to those of the photo, and its size (width, height).

    ``to_photo`` is that of the picture of ``size``.
    """
    factor = SIDE / max(size)
    small = max(1, round(size[0] * factor)), max(1, round(size[1] * factor))
    shifted = scaling(small, size) @ np.array([[1.0, 0, -REACH], [0, 1.0, -REACH], [0, 0, 1.0]])
    return to_photo @ shifted, (small[0] + 2 * REACH, small[1] + 2 * REACH)


def fits_elsewhere(
    picture: FloatImage, seen: FloatImage, inside: NDArray[np.bool_], points: Points, size: tuple[int, int]
) -> bool:
    """Whether most blocks of ``picture`` fit the photo better in other places than where they were found.

    ``seen`` is the photo in its :func:`surroundings`, ``inside`` where it has pixels; ``points`` (M, 2) are the places
    found again, in pixels of the picture of ``size`` (width, height).
    """
    small = seen.shape[1] - 2 * REACH, seen.shape[0] - 2 * REACH
    own = _band(cv2.resize(picture, small, interpolation=cv2.INTER_AREA))
    other = np.where(inside, _band(seen), 0).astype(np.float32)
    energy = cv2.blur(other * other, (BLOCK, BLOCK), anchor=(0, 0), borderType=cv2.BORDER_CONSTANT)
    known = cv2.blur(inside.astype(np.float32), (BLOCK, BLOCK), anchor=(0, 0), borderType=cv2.BORDER_CONSTANT)
    places = points * (np.array(small, np.float32) / np.array(size, np.float32))
    better = []
    for top in range(0, small[1] - BLOCK + 1, BLOCK // 2):
        for left in range(0, small[0] - BLOCK + 1, BLOCK // 2):
            block = own[top : top + BLOCK, left : left + BLOCK]
            corner = np.array([left, top], np.float32)
            count = ((places >= corner) & (places < corner + BLOCK)).all(1).sum()
            if count < FEWEST_POINTS or block.std() < FLAT or known[top + REACH, left + REACH] < 0.9:
                continue
            fit = np.nan_to_num(cv2.matchTemplate(other, block, cv2.TM_CCOEFF_NORMED), posinf=0, neginf=0)
            height, width = fit.shape
            fit = np.where(energy[:height, :width] > AS_LOUD * (block * block).mean(), fit, 0)
            y, x = np.ogrid[:height, :width]
            away = np.hypot(x - left - REACH, y - top - REACH)
            better.append(float(fit[away > ELSEWHERE].max() - fit[away < HERE].max()))
    return len(better) >= FEWEST_BLOCKS and float(np.median(better)) > BETTER


def _band(pixels: FloatImage) -> Plane:
    gray = cv2.cvtColor(pixels.astype(np.float32, copy=False), cv2.COLOR_RGB2GRAY)
    fine, coarse = (cv2.GaussianBlur(gray, (0, 0), sigma) for sigma in BAND)
    band: Plane = fine - coarse
    return band
