"""Faces: where a picture shows one, and the rule that none is replaced by another person's or another expression.

Found by the local binary patterns that come with scikit-image. It takes a pattern for a face now and then: there the
stricter rule holds too, which only means that less is taken from a photo.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np

from rasr.images import FloatImage
from rasr.registration.alignment import Plane, blur

LOOKED_AT = 640
"""Longer side at which faces are looked for."""
SMALLEST = 32
"""Side of the smallest face there, in pixels."""
WIDER = 0.25
"""Share of a face's side by which its box is widened: hair and chin belong to it."""
SURE_FACE = 0.7
"""Mean confidence within a face from which a photo may give it detail."""


@dataclass(frozen=True, slots=True)
class Face:
    """Box of a face, in pixels of the picture."""

    left: int
    top: int
    right: int
    bottom: int

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


def spare_faces(confidence: Plane, faces: Sequence[Face], origin: tuple[int, int]) -> Plane:
    """Take trust away inside faces of which a photo is not sure as a whole; ``origin`` is the window's (x, y)."""
    spared = confidence
    height, width = confidence.shape
    for face in faces:
        left, top = max(0, face.left - origin[0]), max(0, face.top - origin[1])
        right, bottom = min(width, face.right - origin[0]), min(height, face.bottom - origin[1])
        if left >= right or top >= bottom or confidence[top:bottom, left:right].mean() >= SURE_FACE:
            continue
        kept = np.ones_like(confidence)
        kept[top:bottom, left:right] = 0
        soft = np.minimum(kept, 2 * blur(kept, 3) - 1).clip(0, 1)  # 0 in the face, and no step around it
        spared = (spared * soft).astype(np.float32)
    return spared


@cache
def _cascade() -> Any:
    import skimage.data
    from skimage.feature import Cascade

    return Cascade(skimage.data.lbp_frontal_face_cascade_filename())
