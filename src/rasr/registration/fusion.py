"""Fusion: the real detail of registered photos put into a restored picture, and the map of where it came from.

Only detail is taken, what a photo has above a wide Gaussian, with the contrast that the low-quality picture shows at
coarser scales; light and colour stay the picture's. Several photos are blended as layers, by confidence: choosing one
for each pixel leaves seams. What the evidence map says is what was done: at 0 the picture is unchanged to the bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rasr.images import FloatImage
from rasr.registration.alignment import Alignment, Plane, align, blur, luma
from rasr.registration.faces import Face, spare_faces
from rasr.registration.matching import transform
from rasr.registration.scene import SceneMatch

DETAIL = 14.0
"""Sigma in pixels of the Gaussian above which structure counts as detail."""
COMPARED = (4.0, 14.0)
"""Sigmas of the band in which the contrasts of photo and low-quality picture are compared: seen in both."""
CONTRAST_WINDOW = 40.0
CONTRAST_LIMITS = (0.5, 1.6)
WINDOW = 1024
"""Side of the windows in which large pictures are registered, so that memory stays bounded."""
MARGIN = 96
"""Pixels that neighbouring windows share, over which they are blended."""
CELL = 16
"""Side, in pixels of the result, of the cells for which it is told where they lie in a photo."""
LEVELS = 255


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """For each pixel of a result, which photo gave it detail, and how much."""

    maps: NDArray[np.uint8]
    """(R, H, W), one map for each photo, in its order: 255 where all detail is that photo's, 0 where none is."""
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
    enlarged: FloatImage,
    photos: Sequence[tuple[FloatImage, SceneMatch]],
    *,
    strength: float = 1.0,
    faces: Sequence[Face] = (),
) -> Evidence:
    """Put the detail of photos of the same scene into ``picture``, in place, and tell where each gave how much.

    ``picture`` is the restored picture and ``enlarged`` the low-quality one at its size, (H, W, 3) in [0, 1];
    ``strength``, 0 to 1, scales what is taken; ``faces`` take it only from photos that are sure of the whole face. A
    pixel whose maps are all 0 keeps its bits.
    """
    height, width = picture.shape[:2]
    maps = np.zeros((len(photos), height, width), np.uint8)
    if not photos or strength == 0:
        return Evidence(maps)
    places = np.zeros((len(photos), len(_middles(height)), len(_middles(width)), 2), np.float32)

    def look(window: tuple[int, int, int, int]) -> tuple[NDArray[np.uint8], FloatImage]:
        """Shares and detail of a window, in which no detail was put yet."""
        left, top, right, bottom = window
        part = (slice(top, bottom), slice(left, right))
        aligned = [align(picture[part], enlarged[part], photo, found, (left, top)) for photo, found in photos]
        aligned = [replace(one, confidence=spare_faces(one.confidence, faces, (left, top))) for one in aligned]
        _locate(places, aligned, photos, window, (width, height))
        shares = _shares(aligned, strength)
        return shares, _detail(picture[part], enlarged[part], aligned, shares)

    if _is_one_window(width, height):
        maps[:], detail = look((0, 0, width, height))
    else:
        blended, detail = np.zeros((len(photos), height, width), np.float32), np.zeros_like(picture)
        weight = np.zeros((height, width), np.float32)
        for left, top, right, bottom in _windows(width, height):
            part = (slice(top, bottom), slice(left, right))
            shares, seen = look((left, top, right, bottom))
            ramp = _ramp(right - left, bottom - top)
            blended[:, *part] += ramp * shares
            detail[part] += (ramp * shares.sum(0, dtype=np.float32))[..., None] * seen
            weight[part] += ramp
        maps[:] = np.rint(blended / weight)
        detail /= np.maximum(blended.sum(0), 1e-6)[..., None]
    _add(picture, detail, maps)
    return Evidence(maps, places)


