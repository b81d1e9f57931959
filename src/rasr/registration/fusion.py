"""Fusion: the real detail of registered photos put into a restored picture, and the map of where it came from.

Only detail is taken, and of it what the photos know better than the low-quality picture (:mod:`bands`); light and
colour stay the picture's. Several photos are blended as layers: choosing one for each pixel leaves seams. What the
evidence map says is what was done: at 0 the picture is unchanged to the bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rasr.images import FloatImage, resize
from rasr.registration.alignment import Alignment, Sight
from rasr.registration.bands import Weighing
from rasr.registration.faces import Face, spare_faces
from rasr.registration.matching import transform
from rasr.registration.parallax import agree
from rasr.registration.planes import Plane, luma
from rasr.registration.scene import SceneMatch
from rasr.registration.windows import Planes, Window, blend

CELL = 16
"""Side, in pixels of the result, of the cells for which it is told where they lie in a photo."""
LEVELS = 255


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """For each pixel of a result, which photo gave it detail, and how much."""

    maps: NDArray[np.uint8]
    """(R, H, W), one map for each photo, in its order: 255 where all fine detail is that photo's, 0 where none is."""
    places: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0, 0, 2), np.float32))
    """(R, ⌈H/16⌉, ⌈W/16⌉, 2): where the middle of each cell of 16 × 16 pixels lies in the photo, x and y as shares of
    its width and height, 0 to 1, outside of it beyond; as sure as the map says. Empty where nothing was aligned."""

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of the picture that each photo gave its detail to, 0 to 1."""
        return tuple(float(one.mean()) / LEVELS for one in self.maps)

    @property
    def total(self) -> NDArray[np.uint8]:
        """(H, W): how much of each pixel's detail is photos', 0 to 255; the rest is drawn."""
        if not len(self.maps):
            return np.zeros(self.maps.shape[1:], np.uint8)
        total: NDArray[np.uint8] = self.maps.sum(0, dtype=np.uint16).clip(0, LEVELS).astype(np.uint8)
        return total

    def find(self, x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float32]:
        """(R, len(y), len(x), 2): :attr:`places` of the pixels in columns ``x`` and rows ``y``, between the cells'."""
        found = self.places
        for axis, (at, length) in enumerate(zip((y, x), self.maps.shape[1:], strict=True), 1):
            middles = _middles(length)
            low = np.clip(np.searchsorted(middles, at, "right") - 1, 0, max(0, len(middles) - 2))
            high = np.minimum(low + 1, len(middles) - 1)
            part = np.clip((at - middles[low]) / np.maximum(middles[high] - middles[low], 1), 0, 1).astype(np.float32)
            part = part.reshape([-1 if number == axis else 1 for number in range(4)])
            found = np.take(found, low, axis) * (1 - part) + np.take(found, high, axis) * part
        return found


def fuse(
    picture: FloatImage,
    lq: FloatImage,
    photos: Sequence[tuple[FloatImage, SceneMatch]],
    *,
    strength: float = 1.0,
    faces: Sequence[Face] = (),
) -> Evidence:
    """Put the detail of photos of the same scene into ``picture``, in place, and tell where each gave how much.

    ``picture`` is the restored picture, (H, W, 3) in [0, 1], and ``lq`` the low-quality one, of any size; ``strength``,
    0 to 1, scales what is taken; ``faces`` take it only from photos that are sure of the whole face. A pixel whose maps
    are all 0 keeps its bits.
    """
    height, width = picture.shape[:2]
    maps = np.zeros((len(photos), height, width), np.uint8)
    if not photos or strength == 0:
        return Evidence(maps)
    places = np.zeros((len(photos), len(_middles(height)), len(_middles(width)), 2), np.float32)

    enlarged, removed = np.clip(resize(lq, (width, height)), 0, 1), _removed(picture, lq)

    def look(window: Window) -> Planes:
        left, top, right, bottom = window
        part = (slice(top, bottom), slice(left, right))
        shown = picture[part]
        weighing = Weighing(shown, enlarged[part], removed[part])
        sights = [Sight(shown, enlarged[part], photo, found, (left, top)) for photo, found in photos]
        aligned: list[Alignment] = []

        def put(number: int, one: Alignment) -> None:
            one = replace(one, confidence=spare_faces(one.confidence, faces, (left, top)))
            aligned[number : number + 1] = [one]
            weighing.put(number, one)

        for number in range(len(photos)):  # what photos have given is sharper, and true
            put(number, sights[number].align(shown + weighing.detail().change if aligned else None))
        together = agree(sights, aligned)
        for number, one in together.items():
            put(number, one)
        for number in range(len(photos)):
            if number not in together:
                put(number, sights[number].align(shown + weighing.detail().change, aligned[number]))
        _locate(places, aligned, photos, window, (width, height))
        seen = weighing.detail(strength)
        return np.moveaxis(seen.shares, 0, -1), seen.change

    shares, change = blend((width, height), look)
    maps[:] = np.floor(np.moveaxis(shares, -1, 0) * LEVELS + 0.5).clip(0, LEVELS)
    touched = maps.any(0)
    picture[touched] = np.clip(picture[touched] + change[touched], 0, 1)
    return Evidence(maps, places)


def _removed(picture: FloatImage, lq: FloatImage) -> Plane:
    """(H, W): the luma that restoring took away from the low-quality picture, at the size of the restored one."""
    size = (picture.shape[1], picture.shape[0])
    back = cv2.resize(picture, (lq.shape[1], lq.shape[0]), interpolation=cv2.INTER_AREA)
    removed: Plane = cv2.resize(luma(lq - back), size, interpolation=cv2.INTER_CUBIC)
    return removed


def _middles(length: int) -> NDArray[np.intp]:
    """Pixels in the middle of the cells along a side."""
    return np.minimum(np.arange(0, length, CELL) + CELL // 2, length - 1)


def _locate(
    places: NDArray[np.float32],
    aligned: Sequence[Alignment],
    photos: Sequence[tuple[FloatImage, SceneMatch]],
    window: Window,
    size: tuple[int, int],
) -> None:
    """Note in ``places`` where the cells of a window (left, top, right, bottom) lie in the photos."""
    left, top, right, bottom = window
    x, y = (_middles(length) for length in size)
    columns, rows = np.flatnonzero((x >= left) & (x < right)), np.flatnonzero((y >= top) & (y < bottom))
    at = np.stack(np.meshgrid(x[columns], y[rows]), -1)
    for number, (one, (photo, found)) in enumerate(zip(aligned, photos, strict=True)):
        moved = at + one.offsets[at[..., 1] - top, at[..., 0] - left]
        where = (transform(found.to_reference, moved) + 0.5) / (photo.shape[1], photo.shape[0])
        places[number, rows[:, None], columns] = np.nan_to_num(where, nan=-1).clip(-1, 2)
