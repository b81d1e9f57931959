"""Faces: where a picture shows one, and the rule that none is replaced by another person's or another expression.

Found by the local binary patterns that come with scikit-image, in the picture and in the photo as the picture sees it:
what restoring made of a small face is often no face any more. It takes a pattern for a face now and then: there the
stricter rule holds too, which only means that less is taken from a photo.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np

from rasr.images import FloatImage
from rasr.registration.features import Matrix, scaling
from rasr.registration.planes import Plane, blur
from rasr.registration.scene import as_fine_as, warp

LOOKED_AT = 640
"""Longer side at which faces are looked for."""
SMALLEST = 32
"""Side of the smallest face there, in pixels."""
WIDER = 0.25
"""Share of a face's side by which its box is widened: hair and chin belong to it."""
CORE = 0.1
"""Share of a face's side by which it is narrowed to eyes, nose and mouth: hair and walls around them always agree."""
SURE_FACE = 0.85
"""Mean confidence within that from which a photo may give a face detail."""
SURE_PART = 0.75
"""And what all but a twentieth of it must reach, averaged over a twentieth of the side: an eye, a corner of the mouth
(benchmarks/faces_scene.py)."""


CLOSER = (1.4, 2.0)
"""Enlargements at which a face of a photo must be found again, each also in the mirror."""
TELLING, TELLING_INPUT = 64, 16
"""Sides, in pixels of the picture and of the low-quality one, below which another person's face looks as sure as the
same one (benchmarks/faces_scene.py: at 44 and 11 pixels it does, at 89 and 22 no more)."""


@dataclass(frozen=True, slots=True)
class Face:
    """Box of a face, in pixels of the picture."""

    left: int
    top: int
    right: int
    bottom: int
    small: bool = False
    """Whether the picture shows too little of it to tell whose it is: then no photo gives it detail."""

    @property
    def side(self) -> int:
        """Width of the face itself, without what was added."""
        return round((self.right - self.left) / (1 + 2 * WIDER))


def find_faces(pixels: FloatImage) -> list[Face]:
    """Faces in (H, W, 3) pixels in [0, 1] that look at the camera, widened by :data:`WIDER` on all sides."""
    height, width = pixels.shape[:2]
    factor = min(1.0, LOOKED_AT / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    if min(size) < 2 * SMALLEST:
        return []
    small = np.rint(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).clip(0, 1) * 255).astype(np.uint8)
    found = _cascade().detect_multi_scale(
        img=small, scale_factor=1.2, step_ratio=1.3, min_size=(SMALLEST, SMALLEST),
        max_size=(min(size), min(size)), min_neighbor_number=3,
    )  # fmt: skip
    faces = []
    for box in found:
        pad = WIDER * box["width"]
        edges = (box["c"] - pad, box["r"] - pad, box["c"] + box["width"] + pad, box["r"] + box["height"] + pad)
        left, top, right, bottom = (round(edge / factor) for edge in edges)
        faces.append(Face(max(0, left), max(0, top), min(width, right), min(height, bottom)))
    return faces


def find_faces_seen(
    photo: FloatImage, to_photo: Matrix, size: tuple[int, int], *, input_scale: float = 0.25
) -> list[Face]:
    """Faces that a photo shows, (H, W, 3) in [0, 1], in pixels of the picture, of ``size`` (width, height).

    The photo is looked at as the picture sees it, by the homography ``to_photo``: it may be turned or on its side.
    ``input_scale`` is how many pixels of the low-quality picture make one of the picture. Only what is found again in
    closer looks, and in the mirror, counts: a pattern hardly ever is, and would cost the detail of its surroundings.
    """
    factor = LOOKED_AT / max(size)  # also where the picture is smaller: the photo may know more
    small = max(1, round(size[0] * factor)), max(1, round(size[1] * factor))
    to_photo = to_photo @ scaling(small, size)
    seen, _ = warp(*as_fine_as(photo, to_photo, small), small)
    across, down = size[0] / small[0], size[1] / small[1]
    faces = []
    for one in find_faces(seen):
        edges = (round(one.left * across), round(one.top * down), round(one.right * across), round(one.bottom * down))
        side = one.side * across
        if _found_closer(photo, to_photo, one):
            faces.append(Face(*edges, small=side < TELLING or side * input_scale < TELLING_INPUT))
    return faces


def _found_closer(photo: FloatImage, to_photo: Matrix, face: Face) -> bool:
    """Whether a face, found in the photo by the homography ``to_photo``, is found in each of four closer looks."""
    side = face.side
    across, down = (face.left + face.right) / 2, (face.top + face.bottom) / 2
    for times in CLOSER:
        size = (round(2 * times * side),) * 2
        closer = np.array([[1 / times, 0, across - side], [0, 1 / times, down - side], [0, 0, 1.0]])
        seen, _ = warp(*as_fine_as(photo, to_photo @ closer, size), size)
        for look in (seen, np.ascontiguousarray(seen[:, ::-1])):
            middle = times * side
            if not any(one.left < middle < one.right and one.top < middle < one.bottom for one in find_faces(look)):
                return False
    return True


def spare_faces(confidence: Plane, faces: Sequence[Face], origin: tuple[int, int]) -> Plane:
    """Take trust away inside faces of which a photo is not sure as a whole; ``origin`` is the window's (x, y)."""
    spared = confidence
    height, width = confidence.shape
    for face in faces:
        left, top = max(0, face.left - origin[0]), max(0, face.top - origin[1])
        right, bottom = min(width, face.right - origin[0]), min(height, face.bottom - origin[1])
        if left >= right or top >= bottom:
            continue
        if not face.small and _is_sure(confidence[top:bottom, left:right], face.side):
            continue
        kept = np.ones_like(confidence)
        kept[top:bottom, left:right] = 0
        soft = np.minimum(kept, 2 * blur(kept, 3) - 1).clip(0, 1)  # 0 in the face, and no step around it
        spared = (spared * soft).astype(np.float32)
    return spared


def _is_sure(confidence: Plane, side: int) -> bool:
    """Whether a photo is sure of the whole of a face, whose widened box this is."""
    inset = round((WIDER + CORE) * side)
    core = (slice(inset, -inset or None),) * 2
    parts = blur(confidence, 0.05 * side)[core] if min(confidence.shape) > 2 * inset else confidence
    whole = confidence[core] if min(confidence.shape) > 2 * inset else confidence
    return bool(whole.mean() >= SURE_FACE and np.percentile(parts, 5) >= SURE_PART)


@cache
def _cascade() -> Any:
    import skimage.data
    from skimage.feature import Cascade

    return Cascade(skimage.data.lbp_frontal_face_cascade_filename())
