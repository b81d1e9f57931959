"""Parallax: two photos tell the shape of a scene, and then few numbers tell how the bad picture lies in it.

Each photo alone is aligned piece by piece, and each piece follows the picture's noise. But of a still scene the fields
are not free. Where it is flat, or far, one is a quadratic of the place. Where it is not, what moves a place from one
photo to another is its depth, and two good photos show that to a fraction of a pixel: the field is a quadratic and a
matrix times that parallax. Sixteen numbers are read from the whole picture, of all photos at once (Lucas and Kanade,
IJCAI 1981), and all photos then lie on each other. The picture decides, place by place, whether it allows that.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rasr.registration.alignment import Alignment, Look, Sight
from rasr.registration.planes import Plane, blur, luma, normalised

THIN = 2
"""Every second pixel of the halves tells of the numbers."""
ROUNDS = 5
INVERSION_ROUNDS = 6
REFITS = 5
FIT_SPREAD = 0.5
"""Pixels of the halves off the field at which a place counts a quarter when numbers are fitted to a field."""
RIDGE = 1e-4
COARSE_WINDOW = 12.0
FINE_WINDOWS = (8.0, 4.0, 2.5)
"""Sigmas of the windows of affine motion between two photos: finer than to the picture, since both are sharp."""
SURE_WINDOW = 3.0
LOSS = 0.1
"""Correlation with the picture that few numbers may lose at a place against pieces of their own: noise is followed."""
HALF = 0.5
"""Share of the picture in which they must lose no more to be asked at all."""
FLAT_LOSS, FLAT_SHARE = 0.05, 0.9
"""And in which share a field without parallax may lose how much, or the scene is not flat."""
LOSS_TOGETHER = 0.2
"""What a field that photos have in common may lose at a place."""
SURE = 0.3
"""Correlation of two photos below which a place of the further one may lose less."""

Field = NDArray[np.float32]
"""(H, W, 2)."""


def agree(sights: Sequence[Sight], aligned: Sequence[Alignment]) -> dict[int, Alignment]:
    """Align photos of one window anew, by few numbers; by number, those of which the picture allows it.

    The first photo is the one that the others are laid onto: the best. ``aligned`` are their alignments so far. Where
    each takes a flat field, each has told all there is to tell.
    """
    looks = [sight.look for sight in sights]
    offsets = [sight.offsets(one) for sight, one in zip(sights, aligned, strict=True)]
    changed = set()
    for number, look in enumerate(looks):
        flat = _fit(_Model(look, (), flat=True), [look], offsets[number])
        if flat and (look.gain(offsets[number], flat[0]) > -FLAT_LOSS).mean() > FLAT_SHARE:
            offsets[number] = look.better(offsets[number], flat[0], LOSS)
            changed.add(number)
    if len(looks) > 1 and len(changed) < len(looks):
        shapes = [_Shape(looks[0], look) for look in looks[1:]]
        fields = _fit(_Model(looks[0], shapes, flat=0 in changed), looks, offsets[0])
        if fields:
            reached = np.max([one.reaches(fields[0]) for one in shapes], 0)
            sure = [np.clip(one.at(fields[0]) / SURE, 0, 1) for one in shapes]
            allowed = [LOSS_TOGETHER * one for one in (reached, *sure)]
            offsets = [look.better(*choice) for look, *choice in zip(looks, offsets, fields, allowed, strict=True)]
            changed = set(range(len(looks)))
    return {number: sights[number].finish(offsets[number]) for number in sorted(changed)}


class _Shape:
    """Where the places of one photo lie in another, both as their homographies bring them onto the picture."""

    def __init__(self, one: Look, other: Look) -> None:
        seen, inside = one.see(np.zeros((one.size[1], one.size[0], 2), np.float32))
        look = Look(luma(seen), other.photo, other.to_photo)
        flow = look.refine(np.zeros_like(one.grid))
        flow = look.refine(look.smooth(flow, (COARSE_WINDOW,)))
        smooth = look.smooth(flow, FINE_WINDOWS[:1])
        self.moved: Field = look.smooth(look.refine(smooth), FINE_WINDOWS[1:], smooth)
        self.sure: Plane = blur(np.where(inside, look.fit(self.moved), 0).astype(np.float32), SURE_WINDOW)
        self._reached = look.see(self.moved)[1].astype(np.float32)
        self._grid = one.grid

    def reaches(self, offsets: Field) -> Plane:
        """Where the other photo shows the places that the picture shows under ``offsets``, 0 to 1."""
        return _taken(self._reached, self._grid + offsets)

    def at(self, offsets: Field) -> Plane:
        """How sure it is at the places that the picture shows under ``offsets``."""
        return _taken(self.sure, self._grid + offsets)

    def onto(self, offsets: Field) -> Field:
        """The offsets of the other photo under those of the one."""
        return offsets + _taken(self.moved, self._grid + offsets)


class _Model:
    """Fields of few numbers: (K, 2), for each place of the photo how far from it the picture shows it."""

    def __init__(self, look: Look, shapes: Sequence[_Shape], *, flat: bool) -> None:
        self.shapes, self.grid, self._size = shapes, look.grid, look.size
        self._parallax: Field | None = None
        if not flat:
            self._parallax = np.asarray(shapes[0].moved / 4, np.float32)  # of a size with the other terms

    def terms(self, places: NDArray[np.float32]) -> NDArray[np.float64]:
        """(N, K) of (h, w, 2) places in the photo: 1, x, y, x², xy, y² and, unless it is flat, the parallax there."""
        x, y = (2 * places[..., axis].astype(np.float64) / self._size[axis] - 1 for axis in (0, 1))
        terms: list[NDArray[Any]] = [np.ones_like(x), x, y, x * x, x * y, y * y]
        if self._parallax is not None:
            terms += list(np.moveaxis(_taken(self._parallax, places), -1, 0))
        return np.stack(terms, -1).reshape(x.size, -1)

    def offsets(self, numbers: NDArray[np.float64], start: Field) -> Field:
        """The field on the picture's pixels: the places whose distance from the pixel is the model's there."""
        away = (self.terms(self.grid) @ numbers).reshape(self.grid.shape).astype(np.float32)
        offsets = start
        for _ in range(INVERSION_ROUNDS):
            offsets = np.asarray((offsets - _taken(away, self.grid + offsets)) / 2, np.float32)
        return -_taken(away, self.grid + offsets)

    def near(self, offsets: Field, weights: Plane) -> NDArray[np.float64]:
        """The numbers whose field is nearest to ``offsets``, robustly."""
        thin = offsets[::THIN, ::THIN]
        terms = self.terms(self.grid[::THIN, ::THIN] + thin)
        wanted = -thin.reshape(-1, 2).astype(np.float64)
        trusted = weights[::THIN, ::THIN].reshape(-1).astype(np.float64) + 1e-6
        counted = trusted
        for _ in range(REFITS):
            weighed = terms * counted[:, None]
            numbers = _solve(terms.T @ weighed, weighed.T @ wanted, 1e-5)
            apart = ((terms @ numbers - wanted) ** 2).sum(-1)
            counted = trusted / (1 + apart / FIT_SPREAD**2)
        return numbers


def _fit(model: _Model, looks: Sequence[Look], offsets: Field) -> list[Field]:
    """The fields of ``looks`` by the few numbers under which they fit the picture best, begun at the first's field.

    Empty where the first's field is like none of few numbers.
    """
    first, before = looks[0], offsets
    numbers = model.near(offsets, np.clip(first.fit(offsets), 0, 1) ** 2)
    offsets = model.offsets(numbers, offsets)
    if (first.gain(before, offsets) > -LOSS).mean() < HALF:
        return []
    wanted = normalised(first.guide)
    thin = (slice(None, None, THIN), slice(None, None, THIN))
    for _ in range(ROUNDS):
        terms = model.terms((model.grid + offsets)[thin])
        count = terms.shape[1]
        square, right = np.zeros((2 * count, 2 * count)), np.zeros((2 * count, 1))
        shared = np.ones((terms.shape[0], 1))
        if model.shapes:
            shared = (np.clip(model.shapes[0].at(offsets)[thin], 0, 1) ** 2).reshape(-1, 1).astype(np.float64)
        for look, field in zip(looks, _fields(model, offsets), strict=True):
            missing, counted, along, across = look.differences(wanted, field)
            slopes = np.concatenate([terms * along[thin].reshape(-1, 1), terms * across[thin].reshape(-1, 1)], 1)
            weighed = slopes * (shared * counted[thin].reshape(-1, 1))
            square += slopes.T @ weighed
            right += weighed.T @ missing[thin].reshape(-1, 1)
        numbers = numbers - _solve(square, right, RIDGE).reshape(2, count).T
        offsets = model.offsets(numbers, offsets)
    return _fields(model, offsets)


def _fields(model: _Model, offsets: Field) -> list[Field]:
    return [offsets, *(shape.onto(offsets) for shape in model.shapes)]


def _solve(square: NDArray[np.float64], right: NDArray[np.float64], ridge: float) -> NDArray[np.float64]:
    size = len(square)
    solved: NDArray[np.float64] = np.linalg.solve(
        square + (ridge * np.trace(square) / size + 1e-9) * np.eye(size), right
    )
    return solved


def _taken(plane: NDArray[np.float32], places: NDArray[np.float32]) -> NDArray[np.float32]:
    """A plane, or a field, at ``places``."""
    found: NDArray[np.float32] = cv2.remap(plane, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return found
