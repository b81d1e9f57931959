"""Place: a photo of the same scene as the whole picture sees it, for a generator whose references lie on pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rasr.images import FloatImage, resize
from rasr.registration.alignment import align
from rasr.registration.faces import Face, spare_faces
from rasr.registration.planes import Plane
from rasr.registration.scene import SceneMatch
from rasr.registration.windows import Planes, Window, blend


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """A photo brought onto a picture."""

    pixels: FloatImage
    """(H, W, 3) in [0, 1]; of no meaning where the confidence is 0."""
    confidence: Plane
    """(H, W), 0 to 1: how sure it is that the photo shows this very place; 0 where it does not reach."""


def place(
    picture: FloatImage, lq: FloatImage, photo: FloatImage, found: SceneMatch, *, faces: Sequence[Face] = ()
) -> Placed:
    """Bring ``photo``, (H', W', 3), onto ``picture``, (H, W, 3), in which it was ``found``; both in [0, 1].

    ``lq`` is the low-quality picture, of any size. Inside ``faces`` a photo counts only where it is sure of the whole.
    """
    height, width = picture.shape[:2]
    enlarged = np.clip(resize(lq, (width, height)), 0, 1)

    def look(window: Window) -> Planes:
        left, top, right, bottom = window
        part = (slice(top, bottom), slice(left, right))
        one = align(picture[part], enlarged[part], photo, found, (left, top))
        return one.seen, spare_faces(one.confidence, faces, (left, top))

    return Placed(*blend((width, height), look))