def _add(picture: FloatImage, detail: FloatImage, maps: NDArray[np.uint8]) -> None:
    """Add ``detail`` as far as ``maps`` say."""
    share = maps.sum(0, dtype=np.uint16).astype(np.float32) / LEVELS
    touched = share > 0
    picture[touched] = np.clip(picture[touched] + share[touched][:, None] * detail[touched], 0, 1)


def _middles(length: int) -> NDArray[np.intp]:
    """Pixels in the middle of the cells along a side."""
    return np.minimum(np.arange(0, length, CELL) + CELL // 2, length - 1)


def _locate(
    places: NDArray[np.float32],
    aligned: Sequence[Alignment],
    photos: Sequence[tuple[FloatImage, SceneMatch]],
    window: tuple[int, int, int, int],
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


def _shares(aligned: Sequence[Alignment], strength: float) -> NDArray[np.uint8]:
    """(R, H, W) levels: together the highest confidence of any photo, divided by the squares of their confidences."""
    confidences = np.stack([one.confidence for one in aligned])
    squares = confidences**2
    parts = squares / np.maximum(squares.sum(0), 1e-6) * confidences.max(0) * strength
    levels: NDArray[np.uint8] = np.floor(parts * LEVELS + 0.5).clip(0, LEVELS).astype(np.uint8)
    return levels


def _detail(
    picture: FloatImage, enlarged: FloatImage, aligned: Sequence[Alignment], shares: NDArray[np.uint8]
) -> FloatImage:
    """(H, W, 3): the photos' detail, blended, less the picture's own."""
    wanted = _band(luma(enlarged))
    total = np.zeros(picture.shape[:2], np.float32)
    layers = np.zeros_like(picture)
    for one, levels in zip(aligned, shares, strict=True):
        weight = levels.astype(np.float32)
        layer = one.seen - blur(one.seen, DETAIL)
        layers += weight[..., None] * layer * _contrast(wanted, _band(luma(one.seen)), one.confidence)[..., None]
        total += weight
    layers /= np.maximum(total, 1.0)[..., None]
    detail: FloatImage = layers - (picture - blur(picture, DETAIL))
    return detail


def _contrast(wanted: Plane, own: Plane, confidence: Plane) -> Plane:
    """The factor by which a photo's structure is to be multiplied to have the picture's contrast, place by place."""
    trusted = confidence + 1e-3
    common = blur(trusted * wanted * own, CONTRAST_WINDOW) + 1e-5
    factor = common / (blur(trusted * own * own, CONTRAST_WINDOW) + 1e-5)
    return np.asarray(np.clip(factor, *CONTRAST_LIMITS), np.float32)


def _is_one_window(width: int, height: int) -> bool:
    return max(width, height) <= WINDOW + 2 * MARGIN


def _windows(width: int, height: int) -> list[tuple[int, int, int, int]]:
    """(left, top, right, bottom) of the windows that cover a picture; neighbours share :data:`MARGIN` pixels."""
    return [(left, top, right, bottom) for top, bottom in _cuts(height) for left, right in _cuts(width)]


def _cuts(length: int) -> list[tuple[int, int]]:
    count = max(1, -(-(length - MARGIN) // (WINDOW - MARGIN)))
    starts = [round(number * (length - min(WINDOW, length)) / max(1, count - 1)) for number in range(count)]
    return [(start, min(length, start + WINDOW)) for start in starts]


def _ramp(width: int, height: int) -> Plane:
    """Weights of a window: 1 inside, falling towards its border, never 0."""
    across = np.minimum(np.arange(1, width + 1), np.arange(width, 0, -1))
    down = np.minimum(np.arange(1, height + 1), np.arange(height, 0, -1))
    nearest = np.minimum(across[None, :], down[:, None]).clip(1, MARGIN // 2)
    return np.asarray(nearest / (MARGIN // 2), dtype=np.float32)


def _band(plane: Plane) -> Plane:
    return blur(plane, COMPARED[0]) - blur(plane, COMPARED[1])
